//! The tests' harness: faults, processes, and checks of what processes did.
//!
//! - [`proxy`]: a TCP proxy in front of a server that loses, cuts, holds and refuses on demand.
//! - [`process`]: another process that can be killed, frozen and read line by line.
//! - [`logs`]: what this thread logs, kept from the tests beside it.
//! - [`history`] and [`check`]: what processes report that they did, and whether that is allowed.
//!
//! The servers themselves, a browser and waiting with a deadline come from `streamjobs-servers`,
//! whose modules are re-exported here.
//!
//! Everything blocks for at most milliseconds unless it says otherwise, and so may be called from
//! async tests as well.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on ends by panicking, and so does what serves it"
)]

#[cfg(feature = "browser")]
pub use streamjobs_servers::browser;
pub use streamjobs_servers::{eventually, nginx, postgres, promtool, server};

pub mod check;
pub mod conformance;
pub mod figures;
pub mod history;
pub mod logs;
pub mod printed;
pub mod process;
pub mod proof;
pub mod proxy;
pub mod seeded;
pub mod starts;
