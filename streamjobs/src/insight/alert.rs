//! When somebody should look: thresholds with hysteresis, decided from what was read. Pure.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::insight::view::GroupInfo;
use crate::model::config::AlertRules;

/// What an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AlertKind {
    /// Many entries wait for the group.
    Backlog,
    /// Many entries are delivered and not acknowledged.
    Pending,
    /// An entry has waited for long.
    OldestWaiting,
    /// Nothing has been heard of a pending entry for long.
    OldestPending,
    /// This process claims much from processes that are not heard of: they die, or stall.
    Claims,
    /// Jobs were stored as dead letters by this process.
    DeadLetters,
    /// The group was lost and made again.
    GroupLost,
    /// Entries were trimmed before the group had got them.
    TrimmedUnread,
    /// No read of this process has succeeded within its time.
    NoRead,
    /// A group keeps the stream from being trimmed to its history.
    TrimBlocked,
    /// The stream is longer than its ceiling.
    StreamLength,
}

impl AlertKind {
    /// The word for it in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backlog => "backlog",
            Self::Pending => "pending",
            Self::OldestWaiting => "oldest_waiting",
            Self::OldestPending => "oldest_pending",
            Self::Claims => "claims",
            Self::DeadLetters => "dead_letters",
            Self::GroupLost => "group_lost",
            Self::TrimmedUnread => "trimmed_unread",
            Self::NoRead => "no_read",
            Self::TrimBlocked => "trim_blocked",
            Self::StreamLength => "stream_length",
        }
    }
}

/// Something that somebody should look at, or that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Alert {
    /// What it is about.
    pub kind: AlertKind,
    /// The stream.
    pub stream: String,
    /// The group.
    pub group: String,
    /// Whether it began; else it is over.
    pub raised: bool,
    /// What was found, in words.
    pub text: String,
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let over = if self.raised { "" } else { "over: " };
        write!(f, "{over}group {} on stream {}: {}", self.group, self.stream, self.text)
    }
}

/// What happened in a queue since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Happened {
    pub(crate) claimed: u64,
    pub(crate) dead_lettered: u64,
    pub(crate) groups_recreated: u64,
    pub(crate) trimmed_unread: u64,
}

/// One look at a queue.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    pub(crate) happened: Happened,
    /// None where the server could not be asked.
    pub(crate) group: Option<&'a GroupInfo>,
    /// Whether the reading connection reads.
    pub(crate) reads: bool,
    /// How long the stream is, and how long it may be.
    pub(crate) length: Option<u64>,
    pub(crate) length_max: Option<u64>,
    /// The group that keeps the stream from being trimmed, if the stream is too long.
    pub(crate) blocked_by: Option<&'a str>,
}

/// What is raised at present in one queue.
#[derive(Debug)]
pub(crate) struct Watch {
    stream: String,
    group: String,
    rules: AlertRules,
    /// Since when each alert has been raised, or when it last happened.
    raised: HashMap<AlertKind, Instant>,
    happened: Happened,
    claims: VecDeque<(Instant, u64)>,
}

/// What a reading says of one alert.
enum Found {
    /// It is there, and in words.
    Yes(String),
    /// Neither there nor over.
    Between,
    No,
}

impl Watch {
    pub(crate) fn new(stream: String, group: String, rules: AlertRules) -> Self {
        Self {
            stream,
            group,
            rules,
            raised: HashMap::new(),
            happened: Happened::default(),
            claims: VecDeque::new(),
        }
    }

    /// What begins and what ends with this reading.
    pub(crate) fn look(&mut self, now: Instant, reading: &Reading<'_>) -> Vec<Alert> {
        let mut alerts = Vec::new();
        for (kind, found) in self.levels(now, reading) {
            alerts.extend(self.level(now, kind, found));
        }
        for (kind, text) in self.happenings(&reading.happened) {
            alerts.extend(self.happening(now, kind, text));
        }
        self.happened = reading.happened;
        alerts
    }

    fn level(&mut self, now: Instant, kind: AlertKind, found: Found) -> Option<Alert> {
        match found {
            Found::Yes(text) if !self.raised.contains_key(&kind) => {
                self.raised.insert(kind, now);
                Some(self.alert(kind, true, text))
            }
            Found::No => {
                let since = self.raised.remove(&kind)?;
                let lasted = now.saturating_duration_since(since).as_secs();
                Some(self.alert(kind, false, format!("it lasted for {lasted} s")))
            }
            Found::Yes(_) | Found::Between => None,
        }
    }

    fn happening(&mut self, now: Instant, kind: AlertKind, text: Option<String>) -> Option<Alert> {
        match text {
            Some(text) => {
                let before = self.raised.insert(kind, now);
                before.is_none().then(|| self.alert(kind, true, text))
            }
            None => {
                let last = *self.raised.get(&kind)?;
                if now.saturating_duration_since(last) < self.rules.quiet {
                    return None;
                }
                self.raised.remove(&kind);
                let quiet = self.rules.quiet.as_secs();
                Some(self.alert(kind, false, format!("it has not happened for {quiet} s")))
            }
        }
    }

