//! The framework on a real server: a private one for each test, under the real clock.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "tests say what is wrong by failing"
)]

mod access;
mod alerts;
mod app;
mod bad_input;
mod bounds;
mod cancel;
mod cluster;
mod conformance;
mod credentials;
mod dead_letters;
mod deliver;
mod doctor;
mod failover;
mod faults;
mod finished;
mod groups;
mod growth;
mod handler_schedules;
mod large;
mod lease;
mod limits;
mod log;
mod metrics;
mod network;
mod observers;
mod once;
mod operate;
mod partitions;
mod pause;
mod poison;
mod progress;
mod publish;
mod rates;
mod reap;
mod replay;
mod results;
mod retention;
mod retry;
mod retry_batches;
mod rights;
mod scheduled;
mod schedules;
mod search;
mod sentinel;
mod server;
mod services;
mod shared_reading;
mod shares;
mod shutdown;
mod tls;
mod tokens;
mod trace;
mod trends;
mod unique;
mod upkeep;
mod weights;
mod whole_stream;
mod whole_watch;
mod workers;

#[path = "../scrape/mod.rs"]
mod scrape;
