//! Runs one handler once, for a job made by hand.

use std::fmt;
use std::future::IntoFuture;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::Streams;
use crate::handler::middleware::Chain;
use crate::handler::{
    BatchBoard, CancelReason, ConsumerIdentity, HandlerDef, HandlerItem, Job, JobClock, JobParts,
    Lease, MachineClock, Requirements, Returned, States,
};
use crate::model::block::InBlock;
use crate::model::cause::panic_text;
use crate::model::config::{GroupOptions, JobLimits, QueueConfig};
use crate::model::entry::{Delivery, Entry, EntryId, Fields, Inlet};
use crate::model::error::PublishError;
use crate::model::event::{DecodeError, Envelope, Event, decode_result};
use crate::model::name::{ConsumerName, EventId, GroupName, NameError, StreamName};
use crate::model::outcome::Outcome;
use crate::model::policy::{Reason, Verdict, after_attempt, cancelled, reject_if_too_wide};
use crate::model::record::{Attempted, FIELDS_CARRIED_MAX};
use crate::model::schedule::Tick;
use crate::model::trace::TraceContext;
use crate::publish::client::Client;
use crate::publish::encoded::EncodedEvent;
use crate::store::Queue;

/// Runs a handler once for an event, with all of its arguments: no runtime, no stream.
///
/// Name the handler by its type, to which `#[handler]` has given the name of the function:
///
/// ```
/// use streamjobs::testing::{Next, perform};
/// use streamjobs::{Event, Job, JobError, State, handler};
///
/// # #[derive(Event, serde::Serialize, serde::Deserialize)]
/// # #[event(stream = "orders", type = "order.placed")]
/// # struct OrderPlaced { cents: u64 }
/// #[derive(Clone)]
/// struct Limit(u64);
///
/// #[handler(group = "billing", max_attempts = 3)]
/// async fn charge(order: OrderPlaced, State(limit): State<Limit>, job: Job) -> Result<(), JobError> {
///     if order.cents > limit.0 {
///         return Err(JobError::dead("too expensive"));
///     }
///     if job.is_last_attempt() { Ok(()) } else { Err("the terminal is busy".into()) }
/// }
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let order = OrderPlaced { cents: 900 };
/// let first = perform::<charge>(&order).state(Limit(1_000)).await?;
/// assert!(matches!(first.next, Next::Retry { .. }));
/// let last = perform::<charge>(&order).state(Limit(1_000)).attempt(3).await?;
/// assert_eq!(last.next, Next::Done);
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread()
/// #     .enable_time().build().unwrap().block_on(example()).unwrap();
/// ```
///
/// The job is the first delivery of the first attempt unless the [builder](Perform) says otherwise. It runs
/// when the builder is awaited.
pub fn perform<H: HandlerItem>(event: &impl Event) -> Perform {
    let encoded = EncodedEvent::new(event).map(|event| event.fields().to_vec());
    Perform::new(H::HANDLER, encoded)
}

/// As [`perform`], for a handler that takes an [`Entry`]: the job's entry has these fields, as another
/// client may have written them. Without `sj-id`, it gets an event id that is derived from them.
pub fn perform_entry<H: HandlerItem>(fields: Fields) -> Perform {
    Perform::new(H::HANDLER, Ok(fields))
}

/// As [`perform`], for a handler with a schedule of its own: it gets the tick of this occurrence, which is on time
/// and follows no missed occurrence.
pub fn perform_tick<H: HandlerItem>(occurrence: SystemTime) -> Perform {
    let handler = H::HANDLER;
    let event_type = handler.types.and_then(|types| types.first()).copied().unwrap_or_default();
    let schedule = event_type.strip_prefix("tick.").unwrap_or(event_type);
    let at = occurrence.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let tick = Tick::new(schedule, u64::try_from(at).unwrap_or(u64::MAX), 0, 0);
    let encode_error = |source| PublishError::Encode {
        stream: handler.stream.to_owned(),
        event_type: event_type.to_owned(),
        source,
    };
    let fields = tick.encode().map(|payload| {
        let mut fields = vec![("type".into(), event_type.into())];
        fields.extend(payload);
        fields.push(("sj-id".into(), EventId::generate().as_str().to_owned().into()));
        fields
    });
    Perform::new(handler, fields.map_err(encode_error))
}

