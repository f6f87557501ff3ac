//! The harness keeps its own promises.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on ends by panicking"
)]

mod browser;
mod held;
mod postgres;
mod process;
mod proxy;
mod server;

use std::time::Duration;

/// Far more than anything here takes.
const DEADLINE: Duration = Duration::from_secs(10);
