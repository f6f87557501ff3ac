//! Publishing: encoded events, and the client that appends them.

pub(crate) mod client;
pub(crate) mod encoded;
