//! The plan: which handlers run on which queues, and which faults forbid the start.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::handler::middleware::Layer;
use crate::handler::service::ServedQueue;
use crate::handler::{HandlerDef, Requirements, States};
use crate::model::config::{
    GroupOptions, HandlerOptions, QueueConfig, Retention, RuntimeConfig, SlotSets, limit,
};
use crate::model::error::StartError;
use crate::model::limit::HoldScope;
use crate::model::name::{GroupName, NameError, StreamName};
use crate::model::schedule::Schedule;
use crate::publish::layouts::Layouts;
use crate::runtime::attempt::{BoundHandler, Handlers};
use crate::runtime::consumer::{bind, merged};
use crate::store::Queue;

/// The settings of the builder.
#[derive(Debug, Default)]
pub(crate) struct RuntimeSpec {
    /// Handlers that were listed; `None` means those that were linked into the program.
    pub(crate) listed: Option<Vec<HandlerDef>>,
    /// Only these groups run; `None` means all.
    pub(crate) only: Option<HashSet<String>>,
    /// Settings of groups that override attributes.
    pub(crate) groups: HashMap<String, GroupOptions>,
    /// Settings of groups where an attribute says nothing.
    pub(crate) group_defaults: HashMap<String, GroupOptions>,
    /// Settings of all groups where neither an attribute nor `group_defaults` says anything.
    pub(crate) defaults: GroupOptions,
    pub(crate) around: LayersAround,
    /// Schedules that the builder was given.
    pub(crate) schedules: Vec<Schedule>,
    /// Slots that several groups share.
    pub(crate) slot_sets: SlotSets,
    /// Streams that are read instead of a handler's own.
    pub(crate) keys: HashMap<String, Vec<String>>,
    /// Which partitions each stream consists of.
    pub(crate) layouts: Arc<Layouts>,
    pub(crate) runtime: RuntimeConfig,
    /// There are services beside the consumers.
    pub(crate) services: bool,
}

impl RuntimeSpec {
    /// The handlers that this process runs.
    pub(crate) fn wanted<'a>(
        &'a self,
        linked: &'a [HandlerDef],
    ) -> impl Iterator<Item = HandlerDef> + use<'a> {
        let all = self.listed.as_deref().unwrap_or(linked).iter().copied();
        let only = self.only.as_ref();
        all.filter(move |handler| only.is_none_or(|only| only.contains(handler.group)))
    }

    /// The settings that apply to a group where an attribute says nothing.
    fn fallback(&self, group: &str) -> HandlerOptions {
        let own = self.group_defaults.get(group).copied().unwrap_or_default();
        own.options.or(&self.defaults.options)
    }

    /// The sets of shared slots that handlers name, of groups that do not run here as well: each deployment
    /// of a program may run a part of them.
    fn sets_named(&self, all: &[HandlerDef]) -> Vec<&'static str> {
        let named = all.iter().filter_map(|handler| {
            let over = self.groups.get(handler.group).and_then(|over| over.options.slots);
            over.or(handler.options.slots).or(self.fallback(handler.group).slots)
        });
        named.collect()
    }

    /// The middleware around the handlers of a group.
    pub(crate) fn layers_of(&self, group: &str) -> Vec<Layer> {
        let own = self.around.groups.get(group).into_iter().flatten();
        self.around.all.iter().chain(own).cloned().collect()
    }

    /// The streams that the handlers of `stream` read: by default, only `stream` itself.
    pub(crate) fn keys_of(&self, stream: &str) -> Vec<String> {
        self.keys.get(stream).cloned().unwrap_or_else(|| vec![stream.to_owned()])
    }
}

/// The middleware of the builder, outermost first.
#[derive(Debug, Default)]
pub(crate) struct LayersAround {
    pub(crate) all: Vec<Layer>,
    /// That of single groups.
    pub(crate) groups: HashMap<String, Vec<Layer>>,
}

