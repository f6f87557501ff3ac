//! The job: the context of one attempt.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::batch_board::BatchBoard;
use super::lease::Lease;
use super::needs::States;
use super::progress::ProgressBoard;
use super::returned::Returned;
use crate::model::block::InBlock;
use crate::model::entry::{Delivery, Entry, EntryId};
use crate::model::event::{self, DecodeError, Event};
use crate::model::header;
use crate::model::name::{ConsumerName, EventId, GroupName, StreamName};
use crate::model::outcome::Outcome;
use crate::model::progress::Reported;
use crate::model::trace::TraceContext;
use crate::publish::client::Client;
use crate::store::Queue;

/// One attempt at a job: what a handler can learn about itself.
///
/// ```
/// use streamjobs::{Event, Job, JobError, handler};
/// # #[derive(Event, serde::Serialize, serde::Deserialize)]
/// # #[event(stream = "orders", type = "order.placed")]
/// # struct OrderPlaced { order_id: String }
/// # async fn charge(_: &str, _: &str) -> Result<(), JobError> { Ok(()) }
///
/// #[handler(group = "billing", max_attempts = 5)]
/// async fn bill(order: OrderPlaced, job: Job) -> Result<(), JobError> {
///     if job.is_last_attempt() {
///         eprintln!("attempt {} at {} is the last", job.attempt(), job.event_id());
///     }
///     // The same for every attempt, so that the other side can tell a repetition.
///     charge(&order.order_id, job.event_id().as_str()).await
/// }
/// ```
///
/// A job is cheap to clone. `Debug` shows ids and counts, never the payload.
#[derive(Clone)]
pub struct Job {
    parts: Arc<JobParts>,
}

/// What the runtime knows about an attempt at its start.
#[derive(Clone)]
pub(crate) struct JobParts {
    pub(crate) identity: Arc<ConsumerIdentity>,
    pub(crate) delivery: InBlock<Delivery>,
    pub(crate) event_id: EventId,
    pub(crate) origin: Option<EntryId>,
    pub(crate) trace: Option<Arc<TraceContext>>,
    pub(crate) attempt: u32,
    pub(crate) attempts_max: u32,
    pub(crate) timeout: Option<Duration>,
    pub(crate) started: Instant,
    pub(crate) lease: InBlock<Lease>,
    pub(crate) states: Arc<States>,
    pub(crate) client: Client,
    /// Where the run leaves its result, if the handler has the option `result`.
    pub(crate) returned: Option<Arc<Returned>>,
}

/// Why an attempt should stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CancelReason {
    /// The lease is lost: another process may be working on the job. This attempt must not have any
    /// further effect.
    LeaseLost,
    /// The job was cancelled. It ends as a dead letter unless its handler returns successfully.
    Requested,
    /// The process stops. The job runs again elsewhere.
    Shutdown,
}

/// Who does the work: one consumer of one group on one stream.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerIdentity {
    pub(crate) queue: Queue,
    pub(crate) consumer: ConsumerName,
    /// The clock that its jobs read.
    pub(crate) clock: Arc<dyn JobClock>,
    /// Where its jobs report their progress.
    pub(crate) progress: Arc<ProgressBoard>,
    /// Where its jobs meet to run together.
    pub(crate) batches: Arc<BatchBoard>,
}

/// The server's clock, as far as it is known here.
pub(crate) trait JobClock: fmt::Debug + Send + Sync {
    /// The time in milliseconds since 1970.
    fn now(&self) -> u64;
}

/// The clock of this machine.
#[cfg(feature = "testing")]
#[derive(Debug)]
pub(crate) struct MachineClock;