/// A run of a handler that is about to begin: see [`perform`]. Await it.
#[must_use = "nothing runs until it is awaited"]
pub struct Perform {
    handler: HandlerDef,
    fields: Result<Fields, PublishError>,
    states: States,
    client: Option<Client>,
    options: GroupOptions,
    attempt: u32,
    delivery_count: u64,
    cancel: Option<(Duration, CancelReason)>,
}

/// How a run of a handler ended, and what a runtime would do with its job.
#[derive(Debug)]
#[non_exhaustive]
pub struct Performed {
    /// How the attempt ended. The error of a handler is the error that it returned.
    pub outcome: Outcome,
    /// What would become of the job.
    pub next: Next,
    /// The job, as the handler had it.
    pub job: Job,
}

impl Performed {
    /// What the handler returned, as a waiter would get it, if it has the option `result` and the job is done;
    /// otherwise `None`.
    ///
    /// # Errors
    ///
    /// When the result is not a `T`.
    pub fn result<T: DeserializeOwned>(&self) -> Result<Option<T>, DecodeError> {
        let returned = self.job.returned().filter(|_| self.next == Next::Done);
        returned.and_then(Returned::json).map(|json| decode_result(json)).transpose()
    }
}

/// What a runtime does with a job after an attempt.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Next {
    /// The job is done, and acknowledged.
    Done,
    /// The attempt counts as a failure, and the job is retried.
    Retry {
        /// The longest delay before the retry. The default back-off, and every other exponential back-off, draws its
        /// delay at random below this. A fixed back-off and [`JobError::retry_after`] are exact.
        ///
        /// [`JobError::retry_after`]: crate::JobError::retry_after
        within: Duration,
        /// The error that is kept with the retry.
        error: String,
    },
    /// The job is tried again after this delay, and no failure is counted.
    Snoozed {
        /// The delay.
        delay: Duration,
        /// The error that is kept with the retry.
        error: String,
    },
    /// The job becomes a dead letter.
    DeadLetter {
        /// Why.
        reason: Reason,
        /// The error that is stored with it.
        error: Option<String>,
    },
    /// The job is released for another process, uncounted, because this process stops.
    Released,
    /// Nothing: the lease is lost, so the job belongs to another attempt.
    Left,
}

