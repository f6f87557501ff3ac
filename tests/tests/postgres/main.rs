//! Tests of the Postgres crate on real servers: a private Postgres and a private Redis.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "tests report errors by failing"
)]

mod app;
mod archive;
mod archive_races;
mod batches;
mod cancelled;
mod completion;
mod completion_faults;
mod completion_page;
mod crash;
mod docs;
mod durability;
mod guards;
mod harness;
mod letters;
mod mark;
mod metrics;
mod migrate;
mod moved;
mod once;
mod outbox;
mod partitions;
mod performed;
mod pooler;
mod prune;
mod redrive;
mod relay;
mod rights;
mod rows;
mod scope;
mod slow_link;
mod standby;
mod view;

#[path = "../scrape/mod.rs"]
mod scrape;
