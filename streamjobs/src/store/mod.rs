//! What is asked of a stream, in the words of this crate.
//!
//! Two stores answer: `redis` for a server, `memory` for tests under a virtual clock. One
//! conformance suite holds both to what is written here. A store never decides; it carries out,
//! and every step that changes the state of a held entry checks the owner and the delivery count.

pub mod facts;
pub mod inspect;
pub mod letters;
pub mod marks;
pub mod operate;
pub mod redis;
pub mod script;

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
#[cfg(any(test, feature = "testing"))]
pub mod memory;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use thiserror::Error;

use crate::model::cause::BoxError;
use crate::model::config::{Retention, Start};
pub use crate::model::entry::{Delivery, Hold, Inlet};
use crate::model::entry::{Entry, EntryId, Fields};
use crate::model::name::{ConsumerName, GroupName, StreamName};

/// What a store's method returns.
pub type Reply<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// One group on one stream, with the keys that belong to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Queue {
    /// The stream.
    pub stream: StreamName,
    /// The group.
    pub group: GroupName,
}

impl Queue {
    /// The key that entries of this inlet stand in.
    #[must_use]
    pub fn key(&self, inlet: Inlet) -> String {
        if inlet.is_lane() {
            self.stream.lane_key(&self.group)
        } else {
            self.stream.as_str().to_owned()
        }
    }
}

/// What an owner-checked step found. Closed on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceResult {
    /// Still held; the step was carried out.
    Owned,
    /// Another attempt holds the entry; nothing was changed.
    TakenOver,
    /// Nobody holds the entry: it was acknowledged. Nothing was changed.
    NotPending,
    /// Held, but its payload is gone from the stream. A dead letter with this id says so, and the
    /// entry is no longer pending.
    Trimmed(EntryId),
}

/// A new entry.
pub type NewEntry = Fields;

/// What one round of a reader asks for.
#[derive(Debug)]
pub struct ReadRequest<'a> {
    /// Entries to acknowledge in front of the read, in the same round trip.
    pub acks: &'a [(Inlet, EntryId)],
    /// Which stream to read.
    pub inlet: Inlet,
    /// How many entries at most; zero reads nothing and does not wait.
    pub count: usize,
    /// How long to wait for the first entry; none means not at all.
    pub block: Option<Duration>,
}

/// What one round of a reader gave. The acknowledgements can succeed where the read fails.
#[derive(Debug)]
pub struct ReadReply {
    /// How many of the acknowledged entries were still pending.
    pub acknowledged: Result<usize, StoreError>,
    /// What was delivered.
    pub deliveries: Result<Vec<Delivery>, StoreError>,
}

/// A connection of its own for reads that may wait. Not cancel safe: a read has to be awaited.
pub trait StreamReader: Send {
    /// Acknowledges, then reads. An outer error means that the connection is of no more use and
    /// that entries may have been delivered to nobody.
    fn read<'a>(&'a mut self, request: ReadRequest<'a>) -> Reply<'a, ReadReply>;

    /// By what [`Store::wake`] knows this reader.
    fn waker(&self) -> u64;
}

/// What became of an entry that was to be appended.
pub type Appended = Result<EntryId, StoreError>;

/// Appends entries to one stream in their order, the next ones while earlier ones are on their way.
///
/// Once a connection broke, nothing more is sent: a later entry must not be stored where an earlier
/// one is lost. Dropping it leaves open which entries are stored.
pub trait Appender: Send {
    /// Sends entries: returns when they are on their way.
    fn push(&mut self, entries: Vec<NewEntry>) -> BoxFuture<'_, ()>;

    /// Waits for what is on its way: one answer for each entry, in order.
    fn finish(self: Box<Self>) -> BoxFuture<'static, Vec<Appended>>;
}

/// Asks for idle entries of other consumers, and of this one's lost replies.
#[derive(Clone, Copy, Debug)]
pub struct IdleClaim<'a> {
    /// Which stream to sweep.
    pub inlet: Inlet,
    /// Entries idle for at least this long may be claimed.
    pub lease: Duration,
    /// Where the last sweep ended; zero starts over.
    pub cursor: EntryId,
    /// How many entries at most are claimed.
    pub limit: usize,
    /// What the server's clock is expected to show, and by how much it may be off.
    pub expected: Option<(ServerTime, Duration)>,
    /// Entries that are not claimed, however idle they are.
    pub skip: &'a [EntryId],
}

/// What a look for idle entries found. Closed on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// At least one.
    Found,
    /// None.
    NotFound {
        /// When that was seen: zero by this look, else by that of another process.
        ago: Duration,
    },
}

