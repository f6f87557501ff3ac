//! When an alert begins and ends: thresholds with hysteresis, decided from samples. Pure.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::insight::condition::Condition;
use crate::insight::phrase;
use crate::insight::view::GroupInfo;
use crate::model::config::AlertRules;

/// A condition that has begun, or is over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Alert {
    /// What is wrong.
    pub condition: Condition,
    /// The stream.
    pub stream: String,
    /// The group.
    pub group: String,
    /// Whether the condition has begun; otherwise it is over.
    pub raised: bool,
    /// What was found, with its figures.
    pub text: String,
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let over = if self.raised { "" } else { "over: " };
        write!(f, "{over}group {} on stream {}: {}", self.group, self.stream, self.text)
    }
}

/// How often something happened in a queue since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventCounts {
    pub(crate) claimed: u64,
    pub(crate) dead_lettered: u64,
    /// Attempts that were snoozed until an operator has repaired something.
    pub(crate) blocked: u64,
    pub(crate) groups_recreated: u64,
    pub(crate) removed_in_flight: u64,
    pub(crate) trimmed_unread: u64,
}

/// A sample of a queue: what was read at one time.
#[derive(Debug)]
pub(crate) struct QueueSample<'a> {
    pub(crate) happened: EventCounts,
    /// What the last blocked attempt needs.
    pub(crate) blocked_cause: &'a str,
    /// `None` if the server did not answer.
    pub(crate) group: Option<&'a GroupInfo>,
    /// Whether reads succeed on the reading connection.
    pub(crate) reads: bool,
    /// The length of the stream, and its limit.
    pub(crate) length: Option<u64>,
    pub(crate) length_max: Option<u64>,
    /// The group that keeps the stream from being trimmed, if the stream is too long.
    pub(crate) blocked_by: Option<&'a str>,
}

/// The conditions of one queue that have begun and are not over.
#[derive(Debug)]
pub(crate) struct AlertState {
    stream: String,
    group: String,
    rules: AlertRules,
    /// When each condition began; for a condition that counts events, when such an event last
    /// happened.
    raised: HashMap<Condition, Instant>,
    happened: EventCounts,
    claims: VecDeque<(Instant, u64)>,
}

/// A sample compared with the threshold of one condition.
enum Level {
    /// At or above the threshold; in words.
    Over(String),
    /// Below the threshold and above half of it: nothing changes.
    Between,
    Under,
}

impl AlertState {
    pub(crate) fn new(stream: String, group: String, rules: AlertRules) -> Self {
        Self {
            stream,
            group,
            rules,
            raised: HashMap::new(),
            happened: EventCounts::default(),
            claims: VecDeque::new(),
        }
    }

    /// Takes a sample, and returns an alert for each condition that starts or ends with this sample.
    pub(crate) fn update(&mut self, now: Instant, sample: &QueueSample<'_>) -> Vec<Alert> {
        let mut alerts = Vec::new();
        for (condition, level) in self.levels(now, sample) {
            alerts.extend(self.compare(now, condition, level));
        }
        for (condition, text) in self.events(sample) {
            alerts.extend(self.count(now, condition, text));
        }
        self.happened = sample.happened;
        alerts
    }

    fn compare(&mut self, now: Instant, condition: Condition, level: Level) -> Option<Alert> {
        match level {
            Level::Over(text) if !self.raised.contains_key(&condition) => {
                self.raised.insert(condition, now);
                Some(self.alert(condition, true, text))
            }
            Level::Under => {
                let since = self.raised.remove(&condition)?;
                let lasted = now.saturating_duration_since(since).as_secs();
                Some(self.alert(condition, false, format!("it lasted for {lasted} s")))
            }
            Level::Over(_) | Level::Between => None,
        }
    }

    fn count(&mut self, now: Instant, condition: Condition, text: Option<String>) -> Option<Alert> {
        match text {
            Some(text) => {
                let before = self.raised.insert(condition, now);
                before.is_none().then(|| self.alert(condition, true, text))
            }
            None => {
                let last = *self.raised.get(&condition)?;
                let clear_after = self.rules.clear_after;
                if now.saturating_duration_since(last) < clear_after {
                    return None;
                }
                self.raised.remove(&condition);
                let text = format!("it has not happened for {} s", clear_after.as_secs());
                Some(self.alert(condition, false, text))
            }
        }
    }

