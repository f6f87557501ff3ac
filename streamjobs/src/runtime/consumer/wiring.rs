//! From a plan to a queue with its loops: adds what all queues of a runtime share.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::handler::{ConsumerIdentity, States};
use crate::insight::metrics::QueueMetrics;
use crate::insight::view::SlotSet;
use crate::model::config::{Retention, RuntimeConfig, SetMembership};
use crate::model::name::{ConsumerName, StreamName};
use crate::model::schedule::Schedule;
use crate::model::trace::span::SpanHook;
use crate::publish::client::Client;
use crate::publish::layouts::Layouts;
use crate::runtime::attempt::{Dispatcher, Executor, Handlers};
use crate::runtime::consumer::queue_wiring::{
    QueueSignals, QueueState, ack_flusher, admission, lease_keeper, limit_places, promoter, reader,
    reaper, settler,
};
use crate::runtime::consumer::{PlannedQueue, QueueHandle, QueueLoops};
use crate::runtime::observe::{
    AlertSubscribers, GroupWatch, HealthProbe, Observers, Outage, QueueContext, QueueMonitor,
    Report, Tally,
};
use crate::runtime::state::{
    Activity, Assignment, Beat, CancelledJobs, Clock, NextDue, OncePerInterval, PayloadBudget,
    Settlement, SharedSlots, Slots, StartGate, StoppedConsumers, StreamUse, TrimBlocker,
};
use crate::runtime::upkeep::{
    CancelWatch, Declarations, Firer, Follows, HeartbeatSender, PauseSwitch, Scheduler, Trimmer,
    WaitingCounts, Watcher, heartbeat_interval,
};
use crate::store::{Queue, ReaderSetup, Store};

/// What all queues of a runtime share.
#[derive(Debug)]
pub(crate) struct Wiring {
    pub(crate) runtime: RuntimeConfig,
    /// Counts for the runtime as a whole.
    pub(crate) tally: Arc<Tally>,
    pub(crate) hooks: Hooks,
    client: Client,
    states: Arc<States>,
    /// The store of the thread that does all of the runtime's input and output.
    store: Arc<dyn Store>,
    payloads: Payloads,
    beat: Beat,
    stopped: Arc<StoppedConsumers>,
    /// One monitor for each queue, shared by the queue's consumers.
    monitors: HashMap<Queue, Arc<QueueMonitor>>,
    /// One state for each stream, shared by the stream's queues.
    streams: HashMap<StreamName, StreamState>,
    /// Those that queues share by weights.
    slot_sets: BTreeMap<&'static str, Arc<SharedSlots>>,
}

/// Hooks of the application, through which it is told what happens.
#[derive(Debug)]
pub(crate) struct Hooks {
    /// Called with each handler's span.
    pub(crate) span: Option<SpanHook>,
    pub(crate) alerts: Arc<AlertSubscribers>,
    /// `None` if the application has no observers.
    pub(crate) observers: Option<Arc<Observers>>,
}

/// What steps with payloads need in addition.
#[derive(Debug)]
struct Payloads {
    store: Arc<dyn Store>,
    /// How many bytes of payloads are on their way to the server at once.
    budget: Arc<PayloadBudget>,
}

/// What the partitions of a consumer's streams share.
#[derive(Debug, Default)]
pub(crate) struct SlotPools {
    slots: HashMap<StreamName, Arc<Slots>>,
    starts: HashMap<StreamName, Arc<StartGate>>,
    metrics: HashMap<StreamName, Arc<QueueMetrics>>,
}

impl SlotPools {
    /// The slots of a queue: those of its stream, if that has several partitions.
    fn slots(&mut self, planned: &PlannedQueue, set: Option<&Arc<SharedSlots>>) -> Arc<Slots> {
        let (count, membership) = (planned.config.concurrency, planned.config.slot_set);
        let share = || Some(set?.share(membership?.weight, count));
        let new = || share().map_or_else(|| Slots::new(count), Slots::of_set);
        match &planned.partition_of {
            Some(stream) => {
                let new = || Arc::new(new().of_partitions());
                Arc::clone(self.slots.entry(stream.clone()).or_insert_with(new))
            }
            None => Arc::new(new()),
        }
    }

    /// What lets the jobs of the group start, on all partitions of a stream.
    fn starts(&mut self, planned: &PlannedQueue, store: &Arc<dyn Store>) -> Arc<StartGate> {
        let whole = planned.whole().clone();
        let queue = Queue { stream: whole.clone(), group: planned.queue.group.clone() };
        let new = || Arc::new(StartGate::new(Arc::clone(store), queue, planned.config.rate));
        Arc::clone(self.starts.entry(whole).or_insert_with(new))
    }