    fn levels(&mut self, now: Instant, reading: &Reading<'_>) -> Vec<(AlertKind, Found)> {
        let claims = self.claims_of_a_minute(now, reading.happened.claimed);
        let rules = self.rules;
        let mut found = vec![
            (
                AlertKind::NoRead,
                match reading.reads {
                    false => {
                        Found::Yes("no read of this process has succeeded within its time".into())
                    }
                    true => Found::No,
                },
            ),
            (
                AlertKind::Claims,
                count(rules.claims, claims, |entries| {
                    format!(
                        "{entries} entries were claimed within a minute from processes not heard of"
                    )
                }),
            ),
        ];
        // What could not be asked is neither there nor over.
        let Some(group) = reading.group else { return found };
        let age = |age: Option<Duration>| age.unwrap_or_default();
        found.push((
            AlertKind::Backlog,
            count(rules.backlog, group.backlog.entries, |_| {
                format!("{} entries wait", group.backlog)
            }),
        ));
        found.push((
            AlertKind::Pending,
            count(rules.pending, group.pending, |entries| {
                format!("{entries} entries are delivered and not acknowledged")
            }),
        ));
        let waiting = span(rules.oldest_waiting, age(group.oldest_waiting), |seconds| {
            format!("the oldest entry has waited for {seconds} s")
        });
        found.push((AlertKind::OldestWaiting, waiting));
        let pending = span(rules.oldest_pending, age(group.oldest_pending), |seconds| {
            format!("nothing has been heard of the oldest pending entry for {seconds} s")
        });
        found.push((AlertKind::OldestPending, pending));
        if let Some(length) = reading.length {
            let ceiling = reading.length_max;
            let long = match ceiling {
                Some(max) if length > max => {
                    Found::Yes(format!("the stream holds {length} entries, more than {max}"))
                }
                _ => Found::No,
            };
            found.push((AlertKind::StreamLength, long));
            let held = reading.blocked_by.filter(|_| ceiling.is_some_and(|max| length > max));
            let held = held.map_or(Found::No, |holder| {
                Found::Yes(format!(
                    "group {holder} needs old entries: the stream cannot be trimmed to its history"
                ))
            });
            found.push((AlertKind::TrimBlocked, held));
        }
        found
    }

    fn happenings(&self, new: &Happened) -> [(AlertKind, Option<String>); 3] {
        let more = |before: u64, now: u64, what: &str| {
            let more = now.saturating_sub(before);
            (more > 0).then(|| format!("{more} {what}"))
        };
        let old = &self.happened;
        [
            (
                AlertKind::DeadLetters,
                more(old.dead_lettered, new.dead_lettered, "jobs were stored as dead letters"),
            ),
            (
                AlertKind::GroupLost,
                more(
                    old.groups_recreated,
                    new.groups_recreated,
                    "times the group was lost and made again",
                ),
            ),
            (
                AlertKind::TrimmedUnread,
                more(
                    old.trimmed_unread,
                    new.trimmed_unread,
                    "entries were trimmed before they were delivered, and are lost for the group",
                ),
            ),
        ]
    }

    fn claims_of_a_minute(&mut self, now: Instant, claimed: u64) -> u64 {
        self.claims.push_back((now, claimed));
        let old = |(then, _): &(Instant, u64)| now.saturating_duration_since(*then) > MINUTE;
        // The last one before the minute is where the minute begins.
        while self.claims.len() > 2 && self.claims.get(1).is_some_and(old) {
            self.claims.pop_front();
        }
        let before = self.claims.front().filter(|_| self.claims.len() > 1);
        claimed.saturating_sub(before.map_or(0, |(_, before)| *before))
    }

    fn alert(&self, kind: AlertKind, raised: bool, text: String) -> Alert {
        Alert { kind, stream: self.stream.clone(), group: self.group.clone(), raised, text }
    }
}

fn count(threshold: Option<u64>, value: u64, text: impl FnOnce(u64) -> String) -> Found {
    match threshold {
        Some(threshold) if value >= threshold => Found::Yes(text(value)),
        Some(threshold) if value >= threshold.div_ceil(2) => Found::Between,
        _ => Found::No,
    }
}

