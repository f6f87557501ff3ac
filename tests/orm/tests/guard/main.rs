//! The guard in transactions of SeaORM and of diesel-async, on a real Postgres and a real Redis.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "tests report errors by failing"
)]

mod app;
mod once;
mod with_diesel;
mod with_sea_orm;
