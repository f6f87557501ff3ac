//! Settings of a runtime, and its start.

use std::collections::HashSet;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tracing::Span;

use crate::handler::registry;
use crate::handler::service::Service;
use crate::handler::{HandlerDef, States};
use crate::insight::alert::Alert;
use crate::insight::metrics;
use crate::model::config::{AlertRules, GroupOptions};
use crate::model::error::StartError;
use crate::model::trace::TraceContext;
use crate::model::trace::span::SpanHook;
use crate::publish::client::Client;
use crate::runtime::consumer::consumer_set::ConsumerSet;
use crate::runtime::consumer::io_thread::IoThread;
use crate::runtime::consumer::plan::{PlannedQueue, RuntimeSpec, plan};
use crate::runtime::consumer::queue_loops::Executors;
use crate::runtime::consumer::services::Services;
use crate::runtime::consumer::wiring::Wiring;
use crate::runtime::observe::alert_subscribers::AlertHook;
use crate::runtime::running::Runtime;

/// Settings of a [`Runtime`]; every one has a default.
#[must_use = "a builder does nothing until it is started"]
pub struct RuntimeBuilder {
    client: Client,
    states: States,
    spec: RuntimeSpec,
    services: Vec<Arc<dyn Service>>,
    consumer_prefix: Option<String>,
    on_process_span: Option<SpanHook>,
    on_alert: Option<AlertHook>,
}

impl Runtime {
    /// Settings for a runtime on this client's server.
    pub fn builder(client: &Client) -> RuntimeBuilder {
        RuntimeBuilder::new(client.clone())
    }
}

impl RuntimeBuilder {
    fn new(client: Client) -> Self {
        Self {
            client,
            states: States::default(),
            spec: RuntimeSpec::default(),
            services: Vec::new(),
            consumer_prefix: None,
            on_process_span: None,
            on_alert: None,
        }
    }

