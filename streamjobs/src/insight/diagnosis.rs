//! What is wrong with a group, decided from what was read: pure.

use std::fmt;
use std::time::Duration;

use crate::insight::consumer_problems::{claimed_early, rates_differ, slots_taken};
use crate::insight::limit::in_force;
use crate::insight::problem::Problem;
use crate::insight::rate::RateInfo;
use crate::insight::view::{ConsumerInfo, GroupInfo, Liveness};

/// What is wrong with a group, the most severe first. A healthy group has no problems.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// What is wrong.
    pub problems: Vec<Problem>,
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
        if group.without_group > 0 {
            let (without_group, partitions) = (group.without_group, group.partitions);
            problems.push(Problem::PartitionsUnread { without_group, partitions });
        }
        let has = |liveness| move |consumer: &&ConsumerInfo| consumer.liveness == liveness;
        let silent = consumers.iter().filter(has(Liveness::Silent));
        let none_alive = consumers.iter().all(|consumer| consumer.liveness == Liveness::Silent);
        let parked = group.parked.unwrap_or(0);
        let has_work = group.backlog.entries > 0
            || group.pending + group.released + group.retrying + parked > 0;
        let with_group = group.partitions.saturating_sub(group.without_group);
        let is_paused = group.paused.is_some() && group.paused_in >= with_group;
        if let Some(paused) = group.paused {
            let part = (!is_paused).then_some((group.paused_in, group.partitions));
            problems.push(Problem::Paused { paused, part });
        }
        if !is_paused && has_work && none_alive {
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
        if !is_paused && !none_alive {
            problems.extend(not_acknowledging(group));
            problems.extend(waiting(group, consumers));
        }
        problems.extend(rates_differ(consumers));
        problems.extend(claimed_early(consumers));
        problems.extend(failures(group, consumers));
        // The sort is stable.
        problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity()));
        Self { problems }
    }
}

/// The oldest pending entry is not renewed, and more entries are pending than wait.
fn not_acknowledging(group: &GroupInfo) -> Option<Problem> {
    let oldest = group.oldest_pending.filter(|oldest| *oldest >= PENDING_MAX)?;
    let pending = group.pending;
    (pending >= group.backlog.entries).then_some(Problem::NotAcknowledging { pending, oldest })
}

/// Work waits: either the consumers are busy, or they do not read.
fn waiting(group: &GroupInfo, consumers: &[ConsumerInfo]) -> Option<Problem> {
    // Entries that waited during a pause have waited for the consumers only since its end.
    let since = group.resumed.unwrap_or(Duration::MAX);
    let oldest = group.oldest_waiting.filter(|oldest| since.min(*oldest) >= WAITING_MAX)?;
    if let Some(rate) = group.rate.filter(RateInfo::holds_back) {
        let next = rate.limited.unwrap_or_default().max(rate.next);
        let rate = rate.in_force().filter(|_| rate.limited.is_none());
        return Some(Problem::RateLimited { rate, next, oldest });
    }
    let alive = consumers.iter().filter(|consumer| consumer.liveness != Liveness::Silent);
    let slots = alive.clone().filter_map(|consumer| consumer.slots).sum::<u64>();
    // Jobs that the server refuses to settle are pending and take no slot.
    let refused = alive.clone().filter_map(|consumer| consumer.refused).sum::<u64>();
    let pending = group.pending.saturating_sub(refused);
    let in_flight = alive.filter_map(|consumer| consumer.in_flight).sum::<u64>().max(pending);
    Some(match in_flight >= slots.saturating_mul(BUSY_PERCENT) / 100 {
        true => Problem::TooFewConsumers { in_flight, slots, oldest },
        false => limit_reached(group, consumers, in_flight, oldest)
            .or_else(|| slots_taken(consumers, BUSY_PERCENT, oldest))
            .unwrap_or(Problem::NotReading { oldest }),
    })
}