fn span(threshold: Option<Duration>, value: Duration, text: impl FnOnce(u64) -> String) -> Found {
    match threshold {
        Some(threshold) if value >= threshold => Found::Yes(text(value.as_secs())),
        Some(threshold) if value >= threshold / 2 => Found::Between,
        _ => Found::No,
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insight::view::Backlog;

    fn group(entries: u64) -> GroupInfo {
        GroupInfo { backlog: Backlog { entries, exact: true }, ..GroupInfo::idle() }
    }

    fn reading(group: &GroupInfo) -> Reading<'_> {
        Reading {
            happened: Happened::default(),
            group: Some(group),
            reads: true,
            length: Some(10),
            length_max: Some(100),
            blocked_by: None,
        }
    }

    fn watch() -> Watch {
        Watch::new("orders".into(), "mail".into(), AlertRules::new().backlog(100).pending(50))
    }

    fn kinds(alerts: &[Alert]) -> Vec<(AlertKind, bool)> {
        alerts.iter().map(|alert| (alert.kind, alert.raised)).collect()
    }

    #[test]
    fn a_level_is_told_once_and_is_over_below_half() {
        let (mut watch, now) = (watch(), Instant::now());
        let mut look = |entries| kinds(&watch.look(now, &reading(&group(entries))));
        assert_eq!(look(99), []);
        assert_eq!(look(100), [(AlertKind::Backlog, true)]);
        for between in [500, 99, 50] {
            assert_eq!(look(between), [], "{between}");
        }
        assert_eq!(look(49), [(AlertKind::Backlog, false)]);
        assert_eq!(look(99), [], "between is not enough to begin");
    }

    #[test]
    fn every_level_is_raised_by_its_own_reading() {
        let now = Instant::now();
        let minutes = Some(Duration::from_secs(600));
        for (kind, info) in [
            (AlertKind::Pending, GroupInfo { pending: 50, ..group(0) }),
            (AlertKind::OldestWaiting, GroupInfo { oldest_waiting: minutes, ..group(0) }),
            (AlertKind::OldestPending, GroupInfo { oldest_pending: minutes, ..group(0) }),
        ] {
            assert_eq!(kinds(&watch().look(now, &reading(&info))), [(kind, true)]);
        }
        let info = group(0);
        let blind = Reading { reads: false, ..reading(&info) };
        assert_eq!(kinds(&watch().look(now, &blind)), [(AlertKind::NoRead, true)]);
        let long = Reading { length: Some(101), blocked_by: Some("slow"), ..reading(&info) };
        let alerts = watch().look(now, &long);
        assert_eq!(
            kinds(&alerts),
            [(AlertKind::StreamLength, true), (AlertKind::TrimBlocked, true)]
        );
        assert!(alerts[1].text.contains("group slow"), "{}", alerts[1]);
    }

    #[test]
    fn what_happens_is_told_once_until_it_has_been_quiet() {
        let (mut watch, began, info) = (watch(), Instant::now(), group(0));
        let mut look = |seconds, dead_lettered| {
            let happened = Happened { dead_lettered, ..Happened::default() };
            let now = began + Duration::from_secs(seconds);
            kinds(&watch.look(now, &Reading { happened, ..reading(&info) }))
        };
        assert_eq!(look(0, 1), [(AlertKind::DeadLetters, true)]);
        assert_eq!(look(200, 2), [], "it goes on");
        assert_eq!(look(499, 2), []);
        assert_eq!(look(500, 2), [(AlertKind::DeadLetters, false)]);
        assert_eq!(look(501, 3), [(AlertKind::DeadLetters, true)]);
    }

    #[test]
    fn losses_and_lost_groups_are_told() {
        let (mut watch, info) = (watch(), group(0));
        let happened = Happened { groups_recreated: 1, trimmed_unread: 9, ..Happened::default() };
        let alerts = watch.look(Instant::now(), &Reading { happened, ..reading(&info) });
        assert_eq!(
            kinds(&alerts),
            [(AlertKind::GroupLost, true), (AlertKind::TrimmedUnread, true)]
        );
    }

    #[test]
    fn claims_are_counted_over_a_minute() {
        let (mut watch, began, info) = (watch(), Instant::now(), group(0));
        let mut look = |seconds, claimed| {
            let happened = Happened { claimed, ..Happened::default() };
            let now = began + Duration::from_secs(seconds);
            kinds(&watch.look(now, &Reading { happened, ..reading(&info) }))
        };
        assert_eq!(look(0, 0), []);
        assert_eq!(look(30, 99), []);
        assert_eq!(look(60, 100), [(AlertKind::Claims, true)]);
        assert_eq!(look(89, 101), []);
        assert_eq!(look(180, 101), [(AlertKind::Claims, false)]);
    }

    #[test]
    fn what_cannot_be_asked_is_neither_there_nor_over() {
        let (mut watch, now, info) = (watch(), Instant::now(), group(500));
        watch.look(now, &reading(&info));
        let unknown = Reading { group: None, length: None, ..reading(&info) };
        assert!(watch.look(now, &unknown).is_empty());
        assert_eq!(kinds(&watch.look(now, &reading(&group(0)))), [(AlertKind::Backlog, false)]);
    }

    #[test]
    fn a_rule_that_is_off_tells_nothing() {
        let rules = AlertRules::new().backlog(None).pending(None);
        let mut watch = Watch::new("orders".into(), "mail".into(), rules);
        assert!(watch.look(Instant::now(), &reading(&group(1_000_000))).is_empty());
    }
}
