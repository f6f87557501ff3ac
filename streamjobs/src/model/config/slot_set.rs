//! Slots that several groups share by weights.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::{GroupOptions, HandlerOptions, QueueConfig, slots_of};

impl GroupOptions {
    /// Takes the group's slots from a set that other groups or streams share, named with
    /// [`RuntimeBuilder::shared_slots`](crate::RuntimeBuilder::shared_slots); by default each stream of a group has
    /// slots of its own.
    ///
    /// The jobs of all that share the set are never more in this process than the set has slots. While several have
    /// work, they start jobs in proportion to their [`weight`](Self::weight); one without work lends its share.
    /// [`concurrency`](Self::concurrency) is then the most that the group may have of the set on each stream, by
    /// default all of it. See `docs/weights.md`.
    pub fn slots(mut self, set: &'static str) -> Self {
        self.options.slots = Some(set);
        self
    }

    /// With [`slots`](Self::slots), how many starts the group has on each stream for one start of a weight of 1, while
    /// both have work: 1 to 100, 1 by default. None is without at least one start in a round. With a large one beside
    /// small ones, the others wait for long while it has a backlog.
    pub fn weight(mut self, weight: NonZeroU32) -> Self {
        self.options.weight = Some(weight);
        self
    }
}

/// The sets of shared slots of a runtime: the size of each.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlotSets {
    sizes: BTreeMap<&'static str, NonZeroU32>,
    repeated: Vec<&'static str>,
}

/// Of which set a queue takes its slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SetMembership {
    pub(crate) set: &'static str,
    /// How many slots the set has; zero if the runtime does not have it.
    pub(crate) size: usize,
    pub(crate) weight: NonZeroU32,
}

impl SlotSets {
    pub(crate) fn add(&mut self, name: &'static str, slots: NonZeroU32) {
        if self.sizes.insert(name, slots).is_some() {
            self.repeated.push(name);
        }
    }

    /// The set that options name, if they name one.
    pub(crate) fn membership(&self, options: &HandlerOptions) -> Option<SetMembership> {
        let set = options.slots?;
        let size = self.sizes.get(set).map_or(0, |size| slots_of(*size));
        Some(SetMembership { set, size, weight: options.weight.unwrap_or(NonZeroU32::MIN) })
    }

    /// What is wrong with a queue's use of them, at this place.
    pub(crate) fn faults(
        &self,
        place: &str,
        options: &HandlerOptions,
        config: &QueueConfig,
    ) -> Vec<String> {
        let mut faults = Vec::new();
        let weight = options.weight.map_or(1, NonZeroU32::get);
        if weight > WEIGHT_MAX {
            faults.push(format!("{place}: weight {weight} is not between 1 and {WEIGHT_MAX}"));
        }
        let Some(SetMembership { set, size, .. }) = config.slot_set else {
            faults.extend(options.weight.map(|weight| {
                format!("{place}: weight {weight} is of no use without slots: name the set that it is for")
            }));
            return faults;
        };
        let concurrency = config.concurrency;
        if size == 0 {
            faults.push(format!(
                "{place}: the builder has no shared slots {set:?}; it has {}",
                self.names()
            ));
        } else if concurrency > size {
            faults.push(format!(
                "{place}: concurrency {concurrency} is more than the {size} shared slots {set:?}"
            ));
        }
        faults
    }

    /// What is wrong with the sets, of which these are used.
    pub(crate) fn unused(&self, used: &[&str]) -> Vec<String> {
        let unused = self.sizes.keys().filter(|name| !used.contains(name));
        let unused = unused.map(|name| format!("no group uses the shared slots {name:?}"));
        let twice = self.repeated.iter();
        let twice = twice.map(|name| format!("the builder has shared slots {name:?} twice"));
        let empty = self.sizes.keys().filter(|name| name.is_empty() || name.len() > NAME_BYTES_MAX);
        let empty = empty.map(|name| {
            format!("the name of shared slots {name:?} is not 1 to {NAME_BYTES_MAX} bytes long")
        });
        unused.chain(twice).chain(empty).collect()
    }

    fn names(&self) -> String {
        match self.sizes.is_empty() {
            true => "none".to_owned(),
            false => self.sizes.keys().copied().collect::<Vec<_>>().join(", "),
        }
    }
}

/// Beside more, a weight of 1 would have hardly any start.
const WEIGHT_MAX: u32 = 100;
/// A name is a label of metrics and part of each heartbeat.
const NAME_BYTES_MAX: usize = 200;