    fn levels(&mut self, now: Instant, sample: &QueueSample<'_>) -> Vec<(Condition, Level)> {
        let claims = self.claims_of_a_minute(now, sample.happened.claimed);
        let rules = self.rules;
        let no_read = || "no read of this process has succeeded in time".to_owned();
        let mut found = vec![
            (Condition::NoRead, over((!sample.reads).then(no_read))),
            (
                Condition::Claims,
                count(rules.claims, claims, |entries| {
                    format!(
                        "{entries} entries were claimed within a minute from processes that \
                         stopped renewing"
                    )
                }),
            ),
        ];
        // Without an answer, the other conditions neither begin nor end.
        let Some(group) = sample.group else { return found };
        let beyond = group.beyond.map(|last| phrase::cursor_beyond(group.cursor, last));
        found.push((Condition::CursorBeyond, over(beyond)));
        let waiting = |_| format!("{} entries wait", group.backlog);
        found.push((Condition::Backlog, count(rules.backlog, group.backlog.entries, waiting)));
        found.push((Condition::Pending, count(rules.pending, group.pending, phrase::pending)));
        let waiting = age(rules.oldest_waiting, group.oldest_waiting, phrase::oldest_waiting);
        found.push((Condition::OldestWaiting, waiting));
        let pending = age(rules.oldest_pending, group.oldest_pending, phrase::oldest_pending);
        found.push((Condition::OldestPending, pending));
        if let Some(length) = sample.length {
            let exceeded = sample.length_max.filter(|max| length > *max);
            let text = |max: u64| format!("the stream holds {length} entries, more than {max}");
            found.push((Condition::StreamLength, over(exceeded.map(text))));
            let holder = sample.blocked_by.filter(|_| exceeded.is_some());
            let text = |holder: &str| {
                format!("group {holder} needs old entries; the stream cannot be trimmed")
            };
            found.push((Condition::TrimBlocked, over(holder.map(text))));
        }
        found
    }

    fn events(&self, sample: &QueueSample<'_>) -> [(Condition, Option<String>); 5] {
        let (old, new) = (&self.happened, &sample.happened);
        let more =
            |before: u64, now: u64| Some(now.saturating_sub(before)).filter(|more| *more > 0);
        let dead_lettered = more(old.dead_lettered, new.dead_lettered)
            .map(|jobs| format!("{jobs} jobs were stored as dead letters"));
        let blocked = more(old.blocked, new.blocked)
            .map(|attempts| format!("{attempts} attempts were snoozed: {}", sample.blocked_cause));
        let recreated = more(old.groups_recreated, new.groups_recreated)
            .map(|times| format!("the group was lost and recreated {times} times"));
        let removed = more(old.removed_in_flight, new.removed_in_flight).map(|entries| {
            format!("another client removed {entries} entries while their jobs ran; the jobs go on")
        });
        let trimmed = more(old.trimmed_unread, new.trimmed_unread).map(phrase::trimmed_unread);
        [
            (Condition::DeadLetters, dead_lettered),
            (Condition::JobsBlocked, blocked),
            (Condition::GroupLost, recreated),
            (Condition::RemovedInFlight, removed),
            (Condition::TrimmedUnread, trimmed),
        ]
    }

    fn claims_of_a_minute(&mut self, now: Instant, claimed: u64) -> u64 {
        self.claims.push_back((now, claimed));
        let old = |(then, _): &(Instant, u64)| now.saturating_duration_since(*then) > MINUTE;
        // The last sample before the minute is where the minute begins.
        while self.claims.len() > 2 && self.claims.get(1).is_some_and(old) {
            self.claims.pop_front();
        }
        let before = self.claims.front().filter(|_| self.claims.len() > 1);
        claimed.saturating_sub(before.map_or(0, |(_, before)| *before))
    }

    fn alert(&self, condition: Condition, raised: bool, text: String) -> Alert {
        Alert { condition, stream: self.stream.clone(), group: self.group.clone(), raised, text }
    }
}

fn over(text: Option<String>) -> Level {
    text.map_or(Level::Under, Level::Over)
}

fn count(threshold: Option<u64>, value: u64, text: impl FnOnce(u64) -> String) -> Level {
    match threshold {
        Some(threshold) if value >= threshold => Level::Over(text(value)),
        Some(threshold) if value >= threshold.div_ceil(2) => Level::Between,
        _ => Level::Under,
    }
}

