//! What the tests and the demo stand on: private servers, faults, processes and waiting.
//!
//! - [`server`]: a private Redis that ends with the process that started it.
//! - [`postgres`]: a private Postgres that does too, and a database of its own for each test.
//! - [`proxy`]: a TCP proxy in front of it that loses, cuts, holds and refuses on demand.
//! - `browser`, with the feature of that name: a browser without a window, driven as a person would.
//! - [`process`]: another process that can be killed, frozen and read line by line.
//! - [`history`] and [`check`]: what processes say they did, and whether it may be so.
//! - [`eventually`]: waiting for something to become true, with a deadline.
//!
//! Everything blocks for milliseconds at most unless it says otherwise, and so may be called from
//! async tests as well.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on ends by panicking, and so does what serves it"
)]

#[cfg(feature = "browser")]
pub mod browser;
pub mod check;
pub mod eventually;
pub mod figures;
pub mod history;
pub mod postgres;
pub mod process;
pub mod proof;
pub mod proxy;
pub mod server;

mod machine;
mod signal;
