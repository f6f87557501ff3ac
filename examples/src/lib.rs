//! What the examples share: a Redis to run on.

use streamjobs_tests::server::{DemoServer, ServerError};

/// The server of `REDIS_URL`, or a private one that ends with this program.
///
/// # Errors
///
/// When no server can be found, installed or started; the text says what to do.
pub fn redis() -> Result<DemoServer, ServerError> {
    DemoServer::start(None)
}
