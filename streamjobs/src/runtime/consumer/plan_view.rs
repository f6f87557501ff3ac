//! The plan as it is shown: each setting of each group and handler, and where it comes from.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::handler::HandlerDef;
use crate::model::config::{
    GroupOptions, HandlerOptions, JobLimits, QueueConfig, SetMembership, SlotSets, Start, Unhandled,
};
use crate::runtime::consumer::{RuntimeSpec, merged};

/// The settings with which a runtime works, and where each comes from.
///
/// [`Runtime::plan`](crate::Runtime::plan) and [`RuntimeBuilder::plan`](crate::RuntimeBuilder::plan) return it.
/// `Display` shows it as a table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// The groups on their streams, in the order of the streams' names.
    pub groups: Vec<GroupPlan>,
}

/// The settings of one group on one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupPlan {
    /// The stream that the handlers name.
    pub stream: String,
    /// The streams that are read instead of that stream, if there are any.
    pub keys: Vec<String>,
    /// The group.
    pub group: String,
    /// Settings of the group as a whole.
    pub settings: Vec<PlannedSetting>,
    /// Its handlers, in the order in which they were found or listed.
    pub handlers: Vec<HandlerPlan>,
}

/// The settings of one handler.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandlerPlan {
    /// The name of its function.
    pub name: String,
    /// Its place in the source: function, file and line.
    pub location: String,
    /// The event types that it takes; empty if it takes every type that no other handler takes.
    pub types: Vec<String>,
    /// How many layers of middleware are around it.
    pub middleware: usize,
    /// Its own settings.
    pub settings: Vec<PlannedSetting>,
}

/// One setting with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedSetting {
    /// Its name, as in the attribute.
    pub name: &'static str,
    /// Its value in words, such as `10s`.
    pub value: String,
    /// Where it comes from.
    pub origin: SettingOrigin,
}

/// Where the value of a setting comes from. The first of these places that names the setting
/// decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SettingOrigin {
    /// [`RuntimeBuilder::group`](crate::RuntimeBuilder::group), which overrides attributes.
    Override,
    /// The attribute of the handler, or of one of the group's handlers.
    Handler,
    /// [`RuntimeBuilder::group_defaults`](crate::RuntimeBuilder::group_defaults).
    Group,
    /// [`RuntimeBuilder::defaults`](crate::RuntimeBuilder::defaults).
    Runtime,
    /// No place names the setting, so it has its built-in value.
    BuiltIn,
}

impl Plan {
    /// The plan of a group on a stream, if the runtime has it.
    #[must_use]
    pub fn group(&self, stream: &str, group: &str) -> Option<&GroupPlan> {
        self.groups.iter().find(|plan| plan.stream == stream && plan.group == group)
    }

    /// The plan that follows from settings without faults.
    pub(crate) fn new(spec: &RuntimeSpec, linked: &[HandlerDef]) -> Self {
        let mut by_queue = BTreeMap::<(&str, &str), Vec<HandlerDef>>::new();
        for handler in spec.wanted(linked) {
            by_queue.entry((handler.stream, handler.group)).or_default().push(handler);
        }
        let groups = by_queue.into_iter();
        let groups = groups.map(|((stream, group), handlers)| {
            let levels = Levels::new(spec, group, merged(&handlers, &mut Vec::new()));
            let keys = spec.keys_of(stream);
            GroupPlan {
                stream: stream.to_owned(),
                keys: if keys == [stream] { Vec::new() } else { keys },
                group: group.to_owned(),
                settings: levels.of_group(spec.runtime.block),
                handlers: handlers.iter().map(|handler| handler_plan(spec, handler)).collect(),
            }
        });
        Self { groups: groups.collect() }
    }
}

impl GroupPlan {
    /// A setting of the group by its name.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&PlannedSetting> {
        self.settings.iter().find(|setting| setting.name == name)
    }

    /// The plan of a handler by the name of its function.
    #[must_use]
    pub fn handler(&self, name: &str) -> Option<&HandlerPlan> {
        self.handlers.iter().find(|handler| handler.name == name)
    }
}

impl HandlerPlan {
    /// A setting of the handler by its name.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&PlannedSetting> {
        self.settings.iter().find(|setting| setting.name == name)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for GroupPlan { stream, keys, group, settings, handlers } in &self.groups {
            writeln!(f, "group {group} on stream {stream}")?;
            if !keys.is_empty() {
                writeln!(f, "  reads {}", keys.join(", "))?;
            }
            for setting in settings {
                writeln!(f, "  {setting}")?;
            }
            for HandlerPlan { location, types, middleware, settings, .. } in handlers {
                let types = if types.is_empty() { "*".to_owned() } else { types.join(", ") };
                writeln!(f, "  handler {location} takes {types}, middleware: {middleware}")?;
                for setting in settings {
                    writeln!(f, "    {setting}")?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for PlannedSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<16} {:<16} {}", self.name, self.value, self.origin)
    }
}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Override => "override",
            Self::Handler => "handler",
            Self::Group => "group",
            Self::Runtime => "runtime",
            Self::BuiltIn => "built-in",
        })
    }
}