#[cfg(feature = "testing")]
impl JobClock for MachineClock {
    fn now(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Job {
    pub(crate) fn new(parts: JobParts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// The event id: the same for every delivery, retry and redrive.
    ///
    /// Pass it to other systems as the idempotency key.
    #[must_use]
    pub fn event_id(&self) -> &EventId {
        &self.parts.event_id
    }

    /// The event id for an event that this job publishes, stable over retries.
    ///
    /// Number the events that a job publishes: a retry then publishes them under the same ids.
    #[must_use]
    pub fn derived_event_id(&self, number: u64) -> EventId {
        self.parts.event_id.derive(number)
    }

    /// The number of this attempt, from 1: the recorded failures plus one.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.parts.attempt
    }

    /// Whether a failure of this attempt makes the job a dead letter.
    #[must_use]
    pub fn is_last_attempt(&self) -> bool {
        self.parts.attempt >= self.parts.attempts_max
    }

    /// How often the server has delivered this entry, this delivery included; above 1 after a crash.
    #[must_use]
    pub fn delivery_count(&self) -> u64 {
        self.parts.delivery.delivery_count
    }

    /// Whether no attempt can have worked on this job before.
    #[must_use]
    pub fn is_first_delivery(&self) -> bool {
        self.parts.attempt == 1
            && self.parts.delivery.delivery_count == 1
            && self.parts.origin.is_none()
    }

    /// The stream the event was published to.
    #[must_use]
    pub fn stream(&self) -> &StreamName {
        &self.parts.identity.queue.stream
    }

    /// The group of the job.
    #[must_use]
    pub fn group(&self) -> &GroupName {
        &self.parts.identity.queue.group
    }

    /// The consumer that runs this attempt.
    #[must_use]
    pub fn consumer(&self) -> &ConsumerName {
        &self.parts.identity.consumer
    }

    /// The id of the delivered entry. It changes with a retry or a redrive.
    #[must_use]
    pub fn entry_id(&self) -> EntryId {
        self.parts.delivery.entry.id()
    }

    /// The id of the published entry, if this attempt comes from a retry or a redrive.
    #[must_use]
    pub fn origin(&self) -> Option<EntryId> {
        self.parts.origin
    }

    /// The trace context in which the event was published, if its entry has one: the same for every
    /// retry and redrive. A field that cannot be read counts as absent.
    #[must_use]
    pub fn trace_context(&self) -> Option<&TraceContext> {
        self.parts.trace.as_deref()
    }

    /// A header that [`ClientBuilder::on_publish`](crate::ClientBuilder::on_publish) has set when the event was
    /// published; the same for every attempt.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.entry().text(&header::field(name)?)
    }

    /// The entry as the server holds it.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.parts.delivery.entry
    }

    /// Decodes the event, for resources that need a part of the payload.
    ///
    /// # Errors
    ///
    /// When the entry is not an event of this type. The message never shows the payload.
    pub fn read<E: Event>(&self) -> Result<E, DecodeError> {
        event::read(self.entry())
    }