/// One queue that this process works on.
#[derive(Clone, Debug)]
pub(crate) struct PlannedQueue {
    pub(crate) queue: Queue,
    /// The whole stream, if the queue's stream is one of several partitions of it. These partitions
    /// share the group's slots.
    pub(crate) partition_of: Option<StreamName>,
    pub(crate) config: QueueConfig,
    pub(crate) handlers: Arc<Handlers>,
}

impl PlannedQueue {
    /// The whole stream that the queue's stream is a partition of; it can be the same stream.
    pub(crate) fn whole(&self) -> &StreamName {
        self.partition_of.as_ref().unwrap_or(&self.queue.stream)
    }

    /// The queue, as services see it.
    pub(crate) fn served(&self, retention: Retention) -> ServedQueue {
        let Queue { stream, group } = self.queue.clone();
        let horizon = match retention {
            Retention::MaxAge(age) => Some(age.saturating_add(self.after_the_stream())),
            Retention::History(_)
            | Retention::MaxLen(_)
            | Retention::MaxLenExact(_)
            | Retention::Unlimited => None,
        };
        ServedQueue { stream, group, horizon }
    }

    /// How long a job may go on after its entry has left the stream, as far as settings tell: a
    /// back-off may follow every allowed attempt, each delivery of an attempt may end with a crash,
    /// and a process without the handler may leave the job for a while.
    fn after_the_stream(&self) -> Duration {
        let all = self.handlers.by_type.values().chain(&self.handlers.any);
        let longest = all.map(|BoundHandler { limits, .. }| {
            let crashes = self.config.lease.saturating_mul(limits.max_deliveries);
            let attempt = limits.backoff.longest().saturating_add(crashes);
            let attempt = attempt.saturating_add(limits.timeout.unwrap_or_default());
            attempt.saturating_mul(limits.max_attempts)
        });
        longest.max().unwrap_or_default().saturating_add(self.config.unhandled_after)
    }
}

/// Turns handlers into queues.
///
/// # Errors
///
/// All faults: no handler to run, two handlers for one event type, missing states, settings that
/// contradict each other, invalid names.
pub(crate) fn plan(
    spec: &RuntimeSpec,
    linked: &[HandlerDef],
    states: &States,
) -> Result<Vec<PlannedQueue>, StartError> {
    let all = spec.listed.as_deref().unwrap_or(linked);
    let handlers = spec.wanted(linked).collect::<Vec<_>>();
    let mut faults = Vec::new();
    no_handlers(all, &handlers, spec, &mut faults);
    unknown_names(all, spec, &mut faults);
    for handler in &handlers {
        let mut requirements = Requirements::default();
        (handler.require)(&mut requirements);
        let layers = spec.layers_of(handler.group).into_iter();
        for layer in layers.chain(handler.wrap.map(|wrap| wrap())) {
            layer.require(&mut requirements);
        }
        for state in requirements.missing_from(states) {
            faults.push(format!(
                "{} needs State<{state}>, which the builder was not given",
                handler.location()
            ));
        }
    }
    let mut by_queue = BTreeMap::<(&str, &str), Vec<HandlerDef>>::new();
    for handler in handlers {
        by_queue.entry((handler.stream, handler.group)).or_default().push(handler);
    }
    let mut planned = Vec::new();
    let mut settings = spec.runtime.faults();
    for ((stream, group), handlers) in by_queue {
        let options = spec.groups.get(group).copied().unwrap_or_default();
        let fallback = spec.fallback(group);
        let attribute = merged(&handlers, &mut faults).or(&fallback);
        let place = format!("group {group} on stream {stream}");
        let config = config(spec, (&attribute, &options), &place, &mut settings);
        settings.extend(batch_faults(&handlers, &config));
        for key in spec.keys_of(stream) {
            let Queue { stream, group } = match queue(&key, group) {
                Ok(queue) => queue,
                Err(error) => {
                    faults.push(error.to_string());
                    continue;
                }
            };
            let layers = spec.layers_of(group.as_str());
            let handlers = Arc::new(bind(&handlers, (&options, &fallback), &layers, &mut faults));
            let names = spec.layouts.names(&stream);
            settings.extend(uncountable(&config, names.len()).map(|why| format!("{place}: {why}")));
            let partition_of = (names.len() > 1).then_some(stream);
            planned.extend(names.into_iter().map(|stream| PlannedQueue {
                queue: Queue { stream, group: group.clone() },
                partition_of: partition_of.clone(),
                config,
                handlers: Arc::clone(&handlers),
            }));
        }
    }
    settings.extend(spec.slot_sets.unused(&spec.sets_named(all)));
    faults.sort();
    faults.dedup();
    match (faults.is_empty(), settings.is_empty()) {
        (false, _) => Err(StartError::Handlers(faults)),
        (true, false) => Err(StartError::Settings(settings)),
        (true, true) => Ok(planned),
    }
}