/// What a sweep found. Closed on purpose.
#[derive(Debug)]
pub enum ClaimedPage {
    /// The page was swept.
    Page {
        /// Where to go on; zero at the end of the pending list.
        cursor: EntryId,
        /// Entries that are this consumer's now, with the raised delivery count.
        claimed: Vec<Delivery>,
        /// Entries whose payload was gone, each stored as a dead letter in the same step.
        trimmed: usize,
        /// Idle entries whose payload is gone and that were left pending, because no dead letter
        /// can be stored.
        left: usize,
    },
    /// The server's clock is not where it was expected; nothing was claimed.
    ClockOff {
        /// The server's clock.
        now: ServerTime,
    },
}

/// The server's clock in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerTime(pub u64);

/// What a renewal found.
#[derive(Debug)]
pub struct Renewed {
    /// The server's clock.
    pub now: ServerTime,
    /// An answer for each hold, in order.
    pub answers: Vec<FenceResult>,
}

/// What a look at the retry set found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promoted {
    /// Jobs moved to the lane because they were due.
    pub promoted: usize,
    /// Entries of the lane that were delivered to nobody yet.
    pub waiting: usize,
    /// Entries that are pending for anybody, on the stream and in the lane.
    pub pending: usize,
    /// How long until the next job is due.
    pub next_due: Option<Duration>,
    /// How many times entries were handed back in this queue; a change means there is work to
    /// claim.
    pub released: u64,
    /// Due jobs whose record is gone and that were left where they are, because no dead letter can
    /// be stored.
    pub left: usize,
    /// Whether the group is paused in every process. Nothing is promoted then, and nothing is due.
    pub paused: bool,
    /// The server's clock.
    pub now: ServerTime,
}

/// What a beat recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The id after which everything may still have to be done.
    pub floor: EntryId,
    /// Entries that were trimmed before they were delivered, each told once to one consumer.
    pub trimmed_unread: u64,
}

/// A dead letter as it is stored.
pub type StoredDeadLetter = Entry;

