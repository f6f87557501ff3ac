//! Reading the state of a stream, its groups and consumers. Nothing is changed, and every step is bounded.

use std::time::Duration;

use async_trait::async_trait;

use super::rates::RateFacts;
use super::types::{Inlet, Queue, Result, ServerTime};
use crate::model::attempts::AttemptHistory;
use crate::model::entry::{Entry, EntryAddress, EntryId};
use crate::model::limit::SetLimit;
use crate::model::name::StreamName;
use crate::model::preview::EntryPreview;
use crate::model::progress::Progress;

/// The state of a stream, as the server reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamInfo {
    /// Entries in it.
    pub length: u64,
    /// The first entry; `None` in an empty stream.
    pub first: Option<EntryId>,
    /// The last entry; `None` in an empty stream.
    pub last: Option<EntryId>,
    /// The last id that the stream gave out, even if its entry was removed.
    pub last_id: EntryId,
    /// Entries ever added.
    pub added: u64,
    /// Its memory on the server, in bytes; `None` if the server does not report it.
    pub bytes: Option<u64>,
    /// Groups on it.
    pub groups: u64,
}

/// How large a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamSizes {
    /// Entries in it.
    pub length: u64,
    /// Entries ever added.
    pub added: u64,
    /// Its memory on the server, in bytes; `None` if the server does not report it.
    pub bytes: Option<u64>,
    /// Groups on it.
    pub groups: u64,
}

/// Where a stream begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamEnds {
    /// The first entry; `None` in an empty stream.
    pub first: Option<EntryId>,
    /// The last id that the stream gave out.
    pub last_id: EntryId,
    /// Entries ever added.
    pub added: u64,
}

/// The state of a group at one moment, as the server reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupFacts {
    /// The server's clock.
    pub now: ServerTime,
    /// Whether the server's version computes the lag correctly.
    pub counts_lag_right: bool,
    /// Entries in the stream.
    pub length: u64,
    /// Where the stream begins and ends. `None` if the cursor is known to be between the first entry and the last id,
    /// because reading the ends would then cost the server two payloads and tell nothing about the group.
    pub ends: Option<StreamEnds>,
    /// The last entry that was delivered to the group.
    pub cursor: EntryId,
    /// Entries that the group has read, as the server counts them; `None` if it cannot.
    pub read: Option<u64>,
    /// The lag that the server reports. Older servers report wrong values, even negative ones.
    pub lag: Option<i64>,
    /// The first entry after the cursor.
    pub next: Option<EntryId>,
    /// Pending entries of the stream.
    pub pending: u64,
    /// Pending entries of the lane.
    pub lane_pending: u64,
    /// Entries of the lane that are not delivered yet.
    pub lane_waiting: u64,
    /// How many of the pending entries, in the stream and in the lane, are released: they belong to no
    /// process, and the next claim takes them.
    pub released: u64,
    /// How long the oldest pending entry that is not released has been idle.
    pub oldest_pending: Option<Duration>,
    /// Failed jobs that wait for their back-off.
    pub retrying: u64,
    /// Dead letters; `None` if their key has another type.
    pub dead_letters: Option<u64>,
    /// When the group was paused, by the server's clock in milliseconds.
    pub paused: Option<u64>,
    /// When its last pause ended, by the server's clock in milliseconds; `None` if it was never paused, or
    /// if an older version resumed it.
    pub resumed: Option<u64>,
    /// Entries that were trimmed before their delivery.
    pub trimmed_unread: u64,
    /// Event types that some process met without a handler within the last minute and that no live process
    /// declares: sorted by name, at most 20.
    pub unhandled: Vec<String>,
    /// Dead letters of the last hour that still exist: at most 100 are counted.
    pub new_dead_letters: u64,
    /// The rate of the group, as far as the server knows it.
    pub rate: RateFacts,
    /// The limit that an operator has set for the group.
    pub limit: Option<SetLimit>,
    /// The error of the last dead letter that was counted, or its reason; shortened.
    pub dead_letter_error: Option<String>,
    /// The last error of a job that has failed and waits for retry, shortened; `None` if none of the ten
    /// jobs that were examined has failed.
    pub retry_error: Option<String>,
    /// Jobs that wait for a place in the group's limit; `None` if the key of their lines has another type.
    pub parked: Option<u64>,
    /// The key for which most of these jobs wait, and how many of them do.
    pub longest_line: Option<(String, u64)>,
}

