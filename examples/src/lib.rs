//! A Redis and a Postgres for the examples.

use sqlx::Executor as _;
use streamjobs_tests::postgres::{Database, PgServer};
use streamjobs_tests::server::{DemoServer, ServerError};

/// The server of `REDIS_URL`, or a private one that stops with this program.
///
/// # Errors
///
/// When no server can be found, installed or started. The message says what to do.
pub fn redis() -> Result<DemoServer, ServerError> {
    DemoServer::start(None)
}

/// A database on a private server that stops with this program.
///
/// # Errors
///
/// When no server can be found, fetched or started. The message says what to do.
///
/// # Cancel safety
///
/// Dropping the future stops the server.
pub async fn postgres() -> Result<Database, ServerError> {
    let server = PgServer::start()?;
    Ok(server.database().await)
}

/// A database with the tables of streamjobs and a table `charges`, as a deployment makes them with the
/// role that may change the schema.
///
/// # Errors
///
/// As [`postgres`], or when the schema cannot be made.
///
/// # Cancel safety
///
/// Dropping the future stops the server.
pub async fn shop_database() -> Result<Database, Box<dyn std::error::Error>> {
    let database = postgres().await?;
    let owner = database.owner_pool();
    streamjobs_postgres::migrate(&owner).await?;
    owner.execute("CREATE TABLE charges (order_id text NOT NULL, cents bigint NOT NULL)").await?;
    database.grant("streamjobs").await;
    Ok(database)
}
