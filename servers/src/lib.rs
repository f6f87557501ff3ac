//! Private servers for tests, examples and benchmarks: Redis, Valkey, Postgres, nginx and a browser.
//!
//! - [`server`]: a private Redis that ends with the process that started it.
//! - [`postgres`]: a private Postgres that ends in the same way, and a database of its own for each
//!   test.
//! - [`nginx`]: a private nginx in front of a server on this machine.
//! - [`promtool`]: Prometheus' own check of alert rules.
//! - `browser`, with the feature of that name: a browser without a window, operated as a person
//!   would.
//! - [`eventually`]: waiting for something to become true, with a deadline.
//! - [`signal`]: sends signals to processes, and tells the state of a process.
//!
//! A server that is not installed is downloaded or installed, and one line on standard error says
//! so. The program `servers` (`cargo servers`) runs the tests on every version of Redis and Valkey.
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
pub mod browser;
pub mod eventually;
pub mod nginx;
pub mod postgres;
pub mod promtool;
pub mod server;
pub mod signal;

mod machine;
