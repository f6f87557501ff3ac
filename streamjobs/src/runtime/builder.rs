//! Settings of a runtime, and its start.

use std::collections::HashSet;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tracing::Span;

use crate::handler::middleware::{Layer, Middleware};
use crate::handler::registry;
use crate::handler::service::Service;
use crate::handler::{HandlerDef, States};
use crate::insight::alert::Alert;
use crate::insight::metrics;
use crate::model::config::{AlertRules, GroupOptions};
use crate::model::error::StartError;
use crate::model::schedule::Schedule;
use crate::model::trace::TraceContext;
use crate::model::trace::span::SpanHook;
use crate::publish::client::Client;
use crate::runtime::consumer::{
    ConsumerSet, Hooks, IoThread, Plan, PlannedQueue, RuntimeSpec, Services, TokioHandles, Wiring,
    plan, schedules,
};
use crate::runtime::observe::{AlertHook, AlertSubscribers, Observation, ObserverHook, Observers};
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
    observers: Vec<ObserverHook>,
}

impl Runtime {
    /// Settings for a runtime on this client's server.
    pub fn builder(client: &Client) -> RuntimeBuilder {
        RuntimeBuilder {
            client: client.clone(),
            states: States::default(),
            spec: RuntimeSpec { layouts: Arc::clone(client.layouts()), ..RuntimeSpec::default() },
            services: Vec::new(),
            consumer_prefix: None,
            on_process_span: None,
            on_alert: None,
            observers: Vec::new(),
        }
    }
}

