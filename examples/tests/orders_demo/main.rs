//! The orders demo, started as a program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "tests report problems by failing"
)]

mod api;
mod browser;
mod cluster;
mod harness;
mod run;
