//! From a plan to a worker: what its queues are made of, and what has to be there before it starts.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tracing::info;

use crate::handler::{Place, States};
use crate::insight::alert::AlertState;
use crate::insight::metrics::QueueMetrics;
use crate::model::cause::BoxError;
use crate::model::config::RuntimeConfig;
use crate::model::error::{ControlError, StartError};
use crate::model::heartbeat::Heartbeat;
use crate::model::name::{ConsumerName, StreamName};
use crate::model::trace::span::SpanHook;
use crate::publish::client::Client;
use crate::runtime::acks::Acks;
use crate::runtime::clock::Clock;
use crate::runtime::departed::Departed;
use crate::runtime::due::Due;
use crate::runtime::gate::Gate;
use crate::runtime::health::LoopHealth;
use crate::runtime::held::Held;
use crate::runtime::lookout::{Audience, Callback, Lookout};
use crate::runtime::plan::PlannedQueue;
use crate::runtime::queue::{Handlers, QueueContext, TrimTurn};
use crate::runtime::quiet::Quiet;
use crate::runtime::report::{Report, Tally};
use crate::runtime::slots::Slots;
use crate::runtime::wake::Wake;
use crate::store::{Queue, Store, StoreError};

/// What every queue of a runtime gets.
#[derive(Debug)]
pub(crate) struct Wiring {
    pub(crate) client: Client,
    pub(crate) states: Arc<States>,
    /// The store of the thread that does all of the runtime's input and output.
    pub(crate) store: Arc<dyn Store>,
    /// Counts for the runtime as a whole.
    pub(crate) tally: Arc<Tally>,
    pub(crate) runtime: RuntimeConfig,
    on_process_span: Option<SpanHook>,
    pub(crate) audience: Arc<Audience>,
    departed: Arc<Departed>,
    /// One for each queue, whichever consumers it has.
    lookouts: HashMap<Queue, Arc<Lookout>>,
    /// One for each stream: whoever reads it, it is trimmed once.
    trims: HashMap<StreamName, Arc<TrimTurn>>,
}

impl Wiring {
    pub(crate) fn new(
        client: Client,
        states: States,
        runtime: RuntimeConfig,
        planned: &[PlannedQueue],
    ) -> Self {
        let streams = planned.iter().map(|planned| planned.queue.stream.clone());
        let mut led = HashSet::new();
        let lookouts = planned.iter().map(|PlannedQueue { queue, .. }| {
            let (stream, group) = (queue.stream.to_string(), queue.group.to_string());
            let watch = AlertState::new(stream, group, runtime.alerts);
            let lookout = Lookout::new(watch, led.insert(queue.stream.clone()));
            (queue.clone(), Arc::new(lookout))
        });
        let lookouts = lookouts.collect();
        Self {
            store: client.store().fork(),
            client,
            states: Arc::new(states),
            tally: Arc::default(),
            runtime,
            on_process_span: None,
            audience: Arc::new(Audience::new(None)),
            lookouts,
            departed: Arc::default(),
            trims: streams.map(|stream| (stream, Arc::default())).collect(),
        }
    }

    /// Who is told of each handler's span.
    pub(crate) fn on_process_span(mut self, telling: Option<SpanHook>) -> Self {
        self.on_process_span = telling;
        self
    }

    /// Who is called with alerts.
    pub(crate) fn on_alert(mut self, callback: Option<Callback>) -> Self {
        self.audience = Arc::new(Audience::new(callback));
        self
    }