    /// The metrics of a queue: those of its stream, unless partitions are told apart.
    fn metrics(
        &mut self,
        whole: &StreamName,
        queue: &Queue,
        part: Option<u16>,
    ) -> Arc<QueueMetrics> {
        let new = || Arc::new(QueueMetrics::new(whole, &queue.group, part));
        match part {
            Some(_) => new(),
            None => Arc::clone(self.metrics.entry(whole.clone()).or_insert_with(new)),
        }
    }
}

/// What the loops of all queues of one stream share.
#[derive(Clone, Debug, Default)]
struct StreamState {
    /// The turn of the trimmers.
    turn: Arc<OncePerInterval>,
    /// Trimmers to watchers.
    blocker: Arc<TrimBlocker>,
    /// Promoters to schedulers and firers.
    usage: Arc<StreamUse>,
    /// The schedules of the code.
    declared: Arc<Declarations>,
    /// Promoters to executors.
    cancelled: Arc<CancelledJobs>,
    /// Shared by the partitions of a stream.
    waiting: Arc<WaitingCounts>,
}

impl Wiring {
    pub(crate) fn new(
        client: Client,
        states: States,
        runtime: RuntimeConfig,
        planned: &[PlannedQueue],
        mut schedules: HashMap<StreamName, Vec<Schedule>>,
    ) -> Self {
        let mut waiting = HashMap::<&StreamName, Arc<WaitingCounts>>::new();
        let streams = planned.iter().map(|planned| {
            let waiting = Arc::clone(waiting.entry(planned.whole()).or_default());
            (planned.queue.stream.clone(), StreamState { waiting, ..StreamState::default() })
        });
        let mut streams = streams.collect::<HashMap<_, _>>();
        for (stream, state) in &mut streams {
            let schedules = schedules.remove(stream).unwrap_or_default();
            state.declared = Arc::new(Declarations::new(schedules));
        }
        let mut watched = HashSet::new();
        let outage = Arc::<Outage>::default();
        let mut watches = HashMap::<Queue, Arc<GroupWatch>>::new();
        let monitors = planned.iter().map(|planned| {
            let queue = planned.queue.clone();
            let is_first = watched.insert(queue.stream.clone());
            let whole = Queue { stream: planned.whole().clone(), group: queue.group.clone() };
            let new = || Arc::new(watch(&whole, runtime));
            let watch = Arc::clone(watches.entry(whole.clone()).or_insert_with(new));
            (queue, Arc::new(QueueMonitor::new(watch, is_first, Arc::clone(&outage))))
        });
        let monitors = monitors.collect();
        let sets = planned.iter().filter_map(|planned| planned.config.slot_set);
        let sets = sets.map(|SetMembership { set, size, .. }| (set, size));
        let sets = sets.collect::<BTreeMap<_, _>>().into_iter();
        let slot_sets = sets.map(|(set, size)| (set, SharedSlots::new(set, size))).collect();
        Self {
            runtime,
            tally: Arc::default(),
            hooks: Hooks {
                span: None,
                alerts: Arc::new(AlertSubscribers::new(None)),
                observers: None,
            },
            store: client.store().fork(),
            payloads: Payloads {
                store: client.store().fork_for_payloads(),
                budget: Arc::default(),
            },
            beat: Beat::new(Instant::now()),
            client,
            states: Arc::new(states),
            stopped: Arc::default(),
            monitors,
            streams,
            slot_sets,
        }
    }

    /// Of which partitions streams consist.
    pub(crate) fn layouts(&self) -> &Arc<Layouts> {
        self.client.layouts()
    }

    /// How much of each set of shared slots is in use, by their names.
    pub(crate) fn slot_sets(&self) -> Vec<SlotSet> {
        self.slot_sets.values().map(|set| set.seen()).collect()
    }

