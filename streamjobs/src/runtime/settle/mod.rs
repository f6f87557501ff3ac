//! Settling: verdicts are carried out on the server.

pub(crate) mod ack_flusher;
pub(crate) mod settler;