/// Why a handler was not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PerformError {
    /// The handler does not take events of this type.
    #[error("{handler} does not take events of type {event_type}")]
    OtherType {
        /// The handler and its place.
        handler: String,
        /// The event type.
        event_type: String,
    },
    /// The handler needs states that the run was not given.
    #[error("{handler} needs State<{}>, which the run was not given: add `.state(…)`", .states.join(">, State<"))]
    MissingStates {
        /// The handler and its place.
        handler: String,
        /// The names of their types.
        states: Vec<&'static str>,
    },
    /// The event cannot be encoded.
    #[error("the event cannot be encoded")]
    Event(#[source] PublishError),
    /// The handler's stream or group has an invalid name.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Perform {
    fn new(handler: HandlerDef, fields: Result<Fields, PublishError>) -> Self {
        Self {
            handler,
            fields,
            states: States::default(),
            client: None,
            options: GroupOptions::default(),
            attempt: 1,
            delivery_count: 1,
            cancel: None,
        }
    }

    /// Gives the handler a state, as [`RuntimeBuilder::state`](crate::RuntimeBuilder::state) does: one for
    /// each type.
    pub fn state<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.states.insert(value);
        self
    }

    /// The client that the job has, to publish with and for the marks of `OnceMark`. By default it is a client of new
    /// streams in memory. With a client from [`Streams::client`], the test sees what was published, and the job's
    /// [clock](Job::now) is that of the streams.
    pub fn client(mut self, client: &Client) -> Self {
        self.client = Some(client.clone());
        self
    }

    /// The event id: a new one by default.
    pub fn event_id(self, id: EventId) -> Self {
        self.field("sj-id", id.as_str())
    }

    /// The number of the attempt: one more than the failures before; 1 by default. A later attempt looks like a
    /// retry: it has an entry of its own, with the first entry as its origin.
    pub fn attempt(mut self, number: u32) -> Self {
        self.attempt = number.max(1);
        self
    }

    /// How often the server has delivered the entry: once by default, more after crashes.
    pub fn delivery_count(mut self, count: u64) -> Self {
        self.delivery_count = count.max(1);
        self
    }

    /// Sets a field of the entry outside the payload, such as a field that an extractor reads.
    pub fn field(mut self, name: &str, value: &str) -> Self {
        if let Ok(fields) = &mut self.fields {
            fields.retain(|(field, _)| field != name.as_bytes());
            fields.push((name.to_owned().into(), value.to_owned().into()));
        }
        self
    }

    /// The trace context in which the event was published; none by default.
    pub fn trace(self, context: &TraceContext) -> Self {
        self.field("sj-trace", &context.to_string())
    }

    /// Settings of the group, as [`RuntimeBuilder::group`](crate::RuntimeBuilder::group) takes them: a
    /// timeout, and so the job's [deadline](Job::deadline), for example. They override the handler's.
    pub fn group(mut self, options: GroupOptions) -> Self {
        self.options = options;
        self
    }

    /// Cancels the attempt after this time; with zero, before it begins. [`Job::cancelled`] fires, and the
    /// handler is dropped shortly after, as in a runtime: an eighth of its lease later, at most a second.
    pub fn cancel_after(mut self, delay: Duration, reason: CancelReason) -> Self {
        self.cancel = Some((delay, reason));
        self
    }

    /// The queue of the job, after the checks that a runtime makes at its start.
    fn checked(&self) -> Result<Queue, PerformError> {
        let handler = || self.handler.location();
        let mut requirements = Requirements::default();
        (self.handler.require)(&mut requirements);
        if let Some(wrap) = self.handler.wrap {
            wrap().require(&mut requirements);
        }
        let states = requirements.missing_from(&self.states);
        if !states.is_empty() {
            return Err(PerformError::MissingStates { handler: handler(), states });
        }
        let stream = StreamName::new(self.handler.stream)?;
        Ok(Queue { stream, group: GroupName::new(self.handler.group)? })
    }

    async fn run(self) -> Result<Performed, PerformError> {
        let queue = self.checked()?;
        let Self { handler, fields, states, client, options, attempt, delivery_count, cancel } =
            self;
        let fields = fields.map_err(PerformError::Event)?;
        let client = client.unwrap_or_else(|| Streams::new().client());
        let delivery = delivery(&queue, &client, fields, attempt, delivery_count);
        let event_type = delivery.entry.event_type().unwrap_or_default();
        if handler.types.is_some_and(|types| !types.contains(&event_type)) {
            let (handler, event_type) = (handler.location(), event_type.to_owned());
            return Err(PerformError::OtherType { handler, event_type });
        }
        let limits = JobLimits::new(&handler.options, &options);
        let config = QueueConfig::new(&handler.options, &options, Duration::ZERO);
        let lease = InBlock::alone(Lease::endless(config.window(), config.fence()));
        let envelope = Envelope::of(&queue.stream, &delivery.entry);
        let clock = Arc::new(MachineClock);
        let consumer = ConsumerName::new("perform")?;
        let fields = delivery.entry.fields().len();
        let batches = Arc::<BatchBoard>::default();
        // No other job will come.
        batches.close();
        let job = Job::new(JobParts {
            identity: Arc::new(ConsumerIdentity {
                queue,
                consumer,
                clock,
                progress: Arc::default(),
                batches,
            }),
            trace: TraceContext::of(&delivery.entry).map(Arc::new),
            delivery: InBlock::alone(delivery),
            event_id: envelope.event_id,
            origin: envelope.origin,
            attempt,
            attempts_max: limits.max_attempts,
            timeout: limits.timeout,
            started: Instant::now(),
            lease: lease.clone(),
            states: Arc::new(states),
            client,
            returned: handler.result.map(|_| Arc::default()),
        });
        let outcome = run_once(handler, job.clone(), &lease, cancel).await;
        // The longest delay that the back-off can draw.
        let verdict = after_attempt(&outcome, attempt, &limits, 1.0);
        let verdict = if lease.is_cancelled() { cancelled(verdict) } else { verdict };
        let next = next(&outcome, reject_if_too_wide(verdict, fields, FIELDS_CARRIED_MAX));
        Ok(Performed { outcome, next, job })
    }
}