    /// Gives handlers a state, which they take as `State<T>`. One for each type; the last counts.
    pub fn state<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.states.insert(value);
        self
    }

    /// Runs something of the application's beside the consumers, from the start to the stop; see
    /// [`Service`]. None by default. Calls add up.
    ///
    /// A process that runs services alone says so with an empty list: `.handlers([])`.
    pub fn service(mut self, service: impl Service) -> Self {
        self.services.push(Arc::new(service));
        self.spec.services = true;
        self
    }

    /// Runs these handlers, listed with [`handlers!`](crate::handlers), instead of every
    /// `#[handler]` that was linked into the program. Calls add up.
    pub fn handlers(mut self, handlers: impl IntoIterator<Item = HandlerDef>) -> Self {
        self.spec.listed.get_or_insert_default().extend(handlers);
        self
    }

    /// Runs only the handlers of these groups, so that each deployment can be a pool of its own.
    /// All groups by default.
    pub fn only_groups<G: Into<String>>(mut self, groups: impl IntoIterator<Item = G>) -> Self {
        self.spec.only = Some(groups.into_iter().map(Into::into).collect::<HashSet<_>>());
        self
    }

    /// Settings of one group that stand above those in its handlers' attributes.
    pub fn group(mut self, group: impl Into<String>, options: GroupOptions) -> Self {
        self.spec.groups.insert(group.into(), options);
        self
    }

    /// Reads these streams for every handler of `stream`, instead of that stream itself: one for
    /// each tenant or partition. Each gets its own connection and slots.
    pub fn read_keys<K: Into<String>>(
        mut self,
        stream: impl Into<String>,
        keys: impl IntoIterator<Item = K>,
    ) -> Self {
        self.spec.keys.insert(stream.into(), keys.into_iter().map(Into::into).collect());
        self
    }

    /// The first part of the names of this process' consumers on the server; `streamjobs` and the
    /// process id by default. Random bits follow, so that no two consumers ever share a name.
    pub fn consumer_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.consumer_prefix = Some(prefix.into());
        self
    }

    /// How long a read waits on the server for work: 3 s by default, and never longer than a third
    /// of the group's lease. Short waits cost idle round trips; long ones nothing but a slower look
    /// at changed circumstances.
    pub fn block(mut self, block: Duration) -> Self {
        self.spec.runtime.block = block;
        self
    }

    /// How long after the block time an answer may take before the reading connection is given up:
    /// 2 s by default, at least 100 ms. A short margin takes slow networks for dead ones.
    pub fn read_margin(mut self, margin: Duration) -> Self {
        self.spec.runtime.read_margin = margin;
        self
    }

    /// How long a shutdown waits for running jobs: 25 s by default. What runs longer is told to
    /// stop and handed back.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.spec.runtime.grace = grace;
        self
    }

    /// How often a group looks for jobs whose back-off is over, for redriven and handed back ones, and
    /// for a pause: 500 ms by default. Jobs that this process set aside come back when they are due,
    /// without waiting for a look.
    ///
    /// A group is quiet when this process was given no job of it for a lease, and has found none
    /// pending, waiting or set aside in any process when it looked. A quiet group is looked at a
    /// sixth as often, yet every third of the lease: then a pause or a redrive from elsewhere takes
    /// up to six times as long. New events are not looked for and are read at once.
    pub fn promote_interval(mut self, interval: Duration) -> Self {
        self.spec.runtime.promote_interval = interval;
        self
    }

    /// How often streams are trimmed to their retention and dead consumers are looked for: 10 s by
    /// default, and for a quiet group a sixth as often.
    pub fn janitor_interval(mut self, interval: Duration) -> Self {
        self.spec.runtime.janitor_interval = interval;
        self
    }

    /// How often each group is looked at for gauges and alerts: 5 s by default, and a sixth as often
    /// while it is [quiet](Self::promote_interval). A look is one short script on the server, for each
    /// group of this process on each stream.
    pub fn watch_interval(mut self, interval: Duration) -> Self {
        self.spec.runtime.watch_interval = interval;
        self
    }

    /// How many dead letters each group keeps, about: the oldest go first. All of them by default:
    /// nothing is deleted.
    pub fn dead_letters_max(mut self, letters: NonZeroU64) -> Self {
        self.spec.runtime.dead_letters_max = Some(letters);
        self
    }

    /// From where on somebody is told; see [`AlertRules`] for the defaults.
    pub fn alerts(mut self, rules: AlertRules) -> Self {
        self.spec.runtime.alerts = rules;
        self
    }

    /// Called with every alert that begins or ends; [`Runtime::alerts`] gives them as well. Every
    /// process of a group tells what the server says of it; what happens is told where it happened.
    ///
    /// It is called on the runtime's own thread and must not block: leases are renewed there. A
    /// panic in it is caught.
    pub fn on_alert(mut self, tell: impl Fn(&Alert) + Send + Sync + 'static) -> Self {
        self.on_alert = Some(Arc::new(tell));
        self
    }

    /// Called with the `process` span of each attempt whose event came with a
    /// [`TraceContext`], before the handler starts: the place to link the two. Nothing by default.
    ///
    /// A link, not a parent, is what OpenTelemetry's conventions ask for: a job may start hours
    /// after it was published, and several times. With `tracing-opentelemetry` it is one line, in
    /// which `remote` makes a `SpanContext` of the ids; `docs/tracing.md` has it whole:
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
        self.on_process_span = Some(SpanHook(Arc::new(tell)));
        self
    }

    /// Starts the runtime: handlers and services run on the present Tokio runtime, everything else on
    /// a thread of its own.
    ///
    /// Metrics go to the recorder of the `metrics` crate that is installed by now; one that is
    /// installed later hears nothing of this runtime.
    ///
    /// # Errors
    ///
    /// When settings or handlers cannot be used (all faults at once), a service cannot run, or the
    /// server cannot be reached or refuses a group.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops what was started.
    pub async fn start(self) -> Result<Runtime, StartError> {
        let planned = plan(&self.spec, registry::linked(), &self.states)?;
        let queue =
            |planned: &PlannedQueue| planned.served(self.client.retention(&planned.queue.stream));
        let queues = planned.iter().map(queue).collect();
        let services = Services::new(self.services, self.client.clone(), queues);
        // Nothing is on the server yet, and nothing runs, when one of them refuses.
        services.prepare().await?;
        let inline = self.client.is_in_memory();
        let io = if inline { IoThread::inline() } else { IoThread::start()? };
        let executors = Executors { io: io.handle().clone(), app: Handle::current() };
        metrics::describe();
        let process = || format!("streamjobs-{}", std::process::id());
        let prefix = self.consumer_prefix.unwrap_or_else(process);
        let wiring = Wiring::new(self.client, self.states, self.spec.runtime, &planned)
            .on_process_span(self.on_process_span)
            .on_alert(self.on_alert);
        let consumers = ConsumerSet::new(wiring, executors, prefix, planned);
        let first = consumers.start().await?;
        services.start(&consumers.wiring().tally, &Handle::current());
        Ok(Runtime::new(io, first, consumers, services))
    }
}

impl fmt::Debug for RuntimeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeBuilder").field("spec", &self.spec).finish_non_exhaustive()
    }
}
