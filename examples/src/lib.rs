//! A Redis and a Postgres for the examples.

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