fn age(
    threshold: Option<Duration>,
    value: Option<Duration>,
    text: impl FnOnce(Duration) -> String,
) -> Level {
    let value = value.unwrap_or_default();
    match threshold {
        Some(threshold) if value >= threshold => Level::Over(text(value)),
        Some(threshold) if value >= threshold / 2 => Level::Between,
        _ => Level::Under,
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insight::view::Backlog;
    use crate::model::entry::EntryId;

    fn group(entries: u64) -> GroupInfo {
        GroupInfo { backlog: Backlog { entries, exact: true }, ..GroupInfo::idle() }
    }

    fn sample(group: &GroupInfo) -> QueueSample<'_> {
        QueueSample {
            happened: EventCounts::default(),
            blocked_cause: "",
            group: Some(group),
            reads: true,
            length: Some(10),
            length_max: Some(100),
            blocked_by: None,
        }
    }

    fn alert_state() -> AlertState {
        AlertState::new("orders".into(), "mail".into(), AlertRules::new().backlog(100).pending(50))
    }

    fn conditions(alerts: &[Alert]) -> Vec<(Condition, bool)> {
        alerts.iter().map(|alert| (alert.condition, alert.raised)).collect()
    }

    #[test]
    fn a_level_is_reported_once_and_is_over_below_half() {
        let (mut state, now) = (alert_state(), Instant::now());
        let mut update = |entries| conditions(&state.update(now, &sample(&group(entries))));
        assert_eq!(update(99), []);
        assert_eq!(update(100), [(Condition::Backlog, true)]);
        for between in [500, 99, 50] {
            assert_eq!(update(between), [], "{between}");
        }
        assert_eq!(update(49), [(Condition::Backlog, false)]);
        assert_eq!(update(99), [], "between is not enough to begin");
    }

    #[test]
    fn every_level_is_raised_by_its_own_sample() {
        let now = Instant::now();
        let minutes = Some(Duration::from_secs(600));
        for (condition, info) in [
            (Condition::Pending, GroupInfo { pending: 50, ..group(0) }),
            (Condition::OldestWaiting, GroupInfo { oldest_waiting: minutes, ..group(0) }),
            (Condition::OldestPending, GroupInfo { oldest_pending: minutes, ..group(0) }),
        ] {
            assert_eq!(conditions(&alert_state().update(now, &sample(&info))), [(condition, true)]);
        }
        let beyond = GroupInfo { beyond: Some(EntryId::new(7, 1)), ..group(0) };
        let alerts = alert_state().update(now, &sample(&beyond));
        assert_eq!(conditions(&alerts), [(Condition::CursorBeyond, true)]);
        assert_eq!(alerts[0].text, "the cursor 0-0 is beyond the last id 7-1");
        let info = group(0);
        let blind = QueueSample { reads: false, ..sample(&info) };
        assert_eq!(conditions(&alert_state().update(now, &blind)), [(Condition::NoRead, true)]);
        let long = QueueSample { length: Some(101), blocked_by: Some("slow"), ..sample(&info) };
        let alerts = alert_state().update(now, &long);
        assert_eq!(
            conditions(&alerts),
            [(Condition::StreamLength, true), (Condition::TrimBlocked, true)]
        );
        assert!(alerts[1].text.contains("group slow"), "{}", alerts[1]);
    }

    #[test]
    fn an_event_is_reported_once_until_it_has_not_happened_for_a_time() {
        let (mut state, began, info) = (alert_state(), Instant::now(), group(0));
        let mut update = |seconds, dead_lettered| {
            let happened = EventCounts { dead_lettered, ..EventCounts::default() };
            let now = began + Duration::from_secs(seconds);
            conditions(&state.update(now, &QueueSample { happened, ..sample(&info) }))
        };
        assert_eq!(update(0, 1), [(Condition::DeadLetters, true)]);
        assert_eq!(update(200, 2), [], "it still happens");
        assert_eq!(update(499, 2), []);
        assert_eq!(update(500, 2), [(Condition::DeadLetters, false)]);
        assert_eq!(update(501, 3), [(Condition::DeadLetters, true)]);
    }

    #[test]
    fn blocked_jobs_are_reported_with_what_they_need() {
        let (mut state, info) = (alert_state(), group(0));
        let happened = EventCounts { blocked: 7, ..EventCounts::default() };
        let reading = QueueSample { happened, blocked_cause: "no right", ..sample(&info) };
        let alerts = state.update(Instant::now(), &reading);
        assert_eq!(conditions(&alerts), [(Condition::JobsBlocked, true)]);
        assert_eq!(alerts[0].text, "7 attempts were snoozed: no right");
    }

    #[test]
    fn losses_and_lost_groups_are_reported() {
        let (mut state, info) = (alert_state(), group(0));
        let happened =
            EventCounts { groups_recreated: 1, trimmed_unread: 9, ..EventCounts::default() };
        let alerts = state.update(Instant::now(), &QueueSample { happened, ..sample(&info) });
        assert_eq!(
            conditions(&alerts),
            [(Condition::GroupLost, true), (Condition::TrimmedUnread, true)]
        );
    }

    #[test]
    fn claims_are_counted_over_a_minute() {
        let (mut state, began, info) = (alert_state(), Instant::now(), group(0));
        let mut update = |seconds, claimed| {
            let happened = EventCounts { claimed, ..EventCounts::default() };
            let now = began + Duration::from_secs(seconds);
            conditions(&state.update(now, &QueueSample { happened, ..sample(&info) }))
        };
        assert_eq!(update(0, 0), []);
        assert_eq!(update(30, 99), []);
        assert_eq!(update(60, 100), [(Condition::Claims, true)]);
        assert_eq!(update(89, 101), []);
        assert_eq!(update(180, 101), [(Condition::Claims, false)]);
    }

    #[test]
    fn without_an_answer_no_condition_begins_or_ends() {
        let (mut state, now, info) = (alert_state(), Instant::now(), group(500));
        state.update(now, &sample(&info));
        let unknown = QueueSample { group: None, length: None, ..sample(&info) };
        assert!(state.update(now, &unknown).is_empty());
        assert_eq!(
            conditions(&state.update(now, &sample(&group(0)))),
            [(Condition::Backlog, false)]
        );
    }

    #[test]
    fn a_rule_that_is_off_reports_nothing() {
        let rules = AlertRules::new().backlog(None).pending(None);
        let mut state = AlertState::new("orders".into(), "mail".into(), rules);
        assert!(state.update(Instant::now(), &sample(&group(1_000_000))).is_empty());
    }
}
