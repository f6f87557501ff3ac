//! What is wrong with a group, decided from what was read: pure.

use std::fmt;
use std::time::Duration;

use crate::insight::condition::Condition;
use crate::insight::phrase;
use crate::insight::view::{ConsumerInfo, GroupInfo, Liveness};
use crate::model::entry::EntryId;

/// What is wrong with a group, the worst first. A healthy group has no problems.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with a group: a [`Condition`] with its figures.
///
/// `Display` says what was found and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// Entries were trimmed before they were delivered to the group.
    TrimmedUnread {
        /// How many.
        entries: u64,
    },
    /// The group's cursor is beyond the end of the stream: nothing is delivered.
    CursorBeyond {
        /// The cursor.
        cursor: EntryId,
        /// The stream's last id.
        last: EntryId,
    },
    /// There is work, and no consumer is alive.
    Stalled {
        /// Consumers whose heartbeat is missing.
        silent: usize,
    },
    /// Jobs wait whose event type no live process of the group declares.
    Unhandled {
        /// The event types, at most 20 of them.
        types: Vec<String>,
    },
    /// The group is paused in every process.
    Paused {
        /// How long ago.
        paused: Duration,
    },
    /// A consumer died with pending entries.
    DeadConsumer {
        /// Its name.
        consumer: String,
        /// Its pending entries.
        pending: u64,
    },
    /// Entries are delivered and not acknowledged: pending grows while little waits.
    NotAcknowledging {
        /// Pending entries.
        pending: u64,
        /// The idle time of the oldest.
        oldest: Duration,
    },
    /// The oldest entry waits for too long, and nearly every slot is taken.
    TooFewConsumers {
        /// Jobs in flight.
        in_flight: u64,
        /// Slots of all consumers that are alive.
        slots: u64,
        /// How long the oldest entry has waited.
        oldest: Duration,
    },
    /// The oldest entry waits for too long although slots are free.
    NotReading {
        /// How long the oldest entry has waited.
        oldest: Duration,
    },
}

impl Diagnosis {
    /// Whether no problem was found.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.problems.is_empty()
    }

    /// Diagnoses a group from what was read before, as
    /// [`Group::diagnose`](crate::stream::Group::diagnose) does after reading it.
    #[must_use]
    pub fn of(group: &GroupInfo, consumers: &[ConsumerInfo]) -> Self {
        let mut problems = Vec::new();
        if group.trimmed_unread > 0 {
            problems.push(Problem::TrimmedUnread { entries: group.trimmed_unread });
        }
        if let Some(last) = group.beyond {
            problems.push(Problem::CursorBeyond { cursor: group.cursor, last });
        }
        let has = |liveness| move |consumer: &&ConsumerInfo| consumer.liveness == liveness;
        let silent = consumers.iter().filter(has(Liveness::Silent));
        let none_alive = consumers.iter().all(|consumer| consumer.liveness == Liveness::Silent);
        let has_work = group.backlog.entries > 0 || group.pending > 0 || group.retrying > 0;
        if let Some(paused) = group.paused {
            problems.push(Problem::Paused { paused });
        } else if has_work && none_alive {
            problems.push(Problem::Stalled { silent: silent.clone().count() });
        }
        if !group.unhandled.is_empty() {
            problems.push(Problem::Unhandled { types: group.unhandled.clone() });
        }
        let dead = silent.filter(|consumer| consumer.pending > 0);
        problems.extend(dead.map(|consumer| Problem::DeadConsumer {
            consumer: consumer.name.clone(),
            pending: consumer.pending,
        }));
        if group.paused.is_none() && !none_alive {
            problems.extend(not_acknowledging(group));
            problems.extend(waiting(group, consumers));
        }
        Self { problems }
    }
}

/// The oldest pending entry is not renewed, and more is pending than waits.
fn not_acknowledging(group: &GroupInfo) -> Option<Problem> {
    let oldest = group.oldest_pending.filter(|oldest| *oldest >= PENDING_MAX)?;
    let pending = group.pending;
    (pending >= group.backlog.entries).then_some(Problem::NotAcknowledging { pending, oldest })
}

/// Work waits: either the consumers are busy, or they do not read.
fn waiting(group: &GroupInfo, consumers: &[ConsumerInfo]) -> Option<Problem> {
    // What waited during a pause waits for the consumers since its end only.
    let since = group.resumed.unwrap_or(Duration::MAX);
    let oldest = group.oldest_waiting.filter(|oldest| since.min(*oldest) >= WAITING_MAX)?;
    let alive = consumers.iter().filter(|consumer| consumer.liveness != Liveness::Silent);
    let slots = alive.clone().filter_map(|consumer| consumer.slots).sum::<u64>();
    let in_flight = alive.filter_map(|consumer| consumer.in_flight).sum::<u64>().max(group.pending);
    Some(match in_flight >= slots.saturating_mul(BUSY_PERCENT) / 100 {
        true => Problem::TooFewConsumers { in_flight, slots, oldest },
        false => Problem::NotReading { oldest },
    })
}

impl Problem {
    /// The condition, with its word for programs and its advice.
    #[must_use]
    pub fn condition(&self) -> Condition {
        match self {
            Self::TrimmedUnread { .. } => Condition::TrimmedUnread,
            Self::CursorBeyond { .. } => Condition::CursorBeyond,
            Self::Stalled { .. } => Condition::Stalled,
            Self::Unhandled { .. } => Condition::Unhandled,
            Self::Paused { .. } => Condition::Paused,
            Self::DeadConsumer { .. } => Condition::DeadConsumer,
            Self::NotAcknowledging { .. } => Condition::NotAcknowledging,
            Self::TooFewConsumers { .. } => Condition::TooFewConsumers,
            Self::NotReading { .. } => Condition::NotReading,
        }
    }

