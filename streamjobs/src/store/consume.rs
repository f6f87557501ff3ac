//! What a consumer does with entries: reading, acknowledging, renewing, releasing, retrying, claiming.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::types::{
    Delivery, FenceResult, Hold, Inlet, Queue, Result, ServerTime, StandIn, StoreError,
};
use crate::model::entry::{EntryId, Fields};
use crate::model::name::ConsumerName;

/// One read of a [`StreamReader`].
#[derive(Debug)]
pub struct ReadRequest<'a> {
    /// Entries to acknowledge in front of the read, in the same round trip.
    pub acks: &'a [(Inlet, EntryId)],
    /// Which inlet to read.
    pub inlet: Inlet,
    /// How many entries at most; zero reads nothing and does not wait.
    pub count: usize,
    /// How long to wait for the first entry; `None` does not wait.
    pub block: Option<Duration>,
}

/// The answer to a [`ReadRequest`]. The acknowledgements can succeed when the read fails.
#[derive(Debug)]
pub struct ReadReply {
    /// How many of the acknowledged entries were pending.
    pub acknowledged: Result<usize>,
    /// What was delivered.
    pub deliveries: Result<Vec<Delivery>>,
}

/// Reads one queue for one consumer, and may wait for entries. Several readers can share a connection.
#[async_trait]
pub trait StreamReader: Send {
    /// Acknowledges, then reads. Not cancel safe: always await it to its end.
    ///
    /// An outer error means that the reader cannot be used any more, and that entries may have been
    /// delivered without reaching the caller.
    async fn read(&mut self, request: ReadRequest<'_>) -> Result<ReadReply>;

    /// Waits in this process until a read of the stream may find entries. Returns whether it may. Only for
    /// a reader that was opened with [`ReaderSetup::waits_here`], whose reads never wait on the server.
    ///
    /// Cancel safe.
    async fn ready(&mut self, wait: Duration) -> Result<bool>;

    /// Lets [`ready`](Self::ready) wait for entries that arrive from now on. A caller that reads by itself,
    /// with [`Holds::take`](super::Holds::take), calls this when nothing is left, and then takes once more.
    async fn watch(&mut self) -> Result<()>;

    /// Identifies this reader for [`Consume::wake`].
    fn waker(&self) -> u64;
}

/// How a reader is opened.
#[derive(Clone, Copy, Debug)]
pub struct ReaderSetup {
    /// A read fails if the server does not answer within the block time plus this.
    pub margin: Duration,
    /// Whether the reader waits for entries in this process, with [`StreamReader::ready`], and not in a
    /// read.
    pub waits_here: bool,
}

#[cfg(feature = "testing")]
impl ReaderSetup {
    /// A reader that may wait in its reads.
    #[must_use]
    pub fn waiting(margin: Duration) -> Self {
        Self { margin, waits_here: false }
    }
}

/// The retry of a failed job, which moves the job out of its entry.
///
/// `Debug` shows everything but the job.
#[derive(Clone)]
pub struct NewRetry {
    /// The attempt that failed.
    pub hold: Hold,
    /// What allows settling an entry that is not pending; the stored job takes its place.
    pub stand_in: Option<StandIn>,
    /// How long until the retry is due.
    pub delay: Duration,
    /// The entry that the lane holds once the retry is due.
    pub job: Fields,
}

impl fmt::Debug for NewRetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewRetry")
            .field("hold", &self.hold)
            .field("stand_in", &self.stand_in)
            .field("delay", &self.delay)
            .finish_non_exhaustive()
    }
}

/// What a renewal found.
#[derive(Debug)]
pub struct Renewed {
    /// The server's clock.
    pub now: ServerTime,
    /// How often operators have moved or acknowledged entries of the group. 0 if the renewal had no holds.
    pub moves: u64,
    /// An answer for each hold, in order.
    pub answers: Vec<FenceResult>,
}

/// Whether any entry is idle. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// At least one entry is idle.
    Found,
    /// No entry is idle.
    NotFound {
        /// How long ago the scan ran: zero if this call scanned, otherwise the age of the result that
        /// another process shared.
        ago: Duration,
    },
}

/// A claim of idle entries, of any owner; the caller's own lost deliveries are among them.
#[derive(Clone, Copy, Debug)]
pub struct IdleClaim<'a> {
    /// Which inlet to scan.
    pub inlet: Inlet,
    /// Entries that have been idle for at least this long may be claimed, unless the heartbeat of their
    /// owner gives a lease of its own.
    pub lease: Duration,
    /// Where the last page ended; zero starts over.
    pub cursor: EntryId,
    /// How many entries to claim at most.
    pub limit: usize,
    /// What the server's clock is expected to show, with its tolerance.
    pub expected: Option<(ServerTime, Duration)>,
    /// Entries that must not be claimed, however long they have been idle.
    pub skip: &'a [EntryId],
}

