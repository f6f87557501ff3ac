//! What holds on real servers: a Postgres and a Redis of the tests' own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "tests say what is wrong by failing"
)]

mod app;
mod archive;
mod crash;
mod docs;
mod durability;
mod guards;
mod harness;
mod letters;
mod mark;
mod metrics;
mod migrate;
mod once;
mod outbox;
mod prune;
mod redrive;
mod relay;
mod rows;

#[path = "../scrape/mod.rs"]
mod scrape;
