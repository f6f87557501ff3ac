//! The harness keeps its own promises.
mod held;
mod postgres;
mod process;
mod proxy;
mod server;

use std::time::Duration;

/// Far more than anything here takes.
const DEADLINE: Duration = Duration::from_secs(10);
