//! Publishing: events in the form of their entries, and the client that appends them.

pub(crate) mod client;
pub(crate) mod encoded;