/// The settings of a queue from the attribute of its handlers and the options of its group. What is wrong with
/// them is added to the faults.
fn config(
    spec: &RuntimeSpec,
    (attribute, options): (&HandlerOptions, &GroupOptions),
    place: &str,
    faults: &mut Vec<String>,
) -> QueueConfig {
    let said = options.options.or(attribute);
    let config = QueueConfig::new(attribute, options, spec.runtime.block);
    let config = config.with_slots(&spec.slot_sets, &said);
    faults.extend(config.faults(place));
    faults.extend(spec.slot_sets.faults(place, &said, &config));
    let limit = limit(attribute, options).err();
    faults.extend(limit.map(|fault| format!("{place}: {fault}")));
    config
}

/// Why batches cannot be filled.
fn batch_faults(handlers: &[HandlerDef], config: &QueueConfig) -> Vec<String> {
    let batches = handlers.iter().filter_map(|handler| Some((handler.batch?, handler)));
    batches.flat_map(|(batch, handler)| batch.faults(&handler.location(), config)).collect()
}

/// Why a limit of all jobs of a group cannot be kept.
fn uncountable(config: &QueueConfig, partitions: usize) -> Option<String> {
    let limit = config.limit.filter(|limit| limit.scope == HoldScope::Group)?;
    (partitions > 1).then(|| {
        format!(
            "concurrency_total {} cannot count the jobs of {partitions} partitions",
            limit.limit
        )
    })
}

fn queue(stream: &str, group: &str) -> Result<Queue, NameError> {
    Ok(Queue { stream: StreamName::new(stream)?, group: GroupName::new(group)? })
}

fn no_handlers(
    all: &[HandlerDef],
    handlers: &[HandlerDef],
    spec: &RuntimeSpec,
    faults: &mut Vec<String>,
) {
    // An empty list together with services means that only services run. A program without linked
    // handlers does not mean that, because a forgotten crate looks the same.
    let services_alone = spec.services && spec.listed.as_ref().is_some_and(Vec::is_empty);
    if !handlers.is_empty() || services_alone {
        return;
    }
    faults.push(match (&spec.only, all.is_empty()) {
        (_, true) if spec.listed.is_some() => "the list of handlers is empty".to_owned(),
        (_, true) => {
            "no #[handler] was found in this program. The linker leaves out crates that nothing \
                      mentions: `use your_crate as _;`, or list handlers with `handlers![...]`"
                .to_owned()
        }
        (Some(only), false) => {
            let mut groups = only.iter().map(String::as_str).collect::<Vec<_>>();
            groups.sort_unstable();
            format!("no handler belongs to the wanted groups: {}", groups.join(", "))
        }
        (None, false) => "no handler is left to run".to_owned(),
    });
}

