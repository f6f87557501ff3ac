//! The names of every metric of this crate, and how they are raised.

use metrics::counter;
use streamjobs::{GroupName, StreamName};

/// An event was skipped as done whose payload is another one than that which was done.
pub(crate) fn payload_mismatch(stream: &StreamName, group: &GroupName) {
    let labels = [("stream", stream.to_string()), ("group", group.to_string())];
    counter!(PAYLOAD_MISMATCH, &labels).increment(1);
}

/// The database cut a round of a service short.
pub(crate) fn database_error(service: &'static str) {
    counter!(ERRORS, "service" => service).increment(1);
}

/// Dead letters became rows.
pub(crate) fn archived(stream: &StreamName, group: &GroupName, reason: String, letters: u64) {
    let labels = [("stream", stream.to_string()), ("group", group.to_string()), ("reason", reason)];
    counter!(ARCHIVED, &labels).increment(letters);
}

/// The database does not take a dead letter.
pub(crate) fn archive_refused(stream: &StreamName, group: &GroupName) {
    let labels = [("stream", stream.to_string()), ("group", group.to_string())];
    counter!(ARCHIVE_REFUSED, &labels).increment(1);
}

const ARCHIVED: &str = "streamjobs_postgres_archived_total";
const ARCHIVE_REFUSED: &str = "streamjobs_postgres_archive_refused_total";
const ERRORS: &str = "streamjobs_postgres_errors_total";
const PAYLOAD_MISMATCH: &str = "streamjobs_postgres_payload_mismatch_total";
