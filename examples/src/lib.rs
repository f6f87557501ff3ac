//! What the examples share: a Redis and a Postgres to run on.

use streamjobs_tests::postgres::{Database, PgServer};
use streamjobs_tests::server::{DemoServer, ServerError};

/// The server of `REDIS_URL`, or a private one that ends with this program.
///
/// # Errors
///
/// When no server can be found, installed or started; the text says what to do.
pub fn redis() -> Result<DemoServer, ServerError> {
    DemoServer::start(None)
}

/// A database on a private server that ends with this program.
///
/// # Errors
///
/// When no server can be found, fetched or started; the text says what to do.
///
/// # Cancel safety
///
/// When it is dropped, so is the server.
pub async fn postgres() -> Result<Database, ServerError> {
    let server = PgServer::start()?;
    Ok(server.database().await)
}
