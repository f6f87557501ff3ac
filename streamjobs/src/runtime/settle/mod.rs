//! Settling: verdicts are carried out on the server.

pub(crate) mod settler;