/// Names in the settings that no handler has are faults.
fn unknown_names(all: &[HandlerDef], spec: &RuntimeSpec, faults: &mut Vec<String>) {
    let groups = all.iter().map(|handler| handler.group).collect::<HashSet<_>>();
    let streams = all.iter().map(|handler| handler.stream).collect::<HashSet<_>>();
    let only = spec.only.iter().flatten();
    let defaults = spec.group_defaults.keys();
    let named = spec.groups.keys().chain(defaults).chain(spec.around.groups.keys()).chain(only);
    for group in named.filter(|group| !groups.contains(group.as_str())) {
        faults.push(format!(
            "no handler belongs to group {group:?}, for which the builder has settings"
        ));
    }
    for (stream, keys) in &spec.keys {
        if !streams.contains(stream.as_str()) {
            faults.push(format!(
                "no handler reads stream {stream:?}, for which the builder has other keys"
            ));
        }
        if keys.is_empty() {
            faults.push(format!("the builder has no keys to read for stream {stream:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroU64};

    use futures_util::FutureExt;

    use super::*;
    use crate::model::backoff::Backoff;
    use crate::model::outcome::Outcome;

    fn handler(
        name: &'static str,
        group: &'static str,
        types: Option<&'static [&'static str]>,
    ) -> HandlerDef {
        HandlerDef {
            name,
            module: "app",
            file: "src/app.rs",
            line: 7,
            group,
            stream: "orders",
            types,
            options: HandlerOptions::default(),
            schedule: None,
            batch: None,
            result: None,
            wrap: None,
            require: |_| {},
            run: |_| async { Outcome::Done }.boxed(),
        }
    }

    fn faults(spec: &RuntimeSpec, handlers: Vec<HandlerDef>) -> String {
        plan(spec, &handlers, &States::default()).unwrap_err().to_string()
    }

    const PLACED: Option<&[&str]> = Some(&["order.placed"]);

    #[test]
    fn two_handlers_for_one_type_are_refused_naming_both_places() {
        let error = faults(
            &RuntimeSpec::default(),
            vec![handler("one", "mail", PLACED), handler("two", "mail", PLACED)],
        );
        assert!(
            error.contains("app::one (src/app.rs:7) and app::two (src/app.rs:7) both take"),
            "{error}"
        );
        assert!(
            error.contains("order.placed") && error.contains("orders") && error.contains("mail"),
            "{error}"
        );
    }

    #[test]
    fn the_same_type_in_two_groups_and_a_catch_all_beside_types_are_fine() {
        let handlers = vec![
            handler("a", "mail", PLACED),
            handler("b", "mail", None),
            handler("c", "stats", PLACED),
        ];
        let planned = plan(&RuntimeSpec::default(), &handlers, &States::default()).unwrap();
        assert_eq!(planned.len(), 2);
        let mail = &planned[0].handlers;
        assert_eq!(mail.find(Some("order.placed")).map(|bound| bound.handler.name), Some("a"));
        assert_eq!(mail.find(Some("else")).map(|bound| bound.handler.name), Some("b"));
        assert_eq!(mail.find(None).map(|bound| bound.handler.name), Some("b"));
    }

    #[test]
    fn no_handlers_at_all_are_refused_with_the_reason() {
        assert!(faults(&RuntimeSpec::default(), vec![]).contains("use your_crate as _;"));
        let empty = RuntimeSpec { listed: Some(vec![]), ..RuntimeSpec::default() };
        assert!(
            faults(&empty, vec![handler("a", "mail", None)]).contains("list of handlers is empty")
        );
        let alone = RuntimeSpec { services: true, ..empty };
        assert!(plan(&alone, &[], &States::default()).unwrap().is_empty());
        let forgotten = RuntimeSpec { services: true, ..RuntimeSpec::default() };
        assert!(faults(&forgotten, vec![]).contains("use your_crate as _;"));
        let other = RuntimeSpec {
            only: Some(HashSet::from(["stats".to_owned()])),
            ..RuntimeSpec::default()
        };
        assert!(faults(&other, vec![handler("a", "mail", None)]).contains("wanted groups: stats"));
    }

    #[test]
    fn a_missing_state_is_refused_naming_the_handler_and_the_type() {
        let needs = HandlerDef {
            require: |requirements| requirements.state::<String>(),
            ..handler("a", "mail", None)
        };
        let error = faults(&RuntimeSpec::default(), vec![needs]);
        assert!(
            error.contains("app::a (src/app.rs:7) needs State<alloc::string::String>"),
            "{error}"
        );
    }

    #[test]
    fn settings_of_one_queue_must_agree_and_both_places_are_named() {
        let mut one = handler("one", "mail", Some(&["a"]));
        let mut two = handler("two", "mail", Some(&["b"]));
        one.options.concurrency = NonZeroU32::new(1);
        two.options.concurrency = NonZeroU32::new(2);
        let error = faults(&RuntimeSpec::default(), vec![one, two]);
        assert!(
            error.contains("app::one")
                && error.contains("app::two")
                && error.contains("differ in concurrency"),
            "{error}"
        );
    }

    #[test]
    fn settings_for_unknown_groups_and_streams_are_refused() {
        let mut spec = RuntimeSpec::default();
        spec.groups.insert("mial".into(), GroupOptions::new());
        spec.keys.insert("order".into(), vec!["x".into()]);
        let error = faults(&spec, vec![handler("a", "mail", None)]);
        assert!(error.contains("\"mial\"") && error.contains("\"order\""), "{error}");
    }

    #[test]
    fn a_stream_can_stand_for_several_keys() {
        let mut spec = RuntimeSpec::default();
        spec.keys.insert("orders".into(), vec!["orders:{a}".into(), "orders:{b}".into()]);
        let planned = plan(&spec, &[handler("a", "mail", None)], &States::default()).unwrap();
        let keys = planned.iter().map(|planned| planned.queue.stream.as_str()).collect::<Vec<_>>();
        assert_eq!(keys, ["orders:{a}", "orders:{b}"]);
    }

    #[test]
    fn the_horizon_is_the_age_and_all_that_the_slowest_handler_may_take() {
        let seconds = Duration::from_secs;
        let mut slow = handler("slow", "mail", None);
        slow.options.backoff = Some(Backoff::exponential(seconds(1), seconds(60)));
        slow.options.timeout = Some(seconds(30));
        slow.options.max_attempts = NonZeroU32::new(4);
        let mut quick = handler("quick", "mail", PLACED);
        quick.options.backoff = Some(Backoff::fixed(seconds(7)));
        let mut spec = RuntimeSpec::default();
        spec.groups.insert("mail".into(), GroupOptions::new().lease(seconds(2)));
        let plan = plan(&spec, &[slow, quick], &States::default());
        let planned = plan.unwrap().remove(0);
        // Four times a back-off, a timeout, and five deliveries of a lease each; and ten minutes
        // without a handler.
        let day = seconds(24 * 60 * 60);
        let served = planned.served(Retention::MaxAge(day));
        assert_eq!((served.stream.as_str(), served.group.as_str()), ("orders", "mail"));
        assert_eq!(served.horizon, Some(day + 4 * seconds(60 + 30 + 5 * 2) + seconds(600)));
        let endless = planned.served(Retention::MaxAge(Duration::MAX));
        assert_eq!(endless.horizon, Some(Duration::MAX));
        let entries = NonZeroU64::new(9).unwrap();
        for retention in [
            Retention::default(),
            Retention::MaxLen(entries),
            Retention::MaxLenExact(entries),
            Retention::Unlimited,
        ] {
            assert_eq!(planned.served(retention).horizon, None, "{retention:?}");
        }
    }

    #[test]
    fn bad_settings_are_all_listed() {
        let mut spec = RuntimeSpec::default();
        spec.groups.insert("mail".into(), GroupOptions::new().lease(Duration::ZERO));
        spec.runtime.block = Duration::ZERO;
        let error = faults(&spec, vec![handler("a", "mail", None)]);
        assert!(
            error.contains("block 0ns") && error.contains("group mail on stream orders: lease 0ns"),
            "{error}"
        );
    }
}
