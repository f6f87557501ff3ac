//! What is wrong with a group because of its consumers: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::insight::problem::Problem;
use crate::insight::view::{ConsumerInfo, Liveness};
use crate::model::rate::Rate;

/// The rates in the code of all processes, if they differ.
pub(super) fn rates_differ(consumers: &[ConsumerInfo]) -> Option<Problem> {
    let alive = consumers.iter().filter(|consumer| consumer.liveness == Liveness::Alive);
    let shown =
        |rate: Option<Rate>| rate.map_or_else(|| "none".to_owned(), |rate| rate.to_string());
    let rates = alive.map(|consumer| (shown(consumer.rate), consumer.name.clone()));
    let rates = rates.collect::<BTreeMap<_, _>>();
    (rates.len() > 1).then(|| Problem::RatesDiffer { rates: rates.into_iter().collect() })
}

/// Consumers of other software that took running jobs. Jobs that an operator gave to a process of this crate do not
/// count.
pub(super) fn claimed_early(consumers: &[ConsumerInfo]) -> Vec<Problem> {
    let alive = consumers.iter().filter(|consumer| consumer.liveness == Liveness::Alive);
    let named = alive.filter_map(|consumer| consumer.claimed_early_by.as_ref());
    let named = named.collect::<BTreeSet<_>>();
    let others = consumers.iter().filter(|consumer| consumer.liveness == Liveness::Unknown);
    let claimers = others.filter(|other| named.contains(&other.name));
    claimers.map(|other| Problem::ClaimedEarly { consumer: other.name.clone() }).collect()
}

/// Work waits although the group has slots left, because other groups have those of its set: this percentage of
/// them or more, over all processes.
pub(super) fn slots_taken(
    consumers: &[ConsumerInfo],
    percent: u64,
    oldest: Duration,
) -> Option<Problem> {
    let alive = consumers.iter().filter(|consumer| consumer.liveness != Liveness::Silent);
    let sets = alive.filter_map(|consumer| {
        let process = (consumer.host.as_deref(), consumer.process);
        Some((process, consumer.slot_set.as_ref()?))
    });
    // Consumers of one process share its set.
    let sets = sets.collect::<BTreeMap<_, _>>();
    let set = sets.values().next()?.name.clone();
    let slots = sets.values().map(|set| set.slots).sum::<u64>();
    let in_use = sets.values().map(|set| set.in_use).sum::<u64>();
    let is_taken = in_use >= slots.saturating_mul(percent) / 100;
    is_taken.then_some(Problem::SharedSlotsTaken { set, in_use, slots, oldest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insight::view::SlotSet;

    fn of_process(process: u32, in_use: u64) -> ConsumerInfo {
        ConsumerInfo {
            in_flight: Some(1),
            slots: Some(20),
            process: Some(process),
            slot_set: Some(SlotSet { name: "mail".into(), slots: 20, in_use }),
            ..ConsumerInfo::named("a", Liveness::Alive)
        }
    }

    #[test]
    fn shared_slots_are_taken_if_few_are_free_in_all_processes() {
        let oldest = Duration::from_secs(40);
        let taken = |consumers: &[ConsumerInfo]| slots_taken(consumers, 80, oldest);
        let text = taken(&[of_process(1, 20)]).unwrap().to_string();
        let expected =
            "the oldest entry has waited for 40 s for a slot of the set mail: 20 of 20 in use; ";
        assert!(text.starts_with(expected), "{text}");
        assert_eq!(taken(&[of_process(1, 15)]), None, "some are free");
        assert_eq!(taken(&[of_process(1, 20), of_process(2, 2)]), None);
        assert_eq!(taken(&[ConsumerInfo::named("a", Liveness::Alive)]), None);
        let dead = ConsumerInfo { liveness: Liveness::Silent, ..of_process(3, 0) };
        let both = taken(&[of_process(1, 20), of_process(1, 20), of_process(2, 18), dead]);
        assert!(matches!(both, Some(Problem::SharedSlotsTaken { in_use: 38, slots: 40, .. })));
    }
}
