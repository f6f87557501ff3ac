//! The names of all metrics of this crate, and the functions that record them.

use std::time::Duration;

use metrics::{counter, gauge};
use streamjobs::{GroupName, StreamName};

/// A duplicate was skipped, although its payload differs from the payload of the job that was done.
pub(crate) fn payload_mismatch(stream: &StreamName, group: &GroupName) {
    let labels = [("stream", stream.to_string()), ("group", group.to_string())];
    counter!(PAYLOAD_MISMATCH, &labels).increment(1);
}

/// The reply to the commit of a guarded job did not come in time.
pub(crate) fn commit_unconfirmed(stream: &StreamName, group: &GroupName) {
    let labels = [("stream", stream.to_string()), ("group", group.to_string())];
    counter!(COMMITS_UNCONFIRMED, &labels).increment(1);
}

/// A round of a service failed because of the database.
pub(crate) fn database_error(service: &'static str) {
    counter!(ERRORS, "service" => service).increment(1);
}

/// Dead letters were stored in the archive.
pub(crate) fn archived(stream: &StreamName, group: &GroupName, reason: String, letters: u64) {
    let labels = [("stream", stream.to_string()), ("group", group.to_string()), ("reason", reason)];
    counter!(ARCHIVED, &labels).increment(letters);
}

/// The database refused a dead letter.
pub(crate) fn archive_refused(stream: &StreamName, group: &GroupName) {
    let labels = [("stream", stream.to_string()), ("group", group.to_string())];
    counter!(ARCHIVE_REFUSED, &labels).increment(1);
}

/// Events from the outbox were stored in their stream.
pub(crate) fn outbox_relayed(stream: &StreamName, events: u64) {
    counter!(OUTBOX_RELAYED, "stream" => stream.to_string()).increment(events);
}

/// A stream refused some of its events.
pub(crate) fn outbox_failed(stream: &StreamName) {
    counter!(OUTBOX_FAILED, "stream" => stream.to_string()).increment(1);
}

/// A row of the outbox cannot be published.
pub(crate) fn outbox_refused() {
    counter!(OUTBOX_REFUSED).increment(1);
}

/// The number of events waiting in the outbox, and the age of the oldest.
pub(crate) fn outbox_backlog(events: u64, age: Duration) {
    gauge!(OUTBOX_EVENTS).set(events as f64);
    gauge!(OUTBOX_AGE).set(age.as_secs_f64());
}

/// How many batches should have completed by now, at the last sweep of this process.
pub(crate) fn unfinished_batches(batches: u64) {
    gauge!(BATCHES_UNFINISHED).set(batches as f64);
}

/// Old rows of a table were deleted.
pub(crate) fn pruned(table: &'static str, rows: u64) {
    counter!(PRUNED, "table" => table).increment(rows);
}

const ARCHIVED: &str = "streamjobs_postgres_archived_total";
const ARCHIVE_REFUSED: &str = "streamjobs_postgres_archive_refused_total";
const BATCHES_UNFINISHED: &str = "streamjobs_postgres_batches_unfinished";
const COMMITS_UNCONFIRMED: &str = "streamjobs_postgres_commits_unconfirmed_total";
const ERRORS: &str = "streamjobs_postgres_errors_total";
const OUTBOX_AGE: &str = "streamjobs_postgres_outbox_age_seconds";
const OUTBOX_EVENTS: &str = "streamjobs_postgres_outbox_events";
const OUTBOX_FAILED: &str = "streamjobs_postgres_outbox_failed_total";
const OUTBOX_REFUSED: &str = "streamjobs_postgres_outbox_refused_total";
const OUTBOX_RELAYED: &str = "streamjobs_postgres_outbox_relayed_total";
const PRUNED: &str = "streamjobs_postgres_pruned_total";
const PAYLOAD_MISMATCH: &str = "streamjobs_postgres_payload_mismatch_total";
