//! The context of one attempt.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::needs::States;
use crate::model::entry::{Delivery, Entry, EntryId};
use crate::model::event::{self, DecodeError, Event};
use crate::model::name::{ConsumerName, EventId, GroupName, StreamName};
use crate::model::outcome::Outcome;
use crate::model::trace::TraceContext;
use crate::publish::client::Client;
use crate::store::Queue;

/// One attempt at one group's work on one event: what a handler may ask about itself.
///
/// Cheap to clone. `Debug` shows ids and counts, never the payload.
#[derive(Clone)]
pub struct Job {
    parts: Arc<JobParts>,
}

/// What the runtime knows about an attempt when it starts.
pub(crate) struct JobParts {
    pub(crate) identity: Arc<ConsumerIdentity>,
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) event_id: EventId,
    pub(crate) origin: Option<EntryId>,
    pub(crate) trace: Option<Arc<TraceContext>>,
    pub(crate) attempt: u32,
    pub(crate) attempts_max: u32,
    pub(crate) timeout: Option<Duration>,
    pub(crate) started: Instant,
    pub(crate) lease: Arc<Lease>,
    pub(crate) states: Arc<States>,
    pub(crate) client: Client,
}

/// Who does the work: one consumer of one group on one stream.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerIdentity {
    pub(crate) queue: Queue,
    pub(crate) consumer: ConsumerName,
}

/// Whether an attempt may go on: shared by the attempt and the loop that renews its lease.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Made when somebody looks at it: most attempts end before anybody does.
    token: OnceLock<CancellationToken>,
    lost: AtomicBool,
    over: AtomicBool,
    /// How long an attempt has between the token and the drop of its future.
    window: Duration,
    /// How long after its last proof the lease is lost.
    fence: Duration,
    made: Instant,
    /// How long after `made` the lease is lost unless it is proved again, in milliseconds.
    ends: AtomicU64,
}

/// An end that never comes.
const ENDLESS: u64 = u64::MAX;

impl Lease {
    pub(crate) fn new(window: Duration, fence: Duration) -> Self {
        Self {
            token: OnceLock::new(),
            lost: AtomicBool::new(false),
            over: AtomicBool::new(false),
            window,
            fence,
            made: Instant::now(),
            ends: AtomicU64::new(ENDLESS),
        }
    }

    /// The lease was proved by a request that was sent then.
    pub(crate) fn prove(&self, sign: Instant) {
        let end = (sign + self.fence).saturating_duration_since(self.made).as_millis();
        self.ends.store(u64::try_from(end).unwrap_or(ENDLESS), Ordering::SeqCst);
    }

    /// The server knows nothing of the entry any more, so nobody else can be given it.
    pub(crate) fn set_adrift(&self) {
        self.ends.store(ENDLESS, Ordering::SeqCst);
    }

    /// Whether the attempt may not work any more: it was told so, or its time is over and nobody has
    /// come to tell it, since its process stood still.
    fn is_over(&self) -> bool {
        let ends = self.ends.load(Ordering::SeqCst);
        self.is_lost() || (ends != ENDLESS && self.made.elapsed() >= Duration::from_millis(ends))
    }

    /// Loses a lease whose time is over: whether that is news.
    pub(crate) fn lapse(&self) -> bool {
        let news = !self.is_lost() && self.is_over();
        if news {
            self.lose();
        }
        news
    }

    /// Tells the attempt that the lease is lost.
    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::SeqCst);
        self.cut_off();
    }

    /// Tells the attempt that its time is over.
    pub(crate) fn cut_off(&self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(token) = self.token.get() {
            token.cancel();
        }
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    fn token(&self) -> &CancellationToken {
        let token = self.token.get_or_init(CancellationToken::new);
        // Whoever ended the attempt before there was a token could not cancel it.
        if self.over.load(Ordering::SeqCst) {
            token.cancel();
        }
        token
    }
}

