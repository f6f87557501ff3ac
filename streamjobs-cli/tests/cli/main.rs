//! The command line on a private server, as people and as programs use it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "tests say what is wrong by failing"
)]

mod dead;
mod doctor;
mod entries;
mod everywhere;
mod group;
mod history;
mod look;
mod orders;
mod program;
mod retries;
mod trim;