/// The result of a claim. Exhaustive: adding a variant is a breaking change.
#[derive(Debug)]
pub enum ClaimedPage {
    /// One page of the pending list was scanned.
    Page {
        /// Where the next page begins; zero at the end of the pending list.
        cursor: EntryId,
        /// Entries that this consumer owns now, with their raised delivery count.
        claimed: Vec<Delivery>,
        /// Entries whose payload was trimmed, each stored as a dead letter in the same step.
        trimmed: usize,
        /// Idle entries whose payload was trimmed and that stay pending, because no dead letter can be
        /// stored.
        left: usize,
        /// How many of the claimed entries had been released.
        released: usize,
    },
    /// The server's clock is outside of the tolerance; nothing was claimed.
    ClockOff {
        /// The server's clock.
        now: ServerTime,
    },
}

/// The steps of consumers.
#[async_trait]
pub trait Consume: Send + Sync {
    /// Opens a reader, with a connection of its own or a shared one.
    async fn reader(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        setup: ReaderSetup,
    ) -> Result<Box<dyn StreamReader>>;

    /// Ends the wait of a blocked reader. A reader that is not blocked is not affected.
    async fn wake(&self, reader: u64) -> Result<()>;

    /// Acknowledges entries of any owner. Returns how many were pending.
    async fn acknowledge(&self, queue: &Queue, acks: &[(Inlet, EntryId)]) -> Result<usize>;

    /// Acknowledges entries that a process may have in flight: how many were pending. With a consumer, they are
    /// those whose lease it has lost; without one, those that an operator names. If another consumer had one of
    /// them, the same step counts a move of an entry, which renewals tell its process.
    async fn acknowledge_late(
        &self,
        queue: &Queue,
        consumer: Option<&ConsumerName>,
        acks: &[(Inlet, EntryId)],
    ) -> Result<usize>;

    /// Renews entries in flight: resets the idle time and keeps the delivery count.
    async fn renew(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        holds: &[Hold],
    ) -> Result<Renewed>;

    /// Releases entries: any process can claim them at once, and this delivery is not counted.
    async fn release(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        holds: &[Hold],
    ) -> Result<Vec<FenceResult>>;

    /// Schedules retries of failed jobs. Each job is stored first and its entry acknowledged second. The
    /// answers are in the order of the retries. If one retry fails, the others are scheduled all the same.
    /// If several retries are for one entry, only the first has an entry to settle.
    async fn schedule_retries(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        retries: &[NewRetry],
    ) -> Vec<Result<FenceResult>>;

    /// Schedules the retry of one failed job.
    async fn schedule_retry(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        hold: Hold,
        stand_in: Option<StandIn>,
        delay: Duration,
        job: &Fields,
    ) -> Result<FenceResult> {
        let retry = NewRetry { hold, stand_in, delay, job: job.clone() };
        let answers = self.schedule_retries(queue, consumer, &[retry]).await;
        let lacking = Err(StoreError::Protocol { command: "schedule_retries" });
        answers.into_iter().next().unwrap_or(lacking)
    }

    /// Whether any entry has been idle for at least the lease of its owner: `lease`, unless the owner's heartbeat gives
    /// another lease. Changes no entry. If a scan by any process found none, for this lease or a shorter one, its
    /// result is reused for the time `valid`.
    async fn has_idle(
        &self,
        queue: &Queue,
        inlet: Inlet,
        lease: Duration,
        valid: Duration,
    ) -> Result<Idle>;

    /// Claims entries that have been idle for too long. A claim is a delivery and is counted.
    async fn claim_idle(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        claim: IdleClaim<'_>,
    ) -> Result<ClaimedPage>;

    /// The pending entries of this consumer after `cursor`, at most `limit`.
    async fn own_pending(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        inlet: Inlet,
        cursor: EntryId,
        limit: usize,
    ) -> Result<Vec<Hold>>;

    /// Delivers entries again whose delivery was lost on its way, if this consumer still owns them. The new
    /// delivery is not counted. Entries whose payload was trimmed are stored as dead letters.
    async fn recover(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        holds: &[Hold],
    ) -> Result<Vec<Delivery>>;
}
