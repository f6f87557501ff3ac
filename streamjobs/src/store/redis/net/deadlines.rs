//! How long connecting and answers may take.

use std::time::Duration;

/// How long opening a connection may take: resolving, connecting, TLS, login and the first
/// requests.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long the answer may take to a command that does not wait for anything.
pub(crate) const RESPONSE_DEADLINE: Duration = Duration::from_secs(3);
