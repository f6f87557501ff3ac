//! What is wrong with a group, said in words: pure.

use std::fmt;
use std::time::Duration;

use crate::insight::view::{ConsumerInfo, GroupInfo, Liveness};

/// What is wrong with a group, the worst first; nothing is a group that is well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// What is wrong.
    pub troubles: Vec<Trouble>,
}

/// One thing that is wrong with a group. Its `Display` says what it means and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// Entries were trimmed before the group had got them.
    Lost {
        /// How many.
        entries: u64,
    },
    /// There is work, and no consumer lives.
    Stalled {
        /// Consumers that have missed their beats.
        silent: usize,
    },
    /// Somebody has paused the group.
    Paused {
        /// How long ago.
        paused: Duration,
    },
    /// A consumer has died with work in hand.
    DeadConsumer {
        /// Its name.
        consumer: String,
        /// What is pending for it.
        pending: u64,
    },
    /// Entries are received and not acknowledged: pending grows while little waits.
    NotAcknowledging {
        /// What is pending.
        pending: u64,
        /// How long nothing has been heard of the oldest.
        oldest: Duration,
    },
    /// Work waits longer than it should, and every slot is taken.
    TooFewConsumers {
        /// Jobs running.
        in_flight: u64,
        /// Slots of all consumers that live.
        slots: u64,
        /// How long the oldest waits.
        oldest: Duration,
    },
    /// Work waits longer than it should, although slots are free.
    NotReading {
        /// How long the oldest waits.
        oldest: Duration,
    },
}

impl Diagnosis {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.troubles.is_empty()
    }

    /// What is wrong with a group that was looked at, as
    /// [`Group::diagnose`](crate::api::stream::Group::diagnose) says of one that it looks at itself.
    #[must_use]
    pub fn of(group: &GroupInfo, consumers: &[ConsumerInfo]) -> Self {
        let mut troubles = Vec::new();
        if group.trimmed_unread > 0 {
            troubles.push(Trouble::Lost { entries: group.trimmed_unread });
        }
        let has = |liveness| move |consumer: &&ConsumerInfo| consumer.liveness == liveness;
        let silent = consumers.iter().filter(has(Liveness::Silent));
        let nobody = consumers.iter().all(|consumer| consumer.liveness == Liveness::Silent);
        let works = group.backlog.entries > 0 || group.pending > 0 || group.retrying > 0;
        if let Some(paused) = group.paused {
            troubles.push(Trouble::Paused { paused });
        } else if works && nobody {
            troubles.push(Trouble::Stalled { silent: silent.clone().count() });
        }
        let dead = silent.filter(|consumer| consumer.pending > 0);
        troubles.extend(dead.map(|consumer| Trouble::DeadConsumer {
            consumer: consumer.name.clone(),
            pending: consumer.pending,
        }));
        if group.paused.is_none() && !nobody {
            troubles.extend(not_acknowledging(group));
            troubles.extend(waiting(group, consumers));
        }
        Self { troubles }
    }
}

/// Nothing is heard of what is pending, and it is more than what waits.
fn not_acknowledging(group: &GroupInfo) -> Option<Trouble> {
    let oldest = group.oldest_pending.filter(|oldest| *oldest >= PENDING_MAX)?;
    let pending = group.pending;
    (pending >= group.backlog.entries).then_some(Trouble::NotAcknowledging { pending, oldest })
}

/// Work waits: either everybody is busy, or somebody does not read.
fn waiting(group: &GroupInfo, consumers: &[ConsumerInfo]) -> Option<Trouble> {
    let oldest = group.oldest_waiting.filter(|oldest| *oldest >= WAITING_MAX)?;
    let alive = consumers.iter().filter(|consumer| consumer.liveness != Liveness::Silent);
    let slots = alive.clone().filter_map(|consumer| consumer.slots).sum::<u64>();
    let in_flight = alive.filter_map(|consumer| consumer.in_flight).sum::<u64>().max(group.pending);
    Some(match in_flight >= slots.saturating_mul(BUSY_PERCENT) / 100 {
        true => Trouble::TooFewConsumers { in_flight, slots, oldest },
        false => Trouble::NotReading { oldest },
    })
}

impl Trouble {
    /// The trouble in one word, for programs; it does not change between releases.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Lost { .. } => "lost",
            Self::Stalled { .. } => "stalled",
            Self::Paused { .. } => "paused",
            Self::DeadConsumer { .. } => "dead_consumer",
            Self::NotAcknowledging { .. } => "not_acknowledging",
            Self::TooFewConsumers { .. } => "too_few_consumers",
            Self::NotReading { .. } => "not_reading",
        }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_healthy() {
            return f.write_str("well");
        }
        let troubles = self.troubles.iter().map(ToString::to_string);
        f.write_str(&troubles.collect::<Vec<_>>().join("\n"))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { entries } => write!(
                f,
                "{entries} entries were trimmed before the group had got them: they are lost for it; \
                 give the stream more room, or keep what groups need"
            ),
            Self::Stalled { silent: 0 } => {
                write!(
                    f,
                    "work waits and the group has no consumer: start a process with its handlers"
                )
            }
            Self::Stalled { silent } => write!(
                f,
                "work waits and none of its {silent} consumers lives: start a process with its handlers"
            ),
            Self::Paused { paused } => {
                write!(f, "paused for {}: resume it to let its jobs run", seconds(*paused))
            }
            Self::DeadConsumer { consumer, pending } => write!(
                f,
                "consumer {consumer} died with {pending} entries: a living process claims them when \
                 their lease is over"
            ),
            Self::NotAcknowledging { pending, oldest } => write!(
                f,
                "{pending} entries are delivered and not acknowledged, and nothing has been heard of \
                 the oldest for {}: they belong to nobody who renews them",
                seconds(*oldest)
            ),
            Self::TooFewConsumers { in_flight, slots, oldest } => write!(
                f,
                "the oldest entry has waited for {} while {in_flight} of {slots} slots are taken: too \
                 few consumers; add processes or raise the concurrency",
                seconds(*oldest)
            ),
            Self::NotReading { oldest } => write!(
                f,
                "the oldest entry has waited for {} although slots are free: no consumer reads; look \
                 at the health of its processes",
                seconds(*oldest)
            ),
        }
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

