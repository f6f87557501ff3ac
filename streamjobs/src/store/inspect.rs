//! What can be seen of a stream, its groups and their consumers. Nothing here changes anything, and
//! no call is longer than its limit says.

use std::time::Duration;

use crate::model::entry::{Entry, EntryId, Inlet};
use crate::model::name::StreamName;
use crate::store::{Queue, Reply, ServerTime};

/// A stream as its server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamInfo {
    /// Entries in it.
    pub length: u64,
    /// The first entry; none in an empty stream.
    pub first: Option<EntryId>,
    /// The last entry; none in an empty stream.
    pub last: Option<EntryId>,
    /// The last id that was given, whether its entry is still there or not.
    pub last_id: EntryId,
    /// Entries ever added.
    pub added: u64,
    /// The server's memory for it, in bytes; none where the server does not say.
    pub bytes: Option<u64>,
    /// Groups on it.
    pub groups: u64,
}

/// A group as its server sees it, all in one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupFacts {
    /// The server's clock.
    pub now: ServerTime,
    /// Whether the server's version counts the lag right.
    pub counts_lag_right: bool,
    /// Entries in the stream.
    pub length: u64,
    /// The first entry of the stream; none if it is empty.
    pub first: Option<EntryId>,
    /// The last id that the stream has given.
    pub last_id: EntryId,
    /// Entries ever added to the stream.
    pub added: u64,
    /// The last entry that was delivered to the group.
    pub cursor: EntryId,
    /// Entries that the group has read, as the server counts them; none where it cannot.
    pub read: Option<u64>,
    /// The lag that the server names; older servers name wrong ones, negative ones included.
    pub lag: Option<i64>,
    /// The first entry behind the cursor.
    pub next: Option<EntryId>,
    /// Entries of the stream that are delivered and not acknowledged.
    pub pending: u64,
    /// The same of the lane.
    pub lane_pending: u64,
    /// Entries of the lane that are not delivered yet.
    pub lane_waiting: u64,
    /// How long nothing has been heard of the oldest pending entry.
    pub oldest_pending: Option<Duration>,
    /// Failed jobs waiting for their back-off.
    pub retrying: u64,
    /// Dead letters; none where their key holds something else.
    pub dead_letters: Option<u64>,
    /// When the group was paused, by the server's clock in milliseconds.
    pub paused: Option<u64>,
    /// Entries that were counted as trimmed before they were delivered.
    pub trimmed_unread: u64,
}

/// The oldest entry that a group may still run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OldestUnfinished {
    /// The entry as which it was published; none if the group has nothing to do. Its
    /// [milliseconds](EntryId::milliseconds) are the time of that, by the server's clock.
    pub published: Option<EntryId>,
    /// Whether all jobs that were tried before were looked at. If not, there may be an older one:
    /// one look takes at most 10,000 of them, or 8 MiB.
    pub complete: bool,
}

/// Entries counted up to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// How many there are, or how many were counted.
    pub entries: u64,
    /// Whether that is all of them.
    pub complete: bool,
}

/// A consumer as its server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerFacts {
    /// Its name.
    pub name: String,
    /// Entries that are pending for it, in the stream and in the lane.
    pub pending: u64,
    /// Since when the server has not heard of it. What counts as hearing depends on the version.
    pub idle: Duration,
    /// Since when nothing was delivered to it; none where the server does not say, or never.
    pub inactive: Option<Duration>,
    /// Its own last sign of life, by the server's clock in milliseconds.
    pub beat: Option<u64>,
    /// What it says about itself.
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

/// Which pending entries to look at. Closed on purpose.
#[derive(Clone, Copy, Debug)]
pub struct PendingLook<'a> {
    /// In the stream, or in the lane.
    pub inlet: Inlet,
    /// Those after this id.
    pub after: EntryId,
    /// Those that have been idle for at least this long.
    pub idle: Duration,
    /// Those of one consumer.
    pub consumer: Option<&'a str>,
    /// At most so many.
    pub limit: usize,
}

/// A pending entry as its server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PendingEntry {
    /// The entry.
    pub id: EntryId,
    /// Whose it is; empty for an entry that newer servers released.
    pub consumer: String,
    /// How long nothing has been heard of it; none for an entry that newer servers released.
    pub idle: Option<Duration>,
    /// How often it was delivered.
    pub delivery_count: u64,
}

/// A job that is set aside, as its server sees it; what its record does not say is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryFacts {
    /// Its name among those that are set aside.
    pub name: String,
    /// When it is due, by the server's clock in milliseconds.
    pub due: u64,
    /// The event type.
    pub event_type: Option<String>,
    /// The identity of the event.
    pub event_id: Option<String>,
    /// Failures recorded so far.
    pub failures: Option<u32>,
    /// The entry that was published.
    pub origin: Option<EntryId>,
    /// The last error.
    pub error: Option<String>,
}

/// Some jobs that are set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// The server's clock.
    pub now: ServerTime,
    /// The jobs, in the order in which they are due.
    pub jobs: Vec<RetryFacts>,
    /// Whether there may be more behind them.
    pub more: bool,
}

/// A part of a stream, both ends included. Closed on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The lowest id.
    pub from: EntryId,
    /// The highest id.
    pub to: EntryId,
}

/// A connection that follows a stream and belongs to no group.
pub trait TailReader: Send {
    /// Waits for entries after an id. None in time is an empty answer, not an error.
    fn read(&mut self, after: EntryId, limit: usize, block: Duration) -> Reply<'_, Vec<Entry>>;
}

/// What can be seen.
pub trait Inspect: Send + Sync {
    /// A stream; none if there is none.
    fn stream_info<'a>(&'a self, stream: &'a StreamName) -> Reply<'a, Option<StreamInfo>>;

    /// The groups on a stream, by name; none if there is no stream.
    fn group_names<'a>(&'a self, stream: &'a StreamName) -> Reply<'a, Vec<String>>;

    /// A group.
    fn group_facts<'a>(&'a self, queue: &'a Queue) -> Reply<'a, GroupFacts>;

    /// The oldest entry, by when it was published, that a group may still run: not delivered yet,
    /// pending, set aside, or in its lane.
    fn oldest_unfinished<'a>(&'a self, queue: &'a Queue) -> Reply<'a, OldestUnfinished>;

    /// Counts the entries after an id. It ends at the limit, and earlier where entries are large.
    fn count_after<'a>(
        &'a self,
        stream: &'a StreamName,
        after: EntryId,
        limit: usize,
    ) -> Reply<'a, Counted>;

    /// The consumers of a group.
    fn consumers<'a>(&'a self, queue: &'a Queue) -> Reply<'a, Consumers>;

    /// Pending entries, in order.
    fn pending<'a>(
        &'a self,
        queue: &'a Queue,
        look: PendingLook<'a>,
    ) -> Reply<'a, Vec<PendingEntry>>;

    /// Jobs that are set aside, after one of them or from the first on: at most so many.
    fn retries<'a>(
        &'a self,
        queue: &'a Queue,
        after: Option<&'a str>,
        limit: usize,
    ) -> Reply<'a, Retries>;

    /// Entries of a stream, oldest or newest first.
    fn range<'a>(
        &'a self,
        stream: &'a StreamName,
        span: Span,
        newest_first: bool,
        limit: usize,
    ) -> Reply<'a, Vec<Entry>>;

    /// Opens a connection that follows a stream.
    fn tail<'a>(&'a self, stream: &'a StreamName) -> Reply<'a, Box<dyn TailReader>>;
}
