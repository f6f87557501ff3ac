//! The framework on streams in memory, most of it under a paused clock: hours pass in no time.

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

mod attempts;
mod batches;
mod blocked;
mod cancel;
mod conformance;
mod destroyed;
mod errors;
mod event;
mod events;
mod expires;
mod failing;
mod fair;
mod finished;
mod growth;
mod handler_schedules;
mod handlers;
mod health;
mod idle;
mod kit;
mod late_acks;
mod limits;
mod limits_search;
mod log;
mod loops;
mod lost_keys;
mod middleware;
mod observers;
mod on_publish;
mod once;
mod progress;
mod rates;
mod recovery;
mod released;
mod removed;
mod results;
mod scans;
mod scheduled;
mod schedules;
mod services;
mod settings;
mod shutdown;
mod trends;
mod unhandled;
mod unique;
mod weights;