    /// Wires one queue of a consumer, which counts into `tally` as well. The consumer's queues share
    /// `pools`.
    pub(crate) fn queue(
        &self,
        planned: &PlannedQueue,
        consumer: &ConsumerName,
        tally: &Arc<Tally>,
        pools: &mut SlotPools,
    ) -> (QueueHandle, QueueLoops) {
        let PlannedQueue { queue, partition_of, config, handlers } = planned;
        let number = self.client.layouts().number(&queue.stream);
        let number = number.filter(|_| self.runtime.partition_metrics);
        let metrics = pools.metrics(planned.whole(), queue, number);
        metrics.set_slots(config.concurrency);
        let mut handlers = Handlers::clone(handlers);
        handlers.measure(|event_type| metrics.process(event_type));
        // Every planned queue has a monitor.
        let known = self.monitors.get(queue).cloned();
        let new = || {
            let watch = Arc::new(watch(queue, self.runtime));
            Arc::new(QueueMonitor::new(watch, false, Arc::default()))
        };
        let monitor = known.unwrap_or_else(new);
        let clock = Arc::new(Clock::new(config.lease, Instant::now()));
        let identity = Arc::new(ConsumerIdentity {
            queue: queue.clone(),
            consumer: consumer.clone(),
            clock: Arc::<Clock>::clone(&clock),
            progress: Arc::default(),
            batches: Arc::default(),
        });
        let tallies = [Arc::clone(&self.tally), Arc::clone(tally), Arc::default()];
        let (metrics_here, monitor_here) = (Arc::clone(&metrics), Arc::clone(&monitor));
        let observers = self.hooks.observers.clone();
        let trend = self.runtime.trends.then(Arc::default);
        let named = Arc::clone(&identity);
        let report = Report::new(tallies, metrics_here, monitor_here, named, observers, trend);
        let context = QueueContext {
            identity,
            whole: planned.whole().clone(),
            config: *config,
            types: handlers.types(),
            store: Arc::clone(&self.store),
            payload_store: Arc::clone(&self.payloads.store),
            report,
            done_notes: config.keep_done.map(|_| Arc::default()),
        };
        let set = config.slot_set.and_then(|membership| self.slot_sets.get(membership.set));
        let slots = pools.slots(planned, set);
        let starts = pools.starts(planned, &self.store);
        let shares_slots = partition_of.is_some() || config.slot_set.is_some();
        let stream = self.streams.get(&queue.stream).cloned().unwrap_or_default();
        let cancelled = stream.cancelled;
        let shared = (slots, starts, cancelled);
        let state = QueueState::new(context, metrics, clock, shared, shares_slots, self.beat);
        let signals = QueueSignals::default();
        let handle = self.handle(state.clone(), signals.clone());
        let margin = self.runtime.read_margin;
        // A start that waits for an entry on the server would be lost to other processes.
        let waits_here = shares_slots || config.limit.is_some() || config.rate.is_some();
        let setup = ReaderSetup { margin, waits_here };
        let loops = self.loops(&state, &signals, &handle, handlers, monitor, setup);
        (handle, loops)
    }

    fn handle(
        &self,
        QueueState { context, slots, starts, in_flight, clock, gate, health, cancelled, .. }: QueueState,
        QueueSignals { reap, unblock, .. }: QueueSignals,
    ) -> QueueHandle {
        let pause = PauseSwitch {
            context: Arc::clone(&context),
            gate: Arc::clone(&gate),
            health: Arc::clone(&health),
            starts,
        };
        let cancels = CancelWatch::new(Arc::clone(&context), Arc::clone(&in_flight), cancelled);
        let health = HealthProbe {
            context: Arc::clone(&context),
            read_margin: self.runtime.read_margin,
            loops: health,
            clock,
            gate,
            in_flight: Arc::clone(&in_flight),
        };
        QueueHandle {
            context,
            slots,
            in_flight,
            pause: Arc::new(pause),
            cancels: Arc::new(cancels),
            health: Arc::new(health),
            reap,
            unblock,
            stopped: Arc::clone(&self.stopped),
        }
    }