    /// A clone of the runtime's state of this type, for resources and extractors; handlers take it as
    /// [`State<T>`](crate::State).
    ///
    /// `None` when the runtime has no such state. Require it with
    /// [`Requirements::state`](crate::Requirements::state), so that a start without it is refused.
    #[must_use]
    pub fn state<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.parts.states.get::<T>()
    }

    /// The time now, by the clock of the streams' server: use it instead of [`SystemTime::now`], so that all
    /// processes of a group agree, and tests can move the time.
    ///
    /// It sends nothing over the network. The process estimates the server's clock from answers that carry it, to
    /// within half of their round trip; before the first such answer, at the start of a runtime, this is the
    /// machine's clock. If the server's clock is set back, this time goes back too, so do not measure durations with
    /// it. With streams in memory (`testing::Streams`) it is their virtual time, which moves with tokio's clock.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        let in_memory = self.parts.client.store().virtual_now();
        let now = in_memory.map_or_else(|| self.parts.identity.clock.now(), |now| now.0);
        UNIX_EPOCH + Duration::from_millis(now)
    }

    /// Reports the progress of the job: how much is done, of how much in all (`None` if that is unknown), and what
    /// the job is doing now. The report is shown with its age beside the running job, in
    /// [`PendingEntry`](crate::stream::PendingEntry), by `streamjobs pending` and on the dashboard.
    ///
    /// ```
    /// # use streamjobs::Job;
    /// fn wrote(job: &Job, page: u64, pages: u64) {
    ///     job.progress(page, pages, "pages are written");
    ///     job.progress(page, None, "pages are written");    // of how many is unknown
    /// }
    /// ```
    ///
    /// The call neither waits nor fails. The last report is written in the background, at most once a second for each
    /// job. The first report is written at once. Of several reports within a second after a write, only the last is
    /// written, when the second is over; it is not written if the attempt has ended by then. A write that fails is
    /// logged and tried again after 10 seconds. The text is cut to 200 bytes at a character, and control characters
    /// become spaces; it must not contain secrets.
    ///
    /// # Delivery
    ///
    /// The report belongs to this attempt and disappears with it. So it cannot serve as a
    /// checkpoint: a retry or a redelivery cannot read it. Nothing is written once the lease is
    /// lost.
    pub fn progress(&self, done: u64, of: impl Into<Option<u64>>, text: &str) {
        let reported = Reported::new(done, of.into(), text);
        let (parts, hold) = (&self.parts, self.parts.delivery.hold());
        let is_over = || parts.lease.has_ended() || parts.lease.is_lost();
        parts.identity.progress.report(hold, reported, is_over);
    }

    /// When the attempt times out, if its handler has a timeout.
    #[must_use]
    pub fn deadline(&self) -> Option<std::time::Instant> {
        self.parts.timeout.and_then(|timeout| self.parts.started.into_std().checked_add(timeout))
    }

    /// Fires when the attempt should stop: its lease is lost, a shutdown's grace period is over, or
    /// the job was [cancelled](crate::stream::Stream::cancel). [`cancel_reason`](Self::cancel_reason) says
    /// which.
    ///
    /// Shortly after (an eighth of the lease, at most a second) the handler's future is dropped at its
    /// current await.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        self.parts.lease.token()
    }

    /// Why [`cancelled`](Self::cancelled) has fired; `None` while it has not. If there are several
    /// reasons, a lost lease comes first, and then a cancelled job.
    #[must_use]
    pub fn cancel_reason(&self) -> Option<CancelReason> {
        let lease = &self.parts.lease;
        if self.lease_lost() {
            Some(CancelReason::LeaseLost)
        } else if lease.is_cancelled() {
            Some(CancelReason::Requested)
        } else {
            lease.is_cut_off().then_some(CancelReason::Shutdown)
        }
    }

    /// Whether another process may be working on this job now.
    ///
    /// Check it before an effect that must not happen twice at the same time.
    #[must_use]
    pub fn lease_lost(&self) -> bool {
        self.parts.lease.is_over()
    }

    /// The client of the runtime, to publish from a job.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.parts.client
    }

    /// Where the run leaves its result, if the handler has the option `result`.
    pub(crate) fn returned(&self) -> Option<&Returned> {
        self.parts.returned.as_deref()
    }

    /// How long an attempt has between its cancellation and the drop of its future.
    pub(crate) fn window(&self) -> Duration {
        self.parts.lease.window
    }

    /// The same attempt, whose time begins now.
    pub(crate) fn begun_now(&self) -> Self {
        Self::new(JobParts { started: Instant::now(), ..JobParts::clone(&self.parts) })
    }

    /// Where the jobs of this queue meet to run together.
    pub(crate) fn batches(&self) -> &BatchBoard {
        &self.parts.identity.batches
    }

    /// When the attempt times out, and after which time, if its handler has a timeout.
    pub(crate) fn time_limit(&self) -> Option<(Instant, Duration)> {
        self.parts.timeout.map(|timeout| (self.parts.started + timeout, timeout))
    }

    /// Waits until the attempt has to end, and returns why.
    pub(crate) async fn time_ended(&self) -> Outcome {
        let timed_out = async {
            match self.time_limit() {
                Some((end, timeout)) => {
                    sleep_until(end).await;
                    Outcome::TimedOut(timeout)
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            outcome = self.cut_off() => outcome,
            outcome = timed_out => outcome,
        }
    }

    /// Waits until the attempt has to end for a reason other than its timeout, and returns why.
    pub(crate) async fn cut_off(&self) -> Outcome {
        self.parts.lease.token().cancelled().await;
        sleep(self.parts.lease.window).await;
        self.has_to_end().unwrap_or(Outcome::CutOff)
    }

    /// Why the attempt has to end, if it has to for a reason other than its timeout.
    pub(crate) fn has_to_end(&self) -> Option<Outcome> {
        self.cancel_reason().map(|reason| match reason {
            CancelReason::LeaseLost => Outcome::LeaseLost,
            CancelReason::Requested => Outcome::Cancelled,
            CancelReason::Shutdown => Outcome::CutOff,
        })
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("stream", &self.parts.identity.queue.stream)
            .field("group", &self.parts.identity.queue.group)
            .field("entry_id", &self.entry_id())
            .field("event_id", &self.parts.event_id)
            .field("attempt", &self.parts.attempt)
            .field("delivery_count", &self.parts.delivery.delivery_count)
            .finish_non_exhaustive()
    }
}