/// Work waits although slots are free, because of the processes' limit.
fn limit_reached(
    group: &GroupInfo,
    consumers: &[ConsumerInfo],
    in_flight: u64,
    oldest: Duration,
) -> Option<Problem> {
    let mut alive = consumers.iter().filter(|consumer| consumer.liveness != Liveness::Silent);
    let limited = alive.find(|consumer| consumer.limits.is_some())?;
    let (limits, total) = in_force(group, limited)?;
    let parked = group.parked.unwrap_or(0);
    let is_reached = match total {
        // A job whose process died also has a place.
        Some(limit) => in_flight.max(group.pending + group.released) >= limit,
        None => parked > 0,
    };
    let longest_line = group.longest_line.clone();
    is_reached.then_some(Problem::LimitReached {
        limits,
        parked,
        longest_line,
        holder: None,
        oldest,
    })
}

/// What fails: a share of the attempts, jobs that wait for a retry, and new dead letters.
fn failures(group: &GroupInfo, consumers: &[ConsumerInfo]) -> Vec<Problem> {
    let alive = consumers.iter().filter(|consumer| consumer.liveness == Liveness::Alive);
    let failed = alive.clone().filter_map(|consumer| consumer.recent_failed).sum::<u64>();
    let done = alive.filter_map(|consumer| consumer.recent_done).sum::<u64>();
    let attempts = done.saturating_add(failed);
    let is_large = |part: u64| part.saturating_mul(FAILING_ONE_IN) >= attempts;
    let mut problems = Vec::new();
    if failed >= FAILED_MIN && is_large(failed) {
        let error = group.retry_error.clone().or_else(|| group.dead_letter_error.clone());
        problems.push(Problem::Failing { failed, attempts, error });
    }
    if group.retry_error.is_some() && is_large(group.retrying) {
        let error = group.retry_error.clone();
        problems.push(Problem::Retrying { jobs: group.retrying, error });
    }
    if group.new_dead_letters > 0 {
        let (letters, error) = (group.new_dead_letters, group.dead_letter_error.clone());
        problems.push(Problem::DeadLetters { letters, error });
    }
    problems
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

/// The longest idle time with a live owner: entries in flight are renewed at a third of their lease.
const PENDING_MAX: Duration = Duration::from_secs(60);
/// The longest time that a job may wait.
const WAITING_MAX: Duration = Duration::from_secs(10);
/// From this percentage of taken slots on, the consumers count as busy.
const BUSY_PERCENT: u64 = 80;
/// With fewer failures than this, the share is not judged.
const FAILED_MIN: u64 = 5;
/// One failure in this many attempts is too many.
const FAILING_ONE_IN: u64 = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insight::severity::Severity;
    use crate::insight::view::{Backlog, SlotSet};
    use crate::model::rate::{Rate, SetRate};
    use crate::store::RateFacts;

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
            pending,
            in_flight: Some(pending),
            refused: Some(0),
            slots: Some(slots),
            ..ConsumerInfo::named("a", liveness)
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
    fn jobs_that_the_server_refuses_to_settle_take_no_slot() {
        let free = [ConsumerInfo { refused: Some(900), ..consumer(Liveness::Alive, 3, 16) }];
        let pending = GroupInfo { pending: 903, ..waiting(5, 40) };
        assert!(matches!(problems(&pending, &free)[..], [Problem::NotReading { .. }]));
        let busy = [ConsumerInfo { refused: Some(900), ..consumer(Liveness::Alive, 16, 16) }];
        let pending = GroupInfo { pending: 916, ..waiting(1_000, 40) };
        assert!(matches!(
            problems(&pending, &busy)[..],
            [Problem::TooFewConsumers { in_flight: 16, slots: 16, .. }]
        ));
    }

    #[test]
    fn work_that_waits_while_slots_are_free_is_not_read() {
        let free = [consumer(Liveness::Alive, 0, 16)];
        assert!(matches!(problems(&waiting(5, 40), &free)[..], [Problem::NotReading { .. }]));
    }

    #[test]
    fn work_that_waits_for_slots_that_other_groups_have_is_not_stuck() {
        let set = SlotSet { name: "mail".into(), slots: 20, in_use: 20 };
        let sharing = [ConsumerInfo { slot_set: Some(set), ..consumer(Liveness::Alive, 2, 20) }];
        let found = problems(&waiting(5, 40), &sharing);
        assert!(matches!(&found[..], [Problem::SharedSlotsTaken { set, .. }] if *set == "mail"));
    }

    #[test]
    fn work_that_waits_for_its_rate_is_not_stuck() {
        let free = [consumer(Liveness::Alive, 0, 16)];
        let seconds = Duration::from_secs;
        let rate = "1/30s".parse::<Rate>().unwrap();
        let facts = RateFacts { declared: Some(rate), ..RateFacts::default() };
        let found = |facts: RateFacts| {
            problems(&GroupInfo { rate: RateInfo::of(&facts), ..waiting(5, 40) }, &free)
        };
        let used = RateFacts { next: seconds(12), ahead: seconds(12), ..facts };
        let oldest = seconds(40);
        let limited = Problem::RateLimited { rate: Some(rate), next: seconds(12), oldest };
        assert_eq!(found(used), [limited]);
        assert!(
            found(used)[0]
                .to_string()
                .starts_with("no job starts for 12 s, because of the rate of 1/30s; ")
        );
        assert_eq!(found(facts), [Problem::NotReading { oldest }], "it could start some");
        let lifted = RateFacts { set: Some(SetRate::Unlimited), ..used };
        assert_eq!(found(lifted), [Problem::NotReading { oldest }]);
        let asked = RateFacts { limited: Some(seconds(50)), ..RateFacts::default() };
        let text = found(asked)[0].to_string();
        assert!(
            text.starts_with("no job starts for 50 s, because a job of the group has"),
            "{text}"
        );
    }

    #[test]
    fn work_that_waits_for_a_limit_over_all_processes_is_not_stuck() {
        let oldest = Duration::from_secs(40);
        let with = |limits: &str, in_flight| {
            [ConsumerInfo {
                limits: Some(limits.to_owned()),
                ..consumer(Liveness::Alive, in_flight, 16)
            }]
        };
        let of_group = |limit: &str, in_flight| {
            problems(&waiting(5, 40), &with(&format!("{limit} at once for each group"), in_flight))
        };
        let text = of_group("4", 4)[0].to_string();
        let expected = "no more jobs run, because of the limit: 4 at once for each group; ";
        assert!(text.starts_with(expected), "{text}");
        assert_eq!(of_group("4", 3), [Problem::NotReading { oldest }], "it admits one more");
        let key = "1 at once for each key, kept by retries";
        assert_eq!(problems(&waiting(5, 40), &with(key, 1)), [Problem::NotReading { oldest }]);
        let lined = GroupInfo {
            parked: Some(10_000),
            longest_line: Some(("c-7".to_owned(), 9_000)),
            ..waiting(5, 40)
        };
        let text = problems(&lined, &with(key, 1))[0].to_string();
        let expected = "no more jobs run, because of the limit: 1 at once for each key, kept by retries; 10000 jobs wait \
                        for their key, 9000 of them for c-7; ";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn jobs_in_lines_without_a_consumer_are_stalled() {
        let lined = GroupInfo { parked: Some(3), ..group() };
        assert!(matches!(problems(&lined, &[])[..], [Problem::Stalled { silent: 0 }]));
    }

    #[test]
    fn processes_with_different_rates_are_named() {
        let with = |name: &str, rate: Option<&str>| ConsumerInfo {
            name: name.into(),
            rate: rate.map(|rate| rate.parse().unwrap()),
            ..consumer(Liveness::Alive, 0, 16)
        };
        let same = [with("a", Some("1/30s")), with("b", Some("1/30s"))];
        assert!(problems(&group(), &same).is_empty());
        let dead = ConsumerInfo { liveness: Liveness::Silent, ..with("c", None) };
        assert!(problems(&group(), &[same[0].clone(), dead]).is_empty());
        let differ = [with("a", Some("1/30s")), with("b", Some("1/1m")), with("c", None)];
        let text = problems(&group(), &differ)[0].to_string();
        let expected = "processes have different rates: 1/1m in b; 1/30s in a; none in c; run one";
        assert!(text.starts_with(expected), "{text}");
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
    fn consumers_of_other_software_that_take_running_jobs_are_named_once() {
        let named = |name: &str, by: &str| ConsumerInfo {
            name: name.into(),
            claimed_early_by: Some(by.into()),
            ..consumer(Liveness::Alive, 1, 16)
        };
        let other = ConsumerInfo { name: "peer-7".into(), ..consumer(Liveness::Unknown, 1, 0) };
        let consumers = [named("a", "peer-7"), named("b", "peer-7"), named("c", "a"), other];
        let found = problems(&group(), &consumers);
        assert!(matches!(&found[..], [Problem::ClaimedEarly { consumer }] if consumer == "peer-7"));
        assert!(found[0].to_string().starts_with("peer-7, a consumer of other software, "));
        assert!(problems(&group(), &consumers[..3]).is_empty(), "a gone or own one is not named");
    }

    #[test]
    fn partitions_without_the_group_are_a_problem_and_a_pause_of_some_says_so() {
        let paused = Some(Duration::from_secs(90));
        let spread =
            GroupInfo { partitions: 12, without_group: 3, paused, paused_in: 8, ..group() };
        let found = problems(&spread, &[consumer(Liveness::Alive, 0, 16)]);
        let text = found.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(
            text[0].starts_with("3 of 12 partitions do not have the group; restart"),
            "{text:?}"
        );
        assert!(text[1].starts_with("paused for 90 s in 8 of 12 partitions; "), "{text:?}");
        assert_eq!(found[0].severity(), Severity::Critical);
        let found = problems(&GroupInfo { paused_in: 9, ..spread }, &[]);
        assert!(found[1].to_string().starts_with("paused for 90 s; "), "everywhere: {found:?}");
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

    fn worked(done: u64, failed: u64) -> ConsumerInfo {
        let (recent_done, recent_failed) = (Some(done), Some(failed));
        ConsumerInfo { recent_done, recent_failed, ..consumer(Liveness::Alive, 0, 16) }
    }

    #[test]
    fn a_share_of_failures_is_a_problem_and_critical_where_everything_fails() {
        let found = |done, failed| {
            let found = problems(&group(), &[worked(done, failed), worked(0, 0)]);
            found.first().map(|problem| (problem.as_str(), problem.severity()))
        };
        assert_eq!(found(0, 60), Some(("failing", Severity::Critical)));
        assert_eq!(found(95, 5), Some(("failing", Severity::Warning)));
        assert_eq!(found(96, 5), None, "fewer than one in twenty");
        assert_eq!(found(0, 4), None, "too few to be a share");
        let dead = ConsumerInfo { liveness: Liveness::Silent, ..worked(0, 60) };
        assert!(problems(&group(), &[dead]).is_empty(), "what the dead said is old");
    }

    #[test]
    fn retries_and_new_dead_letters_are_problems_with_their_error() {
        let failed = GroupInfo {
            retrying: 61,
            retry_error: Some("no route to mail\n".into()),
            new_dead_letters: 100,
            dead_letter_error: Some("gone".into()),
            ..group()
        };
        let found = problems(&failed, &[worked(0, 60)]);
        let words = found.iter().map(Problem::as_str).collect::<Vec<_>>();
        assert_eq!(words, ["failing", "retrying", "dead_letters"]);
        let text = Diagnosis { problems: found.clone() }.to_string();
        for part in [
            "60 of 60 attempts of the last five minutes failed, with the error: no route to mail\\n; ",
            "61 jobs wait for a retry after a failure, with the error: no route to mail\\n; ",
            "100 or more dead letters were stored within the last hour, with the error: gone; ",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let hidden = found.iter().map(|problem| problem.without_error().to_string());
        assert!(hidden.into_iter().all(|text| !text.contains("mail") && !text.contains("gone")));
        assert!(
            problems(&GroupInfo { new_dead_letters: 0, ..failed.clone() }, &[worked(9_999, 0)])
                .is_empty()
        );
        let older = problems(&failed, &[consumer(Liveness::Alive, 0, 16)]);
        assert_eq!(older.len(), 2, "an older version does not say its attempts: {older:?}");
        let snoozed = GroupInfo { retrying: 61, ..group() };
        assert!(problems(&snoozed, &[consumer(Liveness::Alive, 0, 16)]).is_empty());
    }

    #[test]
    fn a_paused_group_is_only_paused_and_a_loss_comes_first() {
        let paused = GroupInfo {
            paused: Some(Duration::from_secs(90)),
            paused_in: 1,
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