    /// The word of its [condition](Self::condition).
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        self.condition().as_str()
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_healthy() {
            return f.write_str("healthy");
        }
        let problems = self.problems.iter().map(ToString::to_string);
        f.write_str(&problems.collect::<Vec<_>>().join("\n"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrimmedUnread { entries } => f.write_str(&phrase::trimmed_unread(*entries))?,
            Self::CursorBeyond { cursor, last } => {
                f.write_str(&phrase::cursor_beyond(*cursor, *last))?;
            }
            Self::Stalled { silent: 0 } => {
                f.write_str("work waits and the group has no consumer")?
            }
            Self::Stalled { silent } => {
                write!(f, "work waits and all consumers of the group ({silent}) are dead")?;
            }
            Self::Unhandled { types } => f.write_str(&phrase::unhandled(types))?,
            Self::Paused { paused } => write!(f, "paused for {} s", paused.as_secs())?,
            Self::DeadConsumer { consumer, pending } => {
                write!(f, "consumer {consumer} died with {pending} pending entries")?;
            }
            Self::NotAcknowledging { pending, oldest } => {
                let (pending, oldest) =
                    (phrase::pending(*pending), phrase::oldest_pending(*oldest));
                write!(f, "{pending}; {oldest}")?;
            }
            Self::TooFewConsumers { in_flight, slots, oldest } => {
                let oldest = phrase::oldest_waiting(*oldest);
                write!(f, "{oldest} while {in_flight} of {slots} slots are taken")?;
            }
            Self::NotReading { oldest } => {
                write!(f, "{} although slots are free", phrase::oldest_waiting(*oldest))?;
            }
        }
        write!(f, "; {}", self.condition().advice())
    }
}

/// Entries in flight are renewed at a third of their lease; an older one has no live owner.
const PENDING_MAX: Duration = Duration::from_secs(60);
/// A job that waits longer than this waits for too long.
const WAITING_MAX: Duration = Duration::from_secs(10);
/// From this percentage of taken slots on, the consumers count as busy.
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

    fn problems(group: &GroupInfo, consumers: &[ConsumerInfo]) -> Vec<Problem> {
        Diagnosis::of(group, consumers).problems
    }

    #[test]
    fn a_group_that_keeps_up_is_healthy() {
        let alive = [consumer(Liveness::Alive, 3, 16)];
        assert!(problems(&GroupInfo { pending: 3, ..waiting(50, 1) }, &alive).is_empty());
        assert!(problems(&group(), &[]).is_empty(), "no work needs no consumer");
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
            problems(&grows, &busy)[..],
            [Problem::TooFewConsumers { in_flight: 16, slots: 16, .. }]
        ));
    }

    #[test]
    fn work_that_waits_while_slots_are_free_is_not_read() {
        let free = [consumer(Liveness::Alive, 0, 16)];
        assert!(matches!(problems(&waiting(5, 40), &free)[..], [Problem::NotReading { .. }]));
    }

    #[test]
    fn what_waited_during_a_pause_has_ten_seconds_to_be_read() {
        let free = [consumer(Liveness::Alive, 0, 16)];
        let resumed =
            |seconds| GroupInfo { resumed: Some(Duration::from_secs(seconds)), ..waiting(5, 3600) };
        assert!(problems(&resumed(9), &free).is_empty());
        let oldest = Duration::from_secs(3600);
        assert_eq!(problems(&resumed(10), &free), [Problem::NotReading { oldest }]);
    }

    #[test]
    fn pending_that_grows_while_little_waits_is_not_acknowledged() {
        let other = [consumer(Liveness::Unknown, 80, 0)];
        let pending = GroupInfo {
            pending: 80,
            oldest_pending: Some(Duration::from_secs(600)),
            ..waiting(1, 0)
        };
        let found = problems(&pending, &other);
        assert!(matches!(found[..], [Problem::NotAcknowledging { pending: 80, .. }]), "{found:?}");
    }

    #[test]
    fn dead_consumers_and_stalled_groups_are_distinguished() {
        let dead = consumer(Liveness::Silent, 4, 16);
        let works = GroupInfo { pending: 4, ..group() };
        let stalled = problems(&works, std::slice::from_ref(&dead));
        assert!(matches!(
            stalled[..],
            [Problem::Stalled { silent: 1 }, Problem::DeadConsumer { pending: 4, .. }]
        ));
        let helped = problems(&works, &[dead, consumer(Liveness::Alive, 0, 16)]);
        assert!(matches!(helped[..], [Problem::DeadConsumer { .. }]));
        assert!(matches!(problems(&works, &[])[..], [Problem::Stalled { silent: 0 }]));
    }

    #[test]
    fn types_without_a_handler_are_named() {
        let waits = GroupInfo { unhandled: vec!["a".into(), "b\n".into()], ..group() };
        let found = problems(&waits, &[consumer(Liveness::Alive, 0, 16)]);
        assert_eq!(found[0].as_str(), "unhandled");
        let text = found[0].to_string();
        assert!(
            text.starts_with("no live process has a handler for event types a, b\\n;"),
            "{text}"
        );
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
            diagnosis.problems[..],
            [Problem::TrimmedUnread { entries: 7 }, Problem::Paused { .. }]
        ));
        assert!(diagnosis.to_string().contains("paused for 90 s"), "{diagnosis}");
        let words = diagnosis.problems.iter().map(Problem::as_str).collect::<Vec<_>>();
        assert_eq!(words, ["trimmed_unread", "paused"]);
        assert!(!diagnosis.is_healthy());
    }
}
