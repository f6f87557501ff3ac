//! The command line on a private server, with text and with JSON output.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "tests report problems by failing"
)]

mod about;
mod access;
#[cfg(feature = "postgres")]
mod archive;
mod cancel;
mod dead;
mod doctor;
mod entries;
mod event;
mod everywhere;
mod group;
mod history;
mod inspect;
mod limit;
mod orders;
mod partitions;
mod program;
mod rate;
mod retries;
mod schedule;
mod scheduled;
mod tls;
mod trim;
mod unique;
mod watch;
