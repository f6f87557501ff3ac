//! The dashboard over HTTP, in an application, on a real server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "tests report problems by failing"
)]

mod access;
mod accessible;
mod actions;
mod archive;
mod bounded;
mod browser;
mod dead_all;
mod driver;
mod event;
mod find;
mod fleet;
mod live;
mod markup;
mod pages;
mod partitions;
mod partly;
mod proxied;
mod screens;
mod security;
mod session;
mod site;
mod trends;
