//! Publishing: encoded events, and the client that appends them.

pub(crate) mod client;
#[cfg(feature = "tls")]
mod connection;
pub(crate) mod encoded;