impl Job {
    pub(crate) fn new(parts: JobParts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// The identity of the event: the same for every delivery, retry and redrive.
    ///
    /// Hand it to other systems as the idempotency key.
    #[must_use]
    pub fn event_id(&self) -> &EventId {
        &self.parts.event_id
    }

    /// The id for something that this job publishes, stable over retries.
    ///
    /// Number the things a job publishes, and a job that is tried again publishes them under the
    /// same ids.
    #[must_use]
    pub fn derived_event_id(&self, number: u64) -> EventId {
        self.parts.event_id.derive(number)
    }

    /// Which attempt this is, from 1: recorded failures and this run.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.parts.attempt
    }

    /// Whether a failure of this attempt makes the job a dead letter.
    #[must_use]
    pub fn is_last_attempt(&self) -> bool {
        self.parts.attempt >= self.parts.attempts_max
    }

    /// How often the server delivered this entry, this time included; more than once after a crash.
    #[must_use]
    pub fn delivery_count(&self) -> u64 {
        self.parts.delivery.delivery_count
    }

    /// Whether nobody can have worked on this job before.
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

    /// The group whose job this is.
    #[must_use]
    pub fn group(&self) -> &GroupName {
        &self.parts.identity.queue.group
    }

    /// The name this process run reads under.
    #[must_use]
    pub fn consumer(&self) -> &ConsumerName {
        &self.parts.identity.consumer
    }

    /// The id of the entry this attempt was delivered with; another one after a retry or redrive.
    #[must_use]
    pub fn entry_id(&self) -> EntryId {
        self.parts.delivery.entry.id()
    }

    /// The id of the entry that was published, if this attempt comes from a retry or a redrive.
    #[must_use]
    pub fn origin(&self) -> Option<EntryId> {
        self.parts.origin
    }

    /// The trace in which the event was published, if its entry says so: the same for every retry
    /// and redrive. A field that cannot be read counts as absent.
    #[must_use]
    pub fn trace_context(&self) -> Option<&TraceContext> {
        self.parts.trace.as_deref()
    }

    /// The entry as the server holds it.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.parts.delivery.entry
    }

    /// Reads the event out of the entry, for resources that need a part of the payload.
    ///
    /// # Errors
    ///
    /// When the entry is no event of this type. The text never repeats the payload.
    pub fn read<E: Event>(&self) -> Result<E, DecodeError> {
        event::read(self.entry())
    }

    /// A clone of the state of this type that the runtime was given, for resources and extractors;
    /// handlers take it as [`State<T>`](crate::State).
    ///
    /// None when the runtime has no such state. Ask for it with
    /// [`Requirements::state`](crate::Requirements::state), and a start without it is refused.
    #[must_use]
    pub fn state<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.parts.states.get::<T>()
    }

    /// When the attempt will be ended as timed out, if its handler has a timeout.
    #[must_use]
    pub fn deadline(&self) -> Option<std::time::Instant> {
        self.parts.timeout.and_then(|timeout| self.parts.started.into_std().checked_add(timeout))
    }

    /// Fires when the attempt should stop: its lease is lost, or a shutdown ran out of grace.
    ///
    /// A moment later (an eighth of the lease, at most a second) the handler's future is dropped
    /// where it waits.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        self.parts.lease.token()
    }

    /// Whether another process may be working on this job now.
    ///
    /// Look before an effect that must not happen twice at once.
    #[must_use]
    pub fn lease_lost(&self) -> bool {
        self.parts.lease.is_over()
    }

    /// The client of the runtime, to publish from within a job.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.parts.client
    }

    /// Waits until the attempt has to end, and says why.
    pub(crate) async fn time_ended(&self) -> Outcome {
        let timed_out = async {
            match self.parts.timeout {
                Some(timeout) => {
                    sleep_until(self.parts.started + timeout).await;
                    Outcome::TimedOut(timeout)
                }
                None => std::future::pending().await,
            }
        };
        let cancelled = async {
            self.parts.lease.token().cancelled().await;
            sleep(self.parts.lease.window).await;
            if self.lease_lost() { Outcome::LeaseLost } else { Outcome::CutOff }
        };
        tokio::select! {
            biased;
            outcome = cancelled => outcome,
            outcome = timed_out => outcome,
        }
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
