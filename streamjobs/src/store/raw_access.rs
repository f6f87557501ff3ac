//! Direct access to the keys behind a store, past its steps: what tests use to act as another client.

use std::time::Duration;

use super::types::Queue;
use crate::model::entry::{EntryId, Fields};
use crate::model::name::StreamName;

/// What another client can do to the keys of a store, and read from them.
pub trait RawAccess: Send + Sync {
    /// Appends an entry.
    fn append(&self, key: &str, fields: Fields) -> EntryId;
    /// Whether a stream has an entry.
    fn has(&self, key: &str, id: EntryId) -> bool;
    /// Deletes an entry from a stream; pending lists keep it.
    fn delete(&self, key: &str, id: EntryId);
    /// Deletes a key, with its groups if it is a stream.
    fn lose_key(&self, key: &str);
    /// Destroys a group.
    fn destroy_group(&self, key: &str, group: &str);
    /// Sets the entry after which a group reads.
    fn set_cursor(&self, key: &str, group: &str, to: EntryId);
    /// Deletes a consumer, and its entries from the pending list.
    fn delete_consumer(&self, key: &str, group: &str, consumer: &str);
    /// Deletes everything.
    fn flush(&self);
    /// Makes a pending entry look idle for this long.
    fn age(&self, key: &str, group: &str, id: EntryId, idle: Duration);
    /// Adds a job without a record to the retry set, under a name, due at a time of the server's clock.
    fn schedule_retry(&self, queue: &Queue, name: &str, due: u64);
    /// Deletes the retry set, but not the records of its jobs.
    fn lose_retry_set(&self, queue: &Queue);
    /// Deletes the set of a stream's scheduled events, but not their records.
    fn lose_schedule(&self, stream: &StreamName);
    /// Deletes the record of a scheduled event, but not its place in the set.
    fn lose_scheduled_record(&self, stream: &StreamName, id: &str);
    /// Deletes the records of all scheduled events, as an eviction does, but not their set.
    fn lose_scheduled_records(&self, stream: &StreamName);
    /// Sets when a schedule is due next.
    fn place_schedule(&self, stream: &StreamName, name: &str, at: u64);
    /// Deletes the set of a stream's schedules, but not their definitions.
    fn lose_schedule_places(&self, stream: &StreamName);
    /// Deletes the definitions of a stream's schedules, but not their set.
    fn lose_schedule_specs(&self, stream: &StreamName);
    /// Writes a definition that no process can read.
    fn garble_schedule(&self, stream: &StreamName, name: &str);
    /// The pending list.
    fn pending(&self, key: &str, group: &str) -> Vec<PendingRow>;
    /// The number of entries.
    fn length(&self, key: &str) -> usize;
    /// The consumers of a group.
    fn consumers(&self, key: &str, group: &str) -> Vec<String>;
}

/// One pending entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRow {
    /// The entry.
    pub id: EntryId,
    /// Its consumer.
    pub consumer: String,
    /// How long it has been idle.
    pub idle: Duration,
    /// How often it was delivered.
    pub delivery_count: u64,
}
