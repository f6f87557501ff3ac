//! How long connecting and answers may take.

use std::time::Duration;

/// For opening a connection: resolving, connecting, TLS, login and the first requests.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// For a command that does not wait for anything.
pub(crate) const RESPONSE_DEADLINE: Duration = Duration::from_secs(3);