    fn loops(
        &self,
        state: &QueueState,
        signals: &QueueSignals,
        handle: &QueueHandle,
        handlers: Handlers,
        monitor: Arc<QueueMonitor>,
        setup: ReaderSetup,
    ) -> QueueLoops {
        // A batch carries slots, so neither channel holds more jobs than there are slots. Both receivers do nothing
        // but receive and start work. A channel keeps room for 32 messages from its creation on, so the messages are
        // small.
        let (assign, assignments) = mpsc::channel(BATCHES_MAX);
        let (settle, settlements) = mpsc::channel(SETTLEMENTS_MAX);
        let promote_interval = self.runtime.promote_interval;
        let (state, signals) = (|| state.clone(), || signals.clone());
        let admission = Arc::new(admission(state(), signals(), assign));
        let stream = &handle.context.queue().stream;
        let retention = self.client.retention(stream);
        let shared = self.streams.get(stream).cloned().unwrap_or_default();
        let StreamState { turn, blocker, usage, waiting, declared, .. } = shared;
        let (pause, cancels) = (Arc::clone(&handle.pause), Arc::clone(&handle.cancels));
        let places = Arc::new(limit_places(state(), signals()));
        let budget = Arc::clone(&self.payloads.budget);
        QueueLoops {
            reader: reader(state(), signals(), Arc::clone(&admission), setup),
            reaper: reaper(state(), signals(), admission),
            lease_keeper: lease_keeper(state(), signals()),
            heartbeat: self.heartbeat(state()),
            dispatcher: self.dispatcher(state(), signals().next_due, handlers, assignments, settle),
            settler: settler(state(), signals(), budget, settlements, Arc::clone(&places)),
            ack_flusher: ack_flusher(state(), signals(), Arc::clone(&places)),
            promoter: promoter(
                state(),
                signals(),
                Arc::clone(&usage),
                Follows { pause, cancels, places },
                promote_interval,
            ),
            scheduler: Scheduler {
                context: Arc::clone(&handle.context),
                retention,
                usage: Arc::clone(&usage.scheduled),
                beat: self.beat,
                waiting,
                cursor: 0,
            },
            firer: Firer {
                context: Arc::clone(&handle.context),
                retention,
                usage: Arc::clone(&usage.schedules),
                beat: self.beat,
                declared,
            },
            watcher: self.watcher(handle, state().activity, monitor, Arc::clone(&blocker)),
            trimmer: Trimmer {
                context: Arc::clone(&handle.context),
                interval: self.runtime.janitor_interval,
                retention,
                dead_letters_max: self.runtime.dead_letters_max,
                activity: state().activity,
                turn,
                blocker,
            },
        }
    }

    fn dispatcher(
        &self,
        QueueState { context, starts, in_flight, clock, acks, cancelled, .. }: QueueState,
        next_due: Arc<NextDue>,
        handlers: Handlers,
        assignments: mpsc::Receiver<Vec<Assignment>>,
        settlements: mpsc::Sender<Box<Settlement>>,
    ) -> Dispatcher {
        let executor = Executor {
            context,
            handlers,
            states: Arc::clone(&self.states),
            client: self.client.clone(),
            span_hook: self.hooks.span.clone(),
            in_flight,
            clock,
            acks,
            settlements,
            cancelled,
            starts,
            next_due,
        };
        Dispatcher { executor: Arc::new(executor), assignments }
    }

    fn watcher(
        &self,
        handle: &QueueHandle,
        activity: Arc<Activity>,
        monitor: Arc<QueueMonitor>,
        blocker: Arc<TrimBlocker>,
    ) -> Watcher {
        let stream = &handle.context.queue().stream;
        Watcher {
            context: Arc::clone(&handle.context),
            interval: self.runtime.watch_interval,
            length_max: self.length_max(stream, self.client.retention(stream)),
            activity,
            monitor,
            subscribers: Arc::clone(&self.hooks.alerts),
            health: Arc::clone(&handle.health),
            blocker,
        }
    }

    fn heartbeat(
        &self,
        QueueState { context, clock, activity, in_flight, slots, refused, .. }: QueueState,
    ) -> HeartbeatSender {
        let interval = heartbeat_interval(context.config.lease, self.runtime.janitor_interval);
        let stopped = Arc::clone(&self.stopped);
        HeartbeatSender { context, interval, clock, activity, in_flight, slots, refused, stopped }
    }

    /// The length from which on a stream is too long: as the alert rules say, or twice the history of all its
    /// partitions.
    fn length_max(&self, partition: &StreamName, retention: Retention) -> Option<u64> {
        let layouts = self.client.layouts();
        let partitions = layouts.count(layouts.whole(partition));
        let history = match retention {
            Retention::History(entries) => {
                Some(entries.get().saturating_mul(2).saturating_mul(partitions.into()))
            }
            _ => None,
        };
        self.runtime.alerts.stream_length.or(history)
    }
}

/// What watches a group on a whole stream.
fn watch(whole: &Queue, runtime: RuntimeConfig) -> GroupWatch {
    GroupWatch::new(whole.stream.clone(), &whole.group, runtime.alerts)
}

/// The most batches on their way to the dispatcher.
const BATCHES_MAX: usize = 16;
/// The most verdicts on their way to the settler.
const SETTLEMENTS_MAX: usize = 256;
