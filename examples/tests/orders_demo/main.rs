//! The orders demo, started as a person starts it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "tests say what is wrong by failing"
)]

mod api;
mod browser;
mod run;
mod stand;
