//! Attempts: from a delivery with a slot to the verdict on its job.

pub(crate) mod dispatcher;
pub(crate) mod executor;
pub(crate) mod handlers;