fn handler_plan(spec: &RuntimeSpec, handler: &HandlerDef) -> HandlerPlan {
    let levels = Levels::new(spec, handler.group, handler.options);
    HandlerPlan {
        name: handler.name.to_owned(),
        location: handler.location(),
        types: handler.types.unwrap_or_default().iter().map(|&name| name.to_owned()).collect(),
        middleware: spec.layers_of(handler.group).len() + usize::from(handler.wrap.is_some()),
        settings: levels.of_handler(),
    }
}

/// What each place says, in the order in which the places decide.
struct Levels {
    options: GroupOptions,
    attribute: HandlerOptions,
    group: HandlerOptions,
    runtime: HandlerOptions,
    slot_sets: SlotSets,
}

impl Levels {
    fn new(spec: &RuntimeSpec, group: &str, attribute: HandlerOptions) -> Self {
        let options = spec.groups.get(group).copied().unwrap_or_default();
        let defaults = spec.group_defaults.get(group).copied().unwrap_or_default();
        let (group, runtime) = (defaults.options, spec.defaults.options);
        Self { options, attribute, group, runtime, slot_sets: spec.slot_sets.clone() }
    }

    fn of_group(&self, block: Duration) -> Vec<PlannedSetting> {
        let said = self.options.options.or(&self.fallen_back());
        let config = QueueConfig::new(&self.fallen_back(), &self.options, block)
            .with_slots(&self.slot_sets, &said);
        let start = match config.start {
            Start::Beginning => "beginning".to_owned(),
            Start::End => "end".to_owned(),
            Start::After(id) => format!("after {id}"),
        };
        let unhandled = match config.unhandled {
            Unhandled::Acknowledge => "acknowledge",
            Unhandled::DeadLetter => "dead-letter",
            Unhandled::Leave => "leave",
        };
        let after = format!("{:?}", config.unhandled_after);
        let mut settings = vec![
            self.setting("concurrency", config.concurrency.to_string(), |says| {
                says.concurrency.is_some()
            }),
            self.setting("lease", format!("{:?}", config.lease), |says| says.lease.is_some()),
            self.setting("start", start, |says| says.start.is_some()),
            self.setting("unhandled", unhandled.to_owned(), |says| says.unhandled.is_some()),
            self.setting("unhandled_after", after, |says| says.unhandled_after.is_some()),
        ];
        settings.extend(config.limit.map(|limit| {
            self.setting("limit over all processes", limit.text(), HandlerOptions::has_limit)
        }));
        settings.extend(
            config
                .rate
                .map(|rate| self.setting("rate", rate.to_string(), |says| says.rate.is_some())),
        );
        settings.extend(config.keep_done.map(|keep| {
            let value = format!("{:?}, {} at most", keep.time, keep.most);
            self.setting("keep_done", value, |says| says.keep_done.is_some())
        }));
        if let Some(SetMembership { set, size, weight }) = config.slot_set {
            let slots = format!("{size} shared as {set}");
            settings.push(self.setting("slots", slots, |says| says.slots.is_some()));
            let weight = weight.to_string();
            settings.push(self.setting("weight", weight, |says| says.weight.is_some()));
        }
        settings
    }

    fn of_handler(&self) -> Vec<PlannedSetting> {
        let limits = JobLimits::new(&self.fallen_back(), &self.options);
        let (attempts, deliveries) = (limits.max_attempts, limits.max_deliveries);
        let time =
            |time: Option<Duration>| time.map_or("none".to_owned(), |time| format!("{time:?}"));
        vec![
            self.setting("max_attempts", attempts.to_string(), |says| says.max_attempts.is_some()),
            self.setting("max_deliveries", deliveries.to_string(), |says| {
                says.max_deliveries.is_some()
            }),
            self.setting("timeout", time(limits.timeout), |says| says.timeout.is_some()),
            self.setting("expires", time(limits.expires), |says| says.expires.is_some()),
            self.setting("backoff", limits.backoff.to_string(), |says| says.backoff.is_some()),
        ]
    }

    /// The settings without the override.
    fn fallen_back(&self) -> HandlerOptions {
        self.attribute.or(&self.group).or(&self.runtime)
    }

    fn setting(
        &self,
        name: &'static str,
        value: String,
        is_said_in: impl Fn(&HandlerOptions) -> bool,
    ) -> PlannedSetting {
        let levels = [
            (&self.options.options, SettingOrigin::Override),
            (&self.attribute, SettingOrigin::Handler),
            (&self.group, SettingOrigin::Group),
            (&self.runtime, SettingOrigin::Runtime),
        ];
        let said = levels.into_iter().find(|(says, _)| is_said_in(says));
        let origin = said.map_or(SettingOrigin::BuiltIn, |(_, origin)| origin);
        PlannedSetting { name, value, origin }
    }
}
