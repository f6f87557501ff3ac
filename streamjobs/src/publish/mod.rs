//! Publishing: encoded events, and the client that appends them.

pub(crate) mod client;
mod connection;
pub(crate) mod debounce;
pub(crate) mod encoded;
pub(crate) mod hook;
pub(crate) mod later;
pub(crate) mod layouts;
mod on_publish;
mod sending;
pub(crate) mod unique;