impl RuntimeBuilder {
    /// Gives handlers a state, which they take as `State<T>`. There is one state of each type: a second state of the
    /// type replaces the first.
    pub fn state<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.states.insert(value);
        self
    }

    /// Runs a service of the application beside the consumers, from the start to the shutdown; see
    /// [`Service`]. None by default. Several calls add several services.
    ///
    /// A process that runs only services lists no handlers: `.handlers([])`.
    pub fn service(mut self, service: impl Service) -> Self {
        self.services.push(Arc::new(service));
        self.spec.services = true;
        self
    }

    /// Runs these handlers, listed with [`handlers!`](crate::handlers), instead of every
    /// `#[handler]` that was linked into the program. Several calls add to the list.
    pub fn handlers(mut self, handlers: impl IntoIterator<Item = HandlerDef>) -> Self {
        self.spec.listed.get_or_insert_default().extend(handlers);
        self
    }

    /// Declares a schedule in code. This process, and every other process that declares the same, publishes its
    /// occurrences to a stream for which the process has a handler. Calls add up. None by default, except those of
    /// `#[handler]` attributes.
    ///
    /// Where processes declare different definitions, the definition of the process that started last is used, and
    /// processes with another definition do not fire the schedule. Ten minutes after the last process with that
    /// definition has gone, another definition takes over. A schedule that you delete from the code needs no removal:
    /// no process fires it any more. See `docs/schedules.md`.
    ///
    /// ```no_run
    /// # async fn example(client: streamjobs::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use streamjobs::Runtime;
    /// use streamjobs::schedule::Schedule;
    ///
    /// let nightly = Schedule::cron("nightly", "30 2 * * *")?.zone("Europe/Berlin")?;
    /// let runtime = Runtime::builder(&client).schedule(nightly).start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.spec.schedules.push(schedule);
        self
    }

    /// Runs only the handlers of these groups, so that each deployment can be a pool of its own.
    /// All groups by default.
    pub fn only_groups<G: Into<String>>(mut self, groups: impl IntoIterator<Item = G>) -> Self {
        self.spec.only = Some(groups.into_iter().map(Into::into).collect::<HashSet<_>>());
        self
    }

    /// Settings of all groups where neither a handler's attribute nor [`group_defaults`](Self::group_defaults) sets a
    /// value. None by default; without them, the built-in values of [`GroupOptions`] apply.
    ///
    /// A setting gets the first value found in this order: [`group`](Self::group), the attribute, `group_defaults`,
    /// `defaults`, the built-in value. [`plan`](Self::plan) shows where each value comes from.
    ///
    /// ```no_run
    /// # async fn example(client: streamjobs::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::num::NonZeroU32;
    /// use std::time::Duration;
    /// use streamjobs::Runtime;
    /// use streamjobs::config::GroupOptions;
    ///
    /// let slow = GroupOptions::new().timeout(Duration::from_secs(600));
    /// let builder = Runtime::builder(&client)
    ///     .defaults(GroupOptions::new().max_attempts(NonZeroU32::new(20).ok_or("zero")?))
    ///     .group_defaults("exports", slow);
    /// print!("{}", builder.plan()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn defaults(mut self, options: GroupOptions) -> Self {
        self.spec.defaults = options;
        self
    }

    /// Settings of one group where its handlers' attributes set no value. They take precedence over
    /// [`defaults`](Self::defaults).
    pub fn group_defaults(mut self, group: impl Into<String>, options: GroupOptions) -> Self {
        self.spec.group_defaults.insert(group.into(), options);
        self
    }

    /// The settings with which the runtime would start, and where each comes from. Nothing is sent.
    ///
    /// # Errors
    ///
    /// When settings or handlers cannot be used, as for [`start`](Self::start).
    pub fn plan(&self) -> Result<Plan, StartError> {
        let linked = registry::linked();
        plan(&self.spec, &linked, &self.states)?;
        Ok(Plan::new(&self.spec, &linked))
    }

    /// Settings of one group, which override those in its handlers' attributes.
    pub fn group(mut self, group: impl Into<String>, options: GroupOptions) -> Self {
        self.spec.groups.insert(group.into(), options);
        self
    }

    /// Slots that several groups or streams of this process share, each of them named in `slots` of the
    /// attribute or in [`GroupOptions::slots`]: 1 to 100,000. Calls with other names add up; none by default.
    ///
    /// While several have work, they start jobs in proportion to their weights, so that urgent work has most
    /// starts and the rest at least one in a round. A stream without work lends its share. A start waits for the next
    /// slot that becomes free: running jobs are not interrupted. Each process has the set for itself; a limit
    /// over all processes is [`concurrency_total`](GroupOptions::concurrency_total). See `docs/weights.md`.
    ///
    /// The start is refused when the name is used by no group, or a group names slots that the builder does not have.
    ///
    /// ```no_run
    /// # async fn example(client: streamjobs::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::num::NonZeroU32;
    /// use streamjobs::Runtime;
    ///
    /// // For handlers with `slots = "mail"`, such as `#[handler(group = "urgent", slots = "mail", weight = 5)]`.
    /// let slots = NonZeroU32::new(20).ok_or("zero")?;
    /// let runtime = Runtime::builder(&client).shared_slots("mail", slots).start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn shared_slots(mut self, name: &'static str, slots: NonZeroU32) -> Self {
        self.spec.slot_sets.add(name, slots);
        self
    }

    /// Runs this middleware around every job of this runtime. Calls add up: the first is outermost. None by default;
    /// without any, this costs nothing.
    ///
    /// See [`Middleware`] for what it may do, and `docs/middleware.md` for examples.
    pub fn around(mut self, middleware: impl Middleware) -> Self {
        self.spec.around.all.push(Layer::new(middleware));
        self
    }

    /// Runs this middleware around every job of one group, inside that of the runtime. Several calls nest: the first
    /// is outermost.
    pub fn around_group(mut self, group: impl Into<String>, middleware: impl Middleware) -> Self {
        self.spec.around.groups.entry(group.into()).or_default().push(Layer::new(middleware));
        self
    }

    /// Reads these streams for every handler of `stream`, instead of that stream itself: for example one stream for
    /// each tenant. Each stream has slots of its own.
    pub fn read_keys<K: Into<String>>(
        mut self,
        stream: impl Into<String>,
        keys: impl IntoIterator<Item = K>,
    ) -> Self {
        self.spec.keys.insert(stream.into(), keys.into_iter().map(Into::into).collect());
        self
    }

    /// The first part of the names of this process' consumers on the server: `streamjobs` and the
    /// process id by default. Random bits follow it and make each name unique.
    pub fn consumer_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.consumer_prefix = Some(prefix.into());
        self
    }

    /// How long a read waits for entries: 3 s by default, and at most a third of the group's lease. Readers that
    /// share connections wait in the process and ask the server again after this time, or after half a second for
    /// each reader of the runtime if that is longer. Other readers wait on the server. There, a short wait costs more
    /// round trips while there is no work. A long wait costs nothing where `CLIENT UNBLOCK` is permitted; elsewhere
    /// it delays a pause or a shutdown.
    pub fn block(mut self, block: Duration) -> Self {
        self.spec.runtime.block = block;
        self
    }

    /// How long after the block time an answer may arrive before the read connection is closed: 2 s by default, at
    /// least 100 ms. With a short margin, a slow network counts as a dead network.
    pub fn read_margin(mut self, margin: Duration) -> Self {
        self.spec.runtime.read_margin = margin;
        self
    }

    /// How long a shutdown waits for running jobs: 25 s by default. Jobs that run longer are
    /// cancelled and released.
    ///
    /// A shutdown can take longer than this. If the server answers, cancelled handlers are dropped within 1 s more. If
    /// a handler never yields to its executor, the shutdown ends within 16 s more. While the server does not
    /// answer, ending the reads needs up to 7 s more. Services then have 5 s to end. Whatever stops the process has a
    /// deadline, such as Kubernetes' `terminationGracePeriodSeconds`, which has to be longer than all of that. If the
    /// grace is longer than the deadline, the process is killed, and its jobs wait for their leases to end.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.spec.runtime.grace = grace;
        self
    }

    /// How often each group asks the server for due retries, redriven dead letters, released entries and pauses: every
    /// 500 ms by default. Retries that this process scheduled are promoted when they are due, without waiting for the
    /// interval.
    ///
    /// A group is idle when, for the time of a lease, no job was delivered to this process, and no answer showed a job
    /// pending, waiting or scheduled for retry in any process. For an idle group the interval is six times as long,
    /// but at most a third of the lease: a pause or a redrive by another process then takes effect later. New events
    /// are read at once all the same.
    pub fn promote_interval(mut self, interval: Duration) -> Self {
        self.spec.runtime.promote_interval = interval;
        self
    }

    /// How often streams are trimmed to their retention and dead consumers are removed: every 10 s by default, and a
    /// sixth as often for an [idle](Self::promote_interval) group.
    pub fn janitor_interval(mut self, interval: Duration) -> Self {
        self.spec.runtime.janitor_interval = interval;
        self
    }

    /// How often the figures of each group are read for gauges and alerts: 5 s by default, and for an
    /// [idle](Self::promote_interval) group a sixth as often. Each reading is one short script on the server, for
    /// each group of this process on each stream.
    pub fn watch_interval(mut self, interval: Duration) -> Self {
        self.spec.runtime.watch_interval = interval;
        self
    }

    /// Whether the metrics of a stream with [partitions](crate::ClientBuilder::partitions) have a label `partition`
    /// with the number of the partition. By default they describe the whole stream. With the label, each partition
    /// has as many series as the whole stream has without it, and `streamjobs_slots` shows for each partition the
    /// slots that all of them share.
    pub fn partition_metrics(mut self, apart: bool) -> Self {
        self.spec.runtime.partition_metrics = apart;
        self
    }

    /// Whether this process notes what its groups do, for the charts of 6 hours and of 7 days that
    /// [`Group::trend`](crate::stream::Group::trend) reads: true by default. While a group has something to note,
    /// that takes one short script every 15 s, for each group of this process on each stream; nothing is sent for an
    /// idle group. On the server, the notes of a group that always works take about 280 KB; on a stream with
    /// partitions, they take as much for each partition.
    pub fn trends(mut self, noted: bool) -> Self {
        self.spec.runtime.trends = noted;
        self
    }

    /// About how many dead letters each group keeps: the oldest are deleted first. By default all are
    /// kept.
    pub fn dead_letters_max(mut self, letters: NonZeroU64) -> Self {
        self.spec.runtime.dead_letters_max = Some(letters);
        self
    }

    /// The thresholds of alerts; see [`AlertRules`] for the defaults.
    pub fn alerts(mut self, rules: AlertRules) -> Self {
        self.spec.runtime.alerts = rules;
        self
    }

    /// Called with every alert that begins or ends; [`Runtime::alerts`] gives them as well. An
    /// alert about the server's figures is raised in every process of the group; an alert about
    /// events, only in the process where they happened.
    ///
    /// The hook runs on the runtime's own thread, where leases are renewed, and must not block. A panic in it is
    /// caught.
    pub fn on_alert(mut self, hook: impl Fn(&Alert) + Send + Sync + 'static) -> Self {
        self.on_alert = Some(Arc::new(hook));
        self
    }

    /// Called with what became of each attempt, after the server has confirmed it: for an error tracker, an audit or
    /// figures of your own. Calls add up. None by default; without any, this costs nothing.
    ///
    /// Observers are called one after the other, on the application's executor. Observations come in the order in
    /// which the server confirmed them. So when an answer was late, the next attempt may start before observers are
    /// told how the previous attempt ended. Observers never delay a job: up to 8,192 observations wait for them;
    /// those that do not fit are dropped, and counted as
    /// [`observations_dropped`](crate::runtime::Counters::observations_dropped). A panic is caught, and counted as
    /// [`observer_panics`](crate::runtime::Counters::observer_panics). A shutdown passes on the observations that
    /// still wait, for at most 5 seconds.
    ///
    /// ```no_run
    /// # async fn example(client: streamjobs::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use streamjobs::Runtime;
    ///
    /// let runtime = Runtime::builder(&client)
    ///     .observe(|seen| {
    ///         if let Some(error) = seen.error() {
    ///             eprintln!("{} {} attempt {}: {error}", seen.group(), seen.event_id(), seen.attempt());
    ///         }
    ///     })
    ///     .start()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Delivery
    ///
    /// Each process observes its own attempts, each at most once. An attempt whose process died is not observed; a
    /// job that ran twice is observed twice.
    pub fn observe(mut self, observer: impl Fn(&Observation) + Send + Sync + 'static) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// Called with the `process` span of each attempt whose event came with a [`TraceContext`], before the handler
    /// starts, so that the hook can link the span with the trace. By default, nothing is called. The span has the
    /// level debug; where no subscriber enables it, the hook gets the `job` span instead.
    ///
    /// OpenTelemetry's conventions ask for a link, not a parent: a job may start hours after it was published, and
    /// several times. With `tracing-opentelemetry` this is one line, in which `remote` builds a `SpanContext` from the
    /// ids; `docs/tracing.md` shows all of it:
    ///
    /// ```text
    /// .on_process_span(|span, context| span.add_link(remote(context)))
    /// ```
    ///
    /// A panic in the hook is a failure of the attempt.
    pub fn on_process_span(
        mut self,
        hook: impl Fn(&Span, &TraceContext) + Send + Sync + 'static,
    ) -> Self {
        self.on_process_span = Some(SpanHook(Arc::new(hook)));
        self
    }

    /// Starts the runtime: handlers and services run on the caller's Tokio runtime, everything else on
    /// a thread of its own.
    ///
    /// Metrics go to the recorder of the `metrics` crate that is installed at this moment. A recorder that is
    /// installed later gets no metrics of this runtime.
    ///
    /// # Errors
    ///
    /// When settings or handlers cannot be used (all faults are listed), a service cannot run, or
    /// the server cannot be reached or refuses a group.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops what was started.
    pub async fn start(self) -> Result<Runtime, StartError> {
        let linked = registry::linked();
        let planned = plan(&self.spec, &linked, &self.states)?;
        let bytes_max = self.client.payload_bytes_max();
        let shown = Plan::new(&self.spec, &linked);
        let schedules = schedules(&self.spec, &linked, &planned, bytes_max)?;
        let queue =
            |planned: &PlannedQueue| planned.served(self.client.retention(&planned.queue.stream));
        // A whole stream is served once: its first partition has the stream's name.
        let wholes = planned.iter().filter(|planned| planned.queue.stream == *planned.whole());
        let queues = wholes.map(queue).collect();
        let services = Services::new(self.services, self.client.clone(), queues);
        // First, so that a refusal leaves nothing on the server and nothing running.
        services.prepare().await?;
        let inline = self.client.is_in_memory();
        let io = if inline { IoThread::inline() } else { IoThread::start()? };
        let handles = TokioHandles { io: io.handle.clone(), app: Handle::current() };
        metrics::describe();
        let process = || format!("streamjobs-{}", std::process::id());
        let prefix = self.consumer_prefix.unwrap_or_else(process);
        let mut wiring =
            Wiring::new(self.client, self.states, self.spec.runtime, &planned, schedules);
        wiring.hooks = Hooks {
            span: self.on_process_span,
            alerts: Arc::new(AlertSubscribers::new(self.on_alert)),
            observers: Observers::start(self.observers, &wiring.tally, &Handle::current()),
        };
        let consumers = ConsumerSet::new(wiring, handles, prefix, planned);
        let first = consumers.start().await?;
        services.start(&consumers.wiring.tally, &Handle::current());
        Ok(Runtime { consumers: Arc::new(consumers), services, first, plan: shown, _io: io })
    }
}

impl fmt::Debug for RuntimeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeBuilder").field("spec", &self.spec).finish_non_exhaustive()
    }
}