/// Work in hand is renewed at a third of its lease; of what is older, nobody takes care.
const PENDING_MAX: Duration = Duration::from_secs(60);
/// A job that waits longer than this waits too long.
const WAITING_MAX: Duration = Duration::from_secs(10);
/// From this part of all slots on, everybody is busy.
const BUSY_PERCENT: u64 = 80;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insight::view::Backlog;

    fn group() -> GroupInfo {
        GroupInfo::idle()
    }

    fn waiting(entries: u64, seconds: u64) -> GroupInfo {
        GroupInfo {
            backlog: Backlog { entries, exact: true },
            oldest_waiting: Some(Duration::from_secs(seconds)),
            ..group()
        }
    }

    fn consumer(liveness: Liveness, pending: u64, slots: u64) -> ConsumerInfo {
        ConsumerInfo {
            name: "a".into(),
            pending,
            idle: Duration::ZERO,
            inactive: None,
            liveness,
            last_heartbeat: None,
            in_flight: Some(pending),
            slots: Some(slots),
            done: None,
            failed: None,
            claimed: None,
            host: None,
            process: None,
            version: None,
            started: None,
        }
    }

    fn troubles(group: &GroupInfo, consumers: &[ConsumerInfo]) -> Vec<Trouble> {
        Diagnosis::of(group, consumers).troubles
    }

    #[test]
    fn a_group_that_keeps_up_is_well() {
        let alive = [consumer(Liveness::Alive, 3, 16)];
        assert!(troubles(&GroupInfo { pending: 3, ..waiting(50, 1) }, &alive).is_empty());
        assert!(troubles(&group(), &[]).is_empty(), "no work needs no consumer");
    }

    #[test]
    fn work_that_waits_while_all_are_busy_has_too_few_consumers() {
        let busy = [consumer(Liveness::Alive, 16, 16)];
        let grows = GroupInfo {
            pending: 16,
            oldest_pending: Some(Duration::from_secs(1)),
            ..waiting(900, 40)
        };
        assert!(matches!(
            troubles(&grows, &busy)[..],
            [Trouble::TooFewConsumers { in_flight: 16, slots: 16, .. }]
        ));
    }

    #[test]
    fn work_that_waits_while_slots_are_free_is_not_read() {
        let free = [consumer(Liveness::Alive, 0, 16)];
        assert!(matches!(troubles(&waiting(5, 40), &free)[..], [Trouble::NotReading { .. }]));
    }

    #[test]
    fn pending_that_grows_while_little_waits_is_not_acknowledged() {
        let foreign = [consumer(Liveness::Unknown, 80, 0)];
        let pending = GroupInfo {
            pending: 80,
            oldest_pending: Some(Duration::from_secs(600)),
            ..waiting(1, 0)
        };
        let found = troubles(&pending, &foreign);
        assert!(matches!(found[..], [Trouble::NotAcknowledging { pending: 80, .. }]), "{found:?}");
    }

    #[test]
    fn dead_consumers_and_stalled_groups_are_told_apart() {
        let dead = consumer(Liveness::Silent, 4, 16);
        let works = GroupInfo { pending: 4, ..group() };
        let stalled = troubles(&works, std::slice::from_ref(&dead));
        assert!(matches!(
            stalled[..],
            [Trouble::Stalled { silent: 1 }, Trouble::DeadConsumer { pending: 4, .. }]
        ));
        let helped = troubles(&works, &[dead, consumer(Liveness::Alive, 0, 16)]);
        assert!(matches!(helped[..], [Trouble::DeadConsumer { .. }]));
        assert!(matches!(troubles(&works, &[])[..], [Trouble::Stalled { silent: 0 }]));
    }

    #[test]
    fn a_paused_group_is_only_paused_and_a_loss_comes_first() {
        let paused = GroupInfo {
            paused: Some(Duration::from_secs(90)),
            trimmed_unread: 7,
            ..waiting(5, 80)
        };
        let diagnosis = Diagnosis::of(&paused, &[consumer(Liveness::Alive, 0, 16)]);
        assert!(matches!(
            diagnosis.troubles[..],
            [Trouble::Lost { entries: 7 }, Trouble::Paused { .. }]
        ));
        assert!(diagnosis.to_string().contains("paused for 90 s"), "{diagnosis}");
        let words = diagnosis.troubles.iter().map(Trouble::as_str).collect::<Vec<_>>();
        assert_eq!(words, ["lost", "paused"]);
        assert!(!diagnosis.is_healthy());
    }
}