/// For how long a dead letter counts as new.
pub(crate) const NEW_FOR: Duration = Duration::from_secs(3600);

/// The oldest entry that a group may still run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OldestUnfinished {
    /// The entry as it was published; `None` if the group has nothing to do. Its
    /// [milliseconds](EntryId::milliseconds) are the time of publishing, by the server's clock.
    pub published: Option<EntryId>,
    /// Whether all jobs of the lane, the retries and the lines were examined. If not, there may be an older entry,
    /// because one call examines at most 10,000 jobs, or 8 MiB.
    pub complete: bool,
}

/// Entries counted up to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// How many were counted.
    pub entries: u64,
    /// Whether all were counted.
    pub complete: bool,
}

/// The state of a consumer, as the server reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerFacts {
    /// Its name.
    pub name: String,
    /// Its pending entries, in all inlets.
    pub pending: u64,
    /// How long it has been idle on the server. What counts as activity depends on the version.
    pub idle: Duration,
    /// How long nothing was delivered to it; `None` if nothing ever was, or if the server does not report
    /// it.
    pub inactive: Option<Duration>,
    /// Its last heartbeat, by the server's clock in milliseconds.
    pub beat: Option<u64>,
    /// Its description of itself, written with the heartbeat.
    pub about: Option<String>,
}

/// The consumers of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumers {
    /// The server's clock.
    pub now: ServerTime,
    /// The consumers, by name.
    pub consumers: Vec<ConsumerFacts>,
}

/// Which pending entries to read. Exhaustive: adding a field is a breaking change.
#[derive(Clone, Copy, Debug)]
pub struct PendingFilter<'a> {
    /// Entries of this inlet.
    pub inlet: Inlet,
    /// Entries after this id.
    pub after: EntryId,
    /// Entries idle for at least this long.
    pub idle: Duration,
    /// Entries of one consumer.
    pub consumer: Option<&'a str>,
    /// At most this many.
    pub limit: usize,
}

/// A pending entry, as the server reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PendingEntry {
    /// The entry.
    pub id: EntryId,
    /// Its consumer; empty for a released entry, which the next claim takes.
    pub consumer: String,
    /// How long it has been idle, or released; `None` for an entry that another client released on a newer
    /// server.
    pub idle: Option<Duration>,
    /// How often it was delivered.
    pub delivery_count: u64,
    /// The number of its partition; `None` if the stream has only one.
    pub partition: Option<u16>,
    /// How far its job is, if the running attempt has reported it with
    /// [`Job::progress`](crate::Job::progress).
    pub progress: Option<Progress>,
}

impl PendingEntry {
    /// Where the entry is, for calls that act on it.
    #[must_use]
    pub fn address(&self) -> EntryAddress {
        EntryAddress { id: self.id, partition: self.partition }
    }
}

/// A job that waits for retry. A field is `None` if its record does not contain it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryFacts {
    /// Its name in the retry set.
    pub name: String,
    /// When it is due, by the server's clock in milliseconds.
    pub due: u64,
    /// The event type.
    pub event_type: Option<String>,
    /// The event id.
    pub event_id: Option<String>,
    /// Failures recorded so far.
    pub failures: Option<u32>,
    /// The published entry.
    pub origin: Option<EntryId>,
    /// The last error.
    pub error: Option<String>,
}

/// Where a page of jobs that wait for retry begins. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetriesFrom<'a> {
    /// At the job that is due first.
    First,
    /// After a job; if it no longer waits, like [`Due`](Self::Due).
    After {
        /// Its name in the retry set.
        name: &'a str,
        /// When it was due, by the server's clock in milliseconds.
        due: u64,
    },
    /// At the first job that is due at this time or later, by the server's clock in milliseconds.
    Due(u64),
}