/// The streams of a server, or of a test.
pub trait Store:
    facts::Facts
    + inspect::Inspect
    + letters::Letters
    + marks::MarkStore
    + operate::Operate
    + fmt::Debug
{
    /// A store on the same data with connections of its own, for use on another thread.
    fn fork(&self) -> Arc<dyn Store>;

    /// The server's clock.
    fn now(&self) -> Reply<'_, ServerTime>;

    /// Appends to a stream, applying the retention that belongs to appending.
    fn appender(&self, stream: &StreamName, retention: Retention) -> Box<dyn Appender>;

    /// Appends one entry by itself.
    fn append_one<'a>(
        &'a self,
        stream: &'a StreamName,
        retention: Retention,
        entry: NewEntry,
    ) -> BoxFuture<'a, Appended> {
        let mut appender = self.appender(stream, retention);
        Box::pin(async move {
            appender.push(vec![entry]).await;
            let answer = appender.finish().await.into_iter().next();
            answer.unwrap_or(Err(StoreError::Protocol { command: "XADD" }))
        })
    }

    /// Makes the group on both streams of the queue unless it is there, at `start` the first time
    /// and at its durable floor later. True if the group on the stream was made.
    fn prepare<'a>(&'a self, queue: &'a Queue, start: Start) -> Reply<'a, bool>;

    /// Makes a group that was lost again, at its durable floor, or at the beginning when that is
    /// lost as well. True if it was made on either stream.
    fn recreate<'a>(&'a self, queue: &'a Queue) -> Reply<'a, bool>;

    /// Opens a connection for one reader. Reads fail when the server is silent for longer than
    /// the block time and `margin`.
    fn reader<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        margin: Duration,
    ) -> Reply<'a, Box<dyn StreamReader>>;

    /// Ends the wait of a blocked reader. Nothing happens to one that is not blocked.
    fn wake(&self, reader: u64) -> Reply<'_, ()>;

    /// Acknowledges, whoever owns the entries: the number that was still pending.
    fn acknowledge<'a>(
        &'a self,
        queue: &'a Queue,
        acks: &'a [(Inlet, EntryId)],
    ) -> Reply<'a, usize>;

    /// Renews what is held: idle time zero, delivery count as it is.
    fn renew<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        holds: &'a [Hold],
    ) -> Reply<'a, Renewed>;

    /// Hands entries back: claimable at once, as if this delivery had never been.
    fn release<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        lease: Duration,
        holds: &'a [Hold],
    ) -> Reply<'a, Vec<FenceResult>>;

    /// Sets a failed job aside until its delay is over: stored first, acknowledged second. A dead
    /// letter that says that the entry's payload was gone is replaced by the job, if it is there.
    fn schedule_retry<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        hold: Hold,
        trimmed: Option<EntryId>,
        delay: Duration,
        job: &'a Fields,
    ) -> Reply<'a, FenceResult>;

    /// Stores a dead letter first and acknowledges second. It replaces one that says that the
    /// entry's payload was gone, if that is there.
    fn store_dead_letter<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        hold: Hold,
        trimmed: Option<EntryId>,
        letter: &'a Fields,
    ) -> Reply<'a, FenceResult>;

    /// Whether some entry has been idle for at least the lease: a look that touches none. The look of
    /// any process that found none for such a lease counts as this one for so long.
    fn has_idle<'a>(
        &'a self,
        queue: &'a Queue,
        inlet: Inlet,
        lease: Duration,
        valid: Duration,
    ) -> Reply<'a, Idle>;

    /// Claims entries that were idle for too long, counted.
    fn claim_idle<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        sweep: IdleClaim<'a>,
    ) -> Reply<'a, ClaimedPage>;

    /// The entries that are pending for this consumer, after `cursor`, at most `limit`.
    fn own_pending<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        inlet: Inlet,
        cursor: EntryId,
        limit: usize,
    ) -> Reply<'a, Vec<Hold>>;

    /// Delivers entries again whose delivery never arrived, uncounted, as far as they are still
    /// held. Entries without a payload are stored as dead letters.
    fn recover<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        holds: &'a [Hold],
    ) -> Reply<'a, Vec<Delivery>>;

    /// Moves due jobs to the lane, at most `limit`, and looks at what waits. Makes the lane's group
    /// if it was lost. While the group is paused, it only looks.
    fn promote<'a>(&'a self, queue: &'a Queue, limit: usize) -> Reply<'a, Promoted>;

    /// Pauses the group in every process, or resumes it: whether that changed anything. It takes
    /// effect with the next [`promote`](Self::promote) of each, and holds until it is taken back.
    fn set_paused<'a>(&'a self, queue: &'a Queue, paused: bool) -> Reply<'a, bool>;

    /// Records that the consumer lives, with what it says about itself, and how far the group is
    /// done for certain on the stream. Finds what was trimmed before it was delivered.
    fn heartbeat<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        about: &'a str,
    ) -> Reply<'a, Recorded>;

    /// Removes a consumer of the queue, in one step, unless something is pending for it. False only
    /// if something is.
    fn retire<'a>(&'a self, queue: &'a Queue, consumer: &'a ConsumerName) -> Reply<'a, bool>;

    /// Removes consumers that have not beaten for `silence` and have nothing pending. One that
    /// never beat is given a beat, and so a whole silence.
    fn retire_dead<'a>(&'a self, queue: &'a Queue, silence: Duration) -> Reply<'a, usize>;

    /// Dead letters with ids after `after`, in order, at most `limit`.
    fn dead_letters<'a>(
        &'a self,
        queue: &'a Queue,
        after: EntryId,
        limit: usize,
    ) -> Reply<'a, Vec<StoredDeadLetter>>;

    /// One dead letter.
    fn dead_letter<'a>(
        &'a self,
        queue: &'a Queue,
        id: EntryId,
    ) -> Reply<'a, Option<StoredDeadLetter>>;

    /// Puts a dead letter's job into the lane and removes the letter, in one step; none if it is
    /// gone.
    fn redrive<'a>(
        &'a self,
        queue: &'a Queue,
        id: EntryId,
        job: &'a Fields,
    ) -> Reply<'a, Option<EntryId>>;

    /// Removes dead letters: how many were there.
    fn purge<'a>(&'a self, queue: &'a Queue, ids: &'a [EntryId]) -> Reply<'a, usize>;
}

/// Why a store did not do what it was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The stream or its group is not there.
    #[error("the stream or its group does not exist")]
    GroupMissing,
    /// The server answered, and refused: nothing was changed. Its code and its text.
    #[error("the server refused: {code} {text}")]
    Refused {
        /// The first word of the answer, such as `OOM` or `WRONGTYPE`.
        code: String,
        /// The rest of the answer, cut and escaped.
        text: String,
    },
    /// The server could not be asked: nothing was changed.
    #[error("no connection to the server")]
    Unreachable(#[source] BoxError),
    /// The server was asked, and the answer was lost: it may have been done.
    #[error("the server's answer was lost")]
    AnswerLost(#[source] BoxError),
    /// The server answered something that cannot be understood.
    #[error("unexpected answer to {command}")]
    Protocol {
        /// The command or script.
        command: &'static str,
    },
}

impl StoreError {
    /// Whether the step may have been carried out all the same.
    #[must_use]
    pub fn is_unconfirmed(&self) -> bool {
        matches!(self, Self::AnswerLost(_) | Self::Protocol { .. })
    }

    /// Whether the server was asked, and said nothing within the deadline.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::AnswerLost(cause) if cause.is::<tokio::time::error::Elapsed>())
    }

    /// What went wrong, in one of a few words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::GroupMissing => "group_missing",
            Self::Refused { .. } => "refused",
            Self::Unreachable(_) => "unreachable",
            Self::AnswerLost(_) => "answer_lost",
            Self::Protocol { .. } => "protocol",
        }
    }
}
