//! Settings of a runtime, and its start.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tracing::{Span, info};

use crate::cause::BoxError;
use crate::client::Client;
use crate::config::GroupOptions;
use crate::error::StartError;
use crate::handler::{HandlerDef, Place, States};
use crate::metrics::{self, QueueMetrics};
use crate::name::ConsumerName;
use crate::registry;
use crate::runtime::Runtime;
use crate::runtime::acks::Acks;
use crate::runtime::clock::Clock;
use crate::runtime::health::LoopHealth;
use crate::runtime::held::Held;
use crate::runtime::io::Io;
use crate::runtime::plan::{PlannedQueue, Wishes, plan};
use crate::runtime::queue::QueueContext;
use crate::runtime::report::{Report, Tally};
use crate::runtime::wake::Wake;
use crate::store::Store;
use crate::trace::TraceContext;
use crate::trace::span::Telling;

/// Settings of a [`Runtime`]; every one has a default.
#[must_use = "a builder does nothing until it is started"]
pub struct RuntimeBuilder {
    client: Client,
    states: States,
    wishes: Wishes,
    consumer_prefix: Option<String>,
    on_process_span: Option<Telling>,
}

impl RuntimeBuilder {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            states: States::default(),
            wishes: Wishes::default(),
            consumer_prefix: None,
            on_process_span: None,
        }
    }

    /// Gives handlers a state, which they take as `State<T>`. One for each type; the last counts.
    pub fn state<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.states.insert(value);
        self
    }

    /// Runs these handlers, listed with [`handlers!`](crate::handlers), instead of every
    /// `#[handler]` that was linked into the program. Calls add up.
    pub fn handlers(mut self, handlers: impl IntoIterator<Item = HandlerDef>) -> Self {
        self.wishes.listed.get_or_insert_default().extend(handlers);
        self
    }

    /// Runs only the handlers of these groups, so that each deployment can be a pool of its own.
    /// All groups by default.
    pub fn only_groups<G: Into<String>>(mut self, groups: impl IntoIterator<Item = G>) -> Self {
        self.wishes.only = Some(groups.into_iter().map(Into::into).collect::<HashSet<_>>());
        self
    }

    /// Settings of one group that stand above those in its handlers' attributes.
    pub fn group(mut self, group: impl Into<String>, options: GroupOptions) -> Self {
        self.wishes.groups.insert(group.into(), options);
        self
    }

    /// Reads these streams for every handler of `stream`, instead of that stream itself: one for
    /// each tenant or partition. Each gets its own connection and slots.
    pub fn read_keys<K: Into<String>>(
        mut self,
        stream: impl Into<String>,
        keys: impl IntoIterator<Item = K>,
    ) -> Self {
        self.wishes.keys.insert(stream.into(), keys.into_iter().map(Into::into).collect());
        self
    }

    /// The first part of this process run's name on the server; `streamjobs` and the process id by
    /// default. Random bits follow, so that no two runs ever share a name.
    pub fn consumer_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.consumer_prefix = Some(prefix.into());
        self
    }

    /// How long a read waits on the server for work: 2 s by default, and never longer than a third
    /// of the group's lease. Short waits cost idle round trips; long ones nothing but a slower look
    /// at changed circumstances.
    pub fn block(mut self, block: Duration) -> Self {
        self.wishes.runtime.block = block;
        self
    }

    /// How long after the block time an answer may take before the reading connection is given up:
    /// 2 s by default, at least 100 ms. A short margin takes slow networks for dead ones.
    pub fn read_margin(mut self, margin: Duration) -> Self {
        self.wishes.runtime.read_margin = margin;
        self
    }

    /// How long a shutdown waits for running jobs: 25 s by default. What runs longer is told to
    /// stop and handed back.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.wishes.runtime.grace = grace;
        self
    }

    /// How often a group looks for jobs whose back-off is over: 500 ms by default.
    pub fn promote_interval(mut self, interval: Duration) -> Self {
        self.wishes.runtime.promote_interval = interval;
        self
    }

    /// How often streams are trimmed to their retention and dead consumers are looked for: 10 s by
    /// default.
    pub fn janitor_interval(mut self, interval: Duration) -> Self {
        self.wishes.runtime.janitor_interval = interval;
        self
    }

    /// Called with the `process` span of each attempt whose event came with a
    /// [`TraceContext`], before the handler starts: the place to link the two. Nothing by default.
    ///
    /// A link, not a parent, is what OpenTelemetry's conventions ask for: a job may start hours after
    /// it was published, and several times. With `tracing-opentelemetry` it is one line, in which
    /// `remote` makes a `SpanContext` of the ids; `docs/tracing.md` has it whole:
    ///
    /// ```text
    /// .on_process_span(|span, context| span.add_link(remote(context)))
    /// ```
    ///
    /// A panic in it is a failure of the attempt.
    pub fn on_process_span(
        mut self,
        tell: impl Fn(&Span, &TraceContext) + Send + Sync + 'static,
    ) -> Self {
        self.on_process_span = Some(Telling(Arc::new(tell)));
        self
    }

    /// Starts the runtime: handlers run on the present Tokio runtime, everything else on a thread
    /// of its own.
    ///
    /// Metrics go to the recorder of the `metrics` crate that is installed by now; one that is
    /// installed later hears nothing of this runtime.
    ///
    /// # Errors
    ///
    /// When settings or handlers cannot be used (all faults at once), or the server cannot be
    /// reached or refuses a group.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops what was started.
    pub async fn start(self) -> Result<Runtime, StartError> {
        let planned = plan(&self.wishes, registry::linked(), &self.states)?;
        let consumer = self.consumer()?;
        let in_memory = self.client.is_in_memory();
        let io = if in_memory { Io::inline() } else { Io::thread()? };
        let store = self.client.store().fork();
        metrics::describe();
        let tally = Arc::new(Tally::default());
        let mut runtime =
            Runtime::new(io, consumer.clone(), Arc::clone(&tally), self.wishes.runtime.grace);
        let wiring = Wiring {
            client: self.client,
            states: Arc::new(self.states),
            store,
            tally,
            consumer,
            wishes: self.wishes,
            on_process_span: self.on_process_span,
        };
        let contexts = wiring.contexts(planned).into_iter().map(Arc::new).collect::<Vec<_>>();
        // Connections belong to the executor that opens them.
        let prepared = contexts.clone();
        let prepare = async move {
            for context in &prepared {
                prepare(context).await?;
            }
            Ok(())
        };
        let prepare = runtime.keeping.spawn_on(prepare, runtime.io.handle());
        prepare.await.map_err(|error| StartError::Thread(error.into()))??;
        for context in contexts {
            log_table(&context);
            runtime.run_queue(context);
        }
        Ok(runtime)
    }

    fn consumer(&self) -> Result<ConsumerName, StartError> {
        let process = || format!("streamjobs-{}", std::process::id());
        let prefix = self.consumer_prefix.clone().unwrap_or_else(process);
        ConsumerName::unique(&prefix).map_err(|error| StartError::Settings(vec![error.to_string()]))
    }
}