/// Where to find a job that carries its past attempts. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobPlace<'a> {
    /// It waits for retry, under this name.
    Retry(&'a str),
    /// It is in this entry of the lane.
    Lane(EntryId),
    /// It is this dead letter.
    Dead(EntryId),
}

/// A page of jobs that wait for retry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// The server's clock.
    pub now: ServerTime,
    /// The jobs, in the order in which they are due.
    pub jobs: Vec<RetryFacts>,
    /// Whether there may be more after them.
    pub has_more: bool,
}

/// A range of ids, both ends included. Exhaustive: adding a field is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The lowest id.
    pub from: EntryId,
    /// The highest id.
    pub to: EntryId,
}

/// Of what previews are read. This decides which fields they show. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreviewOf {
    /// Entries of a stream: all fields, and the first bytes of each value of the payload.
    Entries {
        /// How many bytes of each value of the payload to read.
        value: usize,
    },
    /// Dead letters: the fields about their end and the event type.
    Letters,
}

/// A page of previews.
#[derive(Debug)]
pub struct Previews {
    /// The entries.
    pub entries: Vec<EntryPreview>,
    /// Whether there may be more: the limit was reached, or the entries are large.
    pub has_more: bool,
}

/// A connection that follows a stream without a group.
#[async_trait]
pub trait TailReader: Send {
    /// Waits for entries after an id. If none arrives in time, the answer is empty.
    async fn read(&mut self, after: EntryId, limit: usize, block: Duration) -> Result<Vec<Entry>>;
}

/// Reads the state of streams and groups.
#[async_trait]
pub trait Inspect: Send + Sync {
    /// The state of a stream; `None` if it does not exist. It costs the server two payloads, so it is
    /// not for loops.
    async fn stream_info(&self, stream: &StreamName) -> Result<Option<StreamInfo>>;

    /// How large a stream is; `None` if it does not exist.
    async fn stream_sizes(&self, stream: &StreamName) -> Result<Option<StreamSizes>>;

    /// The groups of a stream, by name; empty if the stream does not exist.
    async fn group_names(&self, stream: &StreamName) -> Result<Vec<String>>;

    /// The state of a group.
    async fn group_facts(&self, queue: &Queue) -> Result<GroupFacts>;

    /// The oldest entry, by its time of publishing, that a group may still run: undelivered, pending,
    /// waiting for retry, or in the lane.
    async fn oldest_unfinished(&self, queue: &Queue) -> Result<OldestUnfinished>;

    /// Counts the entries after an id. It stops at the limit, and earlier if entries are large.
    async fn count_after(
        &self,
        stream: &StreamName,
        after: EntryId,
        limit: usize,
    ) -> Result<Counted>;

    /// The consumers of a group.
    async fn consumers(&self, queue: &Queue) -> Result<Consumers>;

    /// Pending entries, in order.
    async fn pending(&self, queue: &Queue, filter: PendingFilter<'_>) -> Result<Vec<PendingEntry>>;

    /// Jobs that wait for retry, in the order in which they are due: at most `limit`.
    async fn retries(&self, queue: &Queue, from: RetriesFrom<'_>, limit: usize) -> Result<Retries>;

    /// The past attempts that a job carries; empty if the job is not there.
    async fn past_attempts(&self, queue: &Queue, of: JobPlace<'_>) -> Result<AttemptHistory>;

    /// Whether a job with this name waits for retry.
    async fn has_retry(&self, queue: &Queue, name: &str) -> Result<bool>;

    /// Entries of a stream, oldest or newest first.
    async fn range(
        &self,
        stream: &StreamName,
        span: Span,
        newest_first: bool,
        limit: usize,
    ) -> Result<Vec<Entry>>;

    /// The beginnings of entries, oldest or newest first. A page of large entries ends early.
    async fn previews(
        &self,
        stream: &StreamName,
        span: Span,
        newest_first: bool,
        limit: usize,
        of: PreviewOf,
    ) -> Result<Previews>;

    /// Opens a connection that follows a stream.
    async fn tail(&self, stream: &StreamName) -> Result<Box<dyn TailReader>>;
}