impl IntoFuture for Perform {
    type Output = Result<Performed, PerformError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for Perform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Perform")
            .field("handler", &self.handler)
            .field("attempt", &self.attempt)
            .field("delivery_count", &self.delivery_count)
            .field("cancel", &self.cancel)
            .finish_non_exhaustive()
    }
}

/// The delivery of an entry with these fields, or of its retry.
fn delivery(
    queue: &Queue,
    client: &Client,
    fields: Fields,
    attempt: u32,
    delivery_count: u64,
) -> Delivery {
    let now = client.store().virtual_now().map_or_else(|| MachineClock.now(), |now| now.0);
    let entry = Entry::new(EntryId::new(now, 0), fields);
    let first = Delivery { inlet: Inlet::STREAM, entry, delivery_count };
    let Some(failures) = attempt.checked_sub(1).filter(|failures| *failures > 0) else {
        return first;
    };
    let envelope = Envelope::of(&queue.stream, &first.entry);
    let attempted =
        Attempted { delivery: &first, envelope: &envelope, started_at: now, failures, run: None };
    let entry = Entry::new(EntryId::new(now, 1), attempted.retry(None, Some(now), false));
    Delivery { inlet: Inlet::LANE, entry, delivery_count }
}

/// Runs the handler, and cancels the attempt when its time has come.
async fn run_once(
    handler: HandlerDef,
    job: Job,
    lease: &Lease,
    cancel: Option<(Duration, CancelReason)>,
) -> Outcome {
    let apply = |reason| match reason {
        CancelReason::LeaseLost => lease.lose(),
        CancelReason::Requested => drop(lease.cancel()),
        CancelReason::Shutdown => lease.cut_off(),
    };
    if let Some((_, reason)) = cancel.filter(|(delay, _)| delay.is_zero()) {
        apply(reason);
    }
    let cancelling = async {
        if let Some((delay, reason)) = cancel {
            sleep(delay).await;
            apply(reason);
        }
        std::future::pending::<Outcome>().await
    };
    let layers = handler.wrap.map(|wrap| wrap()).into_iter().collect();
    let run = async {
        match Chain::new(layers, handler.run) {
            Some(chain) => chain.run(job).await,
            None => (handler.run)(job).await,
        }
    };
    let run = AssertUnwindSafe(run).catch_unwind();
    tokio::select! {
        biased;
        outcome = run => outcome.unwrap_or_else(|panic| Outcome::Panicked(panic_text(panic))),
        outcome = cancelling => outcome,
    }
}

/// What a verdict means for the job.
fn next(outcome: &Outcome, verdict: Verdict) -> Next {
    let snoozes = matches!(outcome, Outcome::Failed(error) if error.is_later());
    match verdict {
        Verdict::Acknowledge => Next::Done,
        Verdict::Retry { delay, error } if snoozes => Next::Snoozed { delay, error },
        Verdict::Retry { delay, error } => Next::Retry { within: delay, error },
        Verdict::DeadLetter { reason, error } => Next::DeadLetter { reason, error },
        Verdict::Release => Next::Released,
        // A handler ran, so the job does not wait for a handler.
        Verdict::Leave | Verdict::AwaitHandler => Next::Left,
    }
}