impl fmt::Debug for RuntimeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeBuilder").field("wishes", &self.wishes).finish_non_exhaustive()
    }
}

/// What every queue of a runtime gets.
struct Wiring {
    client: Client,
    states: Arc<States>,
    store: Arc<dyn Store>,
    tally: Arc<Tally>,
    consumer: ConsumerName,
    wishes: Wishes,
    on_process_span: Option<Telling>,
}

impl Wiring {
    fn contexts(&self, planned: Vec<PlannedQueue>) -> Vec<QueueContext> {
        let mut trimmed = HashMap::new();
        let mut contexts = Vec::new();
        for PlannedQueue { queue, config, mut handlers } in planned {
            let place = Arc::new(Place {
                stream: queue.stream.clone(),
                group: queue.group.clone(),
                consumer: self.consumer.clone(),
            });
            let trims = trimmed.insert(queue.stream.clone(), ()).is_none();
            let metrics = Arc::new(QueueMetrics::new(&queue.stream, &queue.group));
            metrics.set_slots(config.concurrency);
            handlers.measure(|event_type| metrics.process(event_type));
            let (tally, measured) = (Arc::clone(&self.tally), Arc::clone(&metrics));
            contexts.push(QueueContext {
                report: Report::new(tally, measured, Arc::clone(&place)),
                on_process_span: self.on_process_span.clone(),
                clock: Clock::new(config.lease, Instant::now()),
                slots: Arc::new(Semaphore::new(config.concurrency)),
                runtime: self.wishes.runtime,
                store: Arc::clone(&self.store),
                client: self.client.clone(),
                states: Arc::clone(&self.states),
                held: Held::new(metrics),
                acks: Acks::default(),
                wake: Wake::default(),
                health: LoopHealth::new(),
                suspect: AtomicBool::new(false),
                lane_waits: AtomicBool::new(false),
                sweep_now: Notify::new(),
                renew_now: Notify::new(),
                reaper_wants: AtomicUsize::new(0),
                intake: Semaphore::new(1),
                epoch: AtomicU64::new(0),
                trims,
                queue,
                place,
                config,
                handlers,
            });
        }
        contexts
    }
}

/// Makes the group where it is missing, and learns the server's clock.
async fn prepare(context: &QueueContext) -> Result<(), StartError> {
    let failed = |source: BoxError| StartError::Group {
        stream: context.queue.stream.to_string(),
        group: context.queue.group.to_string(),
        source,
    };
    context
        .store
        .prepare(&context.queue, context.config.start)
        .await
        .map_err(|error| failed(error.into()))?;
    // Any of them may be slow; the quickest counts.
    for _ in 0..CLOCK_LOOKS {
        let sent = Instant::now();
        let now = context.store.now().await.map_err(|error| failed(error.into()))?;
        context.clock.observe(sent, Instant::now(), now);
    }
    Ok(())
}

/// One line for each handler, so that the log of a deployment says what it runs.
fn log_table(context: &QueueContext) {
    let (stream, group) = (&context.queue.stream, &context.queue.group);
    let typed = context.handlers.by_type.iter().map(|(event_type, bound)| (*event_type, bound));
    let mut rows =
        typed.chain(context.handlers.any.iter().map(|bound| ("*", bound))).collect::<Vec<_>>();
    rows.sort_unstable_by_key(|(event_type, _)| *event_type);
    for (event_type, bound) in rows {
        info!(
            %stream, %group, event_type,
            handler = bound.handler.location(),
            concurrency = context.config.concurrency,
            lease = ?context.config.lease,
            max_attempts = bound.limits.max_attempts,
            timeout = ?bound.limits.timeout,
            "handler started"
        );
    }
}

/// Looks at the server's clock before the first job.
const CLOCK_LOOKS: usize = 3;
