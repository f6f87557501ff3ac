//! The names of every metric of this crate, and how they are raised.

use metrics::counter;
use streamjobs::{GroupName, StreamName};

/// An event was skipped as done whose payload is another one than that which was done.
pub(crate) fn payload_mismatch(stream: &StreamName, group: &GroupName) {
    let labels = [("stream", stream.to_string()), ("group", group.to_string())];
    counter!(PAYLOAD_MISMATCH, &labels).increment(1);
}

const PAYLOAD_MISMATCH: &str = "streamjobs_postgres_payload_mismatch_total";
