//! Real processes that crash, freeze and stop on a real server, alone and at every fail point.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "tests say what is wrong by failing"
)]

mod grid;
mod limits;
mod processes;
mod rates;
mod unique;