    /// The queue as one consumer works on it, which counts into `tally` as well.
    pub(crate) fn context(
        &self,
        planned: &PlannedQueue,
        consumer: &ConsumerName,
        tally: &Arc<Tally>,
    ) -> QueueContext {
        let PlannedQueue { queue, config, handlers } = planned.clone();
        let place = Arc::new(Place {
            stream: queue.stream.clone(),
            group: queue.group.clone(),
            consumer: consumer.clone(),
        });
        let metrics = Arc::new(QueueMetrics::new(&queue.stream, &queue.group));
        metrics.set_slots(config.concurrency);
        let mut handlers = Handlers::clone(&handlers);
        handlers.measure(|event_type| metrics.process(event_type));
        let tallies = [Arc::clone(&self.tally), Arc::clone(tally), Arc::default()];
        // Every planned queue has one.
        let lookout = self.lookouts.get(&queue).cloned().unwrap_or_else(|| {
            let (stream, group) = (queue.stream.to_string(), queue.group.to_string());
            Arc::new(Lookout::new(AlertState::new(stream, group, self.runtime.alerts), false))
        });
        QueueContext {
            report: Report::new(tallies, Arc::clone(&metrics), &lookout, Arc::clone(&place)),
            lookout,
            audience: Arc::clone(&self.audience),
            on_process_span: self.on_process_span.clone(),
            clock: Clock::new(config.lease, Instant::now()),
            slots: Arc::new(Slots::new(config.concurrency)),
            gate: Gate::default(),
            runtime: self.runtime,
            store: Arc::clone(&self.store),
            client: self.client.clone(),
            states: Arc::clone(&self.states),
            held: Held::new(metrics),
            acks: Acks::default(),
            wake: Wake::default(),
            quiet: Quiet::new(config.lease, Instant::now()),
            due: Due::default(),
            health: LoopHealth::new(),
            suspect: AtomicBool::new(false),
            lane_waits: AtomicBool::new(false),
            reap_now: Notify::new(),
            renew_now: Notify::new(),
            reaper_wants: AtomicUsize::new(0),
            intake: Semaphore::new(1),
            epoch: AtomicU64::new(0),
            departed: Arc::clone(&self.departed),
            trims: self.trims.get(&queue.stream).cloned().unwrap_or_default(),
            queue,
            place,
            config,
            handlers: Arc::new(handlers),
        }
    }
}

/// A queue that cannot be worked on, and why.
#[derive(Debug)]
pub(crate) struct Unprepared {
    pub(crate) queue: Queue,
    pub(crate) source: BoxError,
}

impl From<Unprepared> for StartError {
    fn from(Unprepared { queue, source }: Unprepared) -> Self {
        let (stream, group) = (queue.stream.to_string(), queue.group.to_string());
        Self::Group { stream, group, source }
    }
}

impl From<Unprepared> for ControlError {
    fn from(Unprepared { queue, source }: Unprepared) -> Self {
        let (stream, group) = (queue.stream.to_string(), queue.group.to_string());
        Self::Group { stream, group, source }
    }
}

/// Makes the group where it is missing, and learns the server's clock and whether the group is
/// paused.
pub(crate) async fn prepare(context: &QueueContext) -> Result<(), Unprepared> {
    let failed =
        |error: StoreError| Unprepared { queue: context.queue.clone(), source: error.into() };
    context.store.prepare(&context.queue, context.config.start).await.map_err(failed)?;
    // Any of them may be slow; the quickest counts.
    for _ in 0..CLOCK_LOOKS {
        let sent = Instant::now();
        let now = context.store.now().await.map_err(failed)?;
        context.clock.observe(sent, Instant::now(), now);
    }
    // Before the first read: what was trimmed unread is not seen any more once the group reads on,
    // and a pause holds for processes that start later.
    let about = Heartbeat::this_process(context.server_now(), context.heartbeat_interval()).write();
    let beat = context.store.heartbeat(&context.queue, &context.place.consumer, &about).await;
    let beat = unless_refused(context, "heartbeat", beat).map_err(failed)?;
    context.report.trimmed_unread(beat.map_or(0, |beat| beat.trimmed_unread));
    let look = context.store.promote(&context.queue, 0).await;
    if let Some(look) = unless_refused(context, "look for a pause", look).map_err(failed)? {
        context.pause_everywhere(look.paused);
    }
    Ok(())
}

/// A refusal says that something is wrong beside the stream. That is the loops' to tell, and no
/// reason not to read.
fn unless_refused<T>(
    context: &QueueContext,
    during: &'static str,
    answer: Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    match answer {
        Err(error @ StoreError::Refused { .. }) => {
            context.report.server_error(during, &error);
            Ok(None)
        }
        answer => answer.map(Some),
    }
}

/// One line for each handler, so that the log of a deployment says what it runs.
pub(crate) fn log_table(context: &QueueContext) {
    let (stream, group) = (&context.queue.stream, &context.queue.group);
    let typed = context.handlers.by_type.iter().map(|(event_type, bound)| (*event_type, bound));
    let mut rows =
        typed.chain(context.handlers.any.iter().map(|bound| ("*", bound))).collect::<Vec<_>>();
    rows.sort_unstable_by_key(|(event_type, _)| *event_type);
    for (event_type, bound) in rows {
        info!(
            %stream, %group, event_type,
            handler = bound.handler.location(),
            concurrency = context.slots.size(),
            lease = ?context.config.lease,
            max_attempts = bound.limits.max_attempts,
            timeout = ?bound.limits.timeout,
            "handler started"
        );
    }
}

/// Looks at the server's clock before the first job.
const CLOCK_LOOKS: usize = 3;
