//! How streams, groups and consumers are shown: what the server says, and what can be said of it.

use std::fmt;
use std::time::Duration;

use crate::model::entry::EntryId;
use crate::model::heartbeat::Heartbeat;
use crate::store::inspect::{ConsumerFacts, Consumers, GroupFacts};
use crate::store::{Queue, Store, StoreError};

/// Entries of a stream that a group has not got yet.
///
/// Nothing if the group's cursor is at the stream's last entry; all of them if it stands before the
/// first; the server's own lag where its version counts that right (7.4.4 and newer in that line,
/// 8.0 and newer); and otherwise as many as can be counted within a few milliseconds, at most
/// 1,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backlog {
    /// How many there are; at least so many if that is not exact.
    pub entries: u64,
    /// Whether these are all of them.
    pub exact: bool,
}

impl fmt::Display for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_least = if self.exact { "" } else { "at least " };
        write!(f, "{at_least}{}", self.entries)
    }
}

/// A group on a stream, all in one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupInfo {
    /// The stream.
    pub stream: String,
    /// The group.
    pub group: String,
    /// The last entry that was delivered to the group.
    pub cursor: EntryId,
    /// Entries that the group has not got yet.
    pub backlog: Backlog,
    /// The lag as the server names it; none where it says that it does not know, or names a
    /// negative one. It can be wrong on servers before 7.4.4 and on Valkey:
    /// [`backlog`](Self::backlog) is not.
    pub lag: Option<u64>,
    /// How long the first entry that the group has not got has been waiting, by the server's clock.
    pub oldest_waiting: Option<Duration>,
    /// Entries delivered and not acknowledged, those of the lane included.
    pub pending: u64,
    /// How long nothing has been heard of the oldest pending entry. Work in hand is renewed, so one
    /// older than the lease belongs to nobody who lives.
    pub oldest_pending: Option<Duration>,
    /// Failed jobs that wait for their back-off, and those in the lane that nobody has got yet.
    pub retrying: u64,
    /// Dead letters; none where their key holds something else.
    pub dead_letters: Option<u64>,
    /// Entries that retention took before the group had got them, as far as the server's counts
    /// tell: lost for this group. Entries deleted one by one in front of the cursor are included.
    pub trimmed_unread: u64,
    /// How long the group has been paused.
    pub paused: Option<Duration>,
}

impl GroupInfo {
    /// Looks at a group.
    pub(crate) async fn look(store: &dyn Store, queue: &Queue) -> Result<Self, StoreError> {
        let facts = store.group_facts(queue).await?;
        let backlog = match undelivered(&facts) {
            Some(entries) => Backlog { entries, exact: true },
            None => {
                let counted = store.count_after(&queue.stream, facts.cursor, COUNTED_MAX).await?;
                Backlog { entries: counted.entries, exact: counted.complete }
            }
        };
        Ok(Self::new(queue, &facts, backlog))
    }

    /// A group of which nothing is to be told.
    #[cfg(test)]
    pub(crate) fn idle() -> Self {
        Self {
            stream: "orders".into(),
            group: "mail".into(),
            cursor: EntryId::ZERO,
            backlog: Backlog { entries: 0, exact: true },
            lag: None,
            oldest_waiting: None,
            pending: 0,
            oldest_pending: None,
            retrying: 0,
            dead_letters: Some(0),
            trimmed_unread: 0,
            paused: None,
        }
    }

    fn new(queue: &Queue, facts: &GroupFacts, backlog: Backlog) -> Self {
        let since = |then: u64| Duration::from_millis(facts.now.0.saturating_sub(then));
        Self {
            stream: queue.stream.to_string(),
            group: queue.group.to_string(),
            cursor: facts.cursor,
            backlog,
            lag: facts.lag.and_then(|lag| u64::try_from(lag).ok()),
            oldest_waiting: facts.next.map(|next| since(next.milliseconds())),
            pending: facts.pending + facts.lane_pending,
            oldest_pending: facts.oldest_pending,
            retrying: facts.retrying + facts.lane_waiting,
            dead_letters: facts.dead_letters,
            trimmed_unread: facts.trimmed_unread + passed(facts),
            paused: facts.paused.map(since),
        }
    }
}

/// How many entries stand behind the cursor, where the facts tell.
fn undelivered(facts: &GroupFacts) -> Option<u64> {
    if facts.next.is_none() {
        return Some(0);
    }
    if facts.first.is_some_and(|first| facts.cursor < first) {
        return Some(facts.length);
    }
    // No lag although an entry waits, or less than none: somebody has told the server a wrong
    // count.
    facts.lag.filter(|lag| facts.counts_lag_right && *lag > 0).and_then(|lag| lag.try_into().ok())
}

/// Entries that went before the group had got them and that no beat has counted yet.
fn passed(facts: &GroupFacts) -> u64 {
    let gone = facts.added.saturating_sub(facts.length);
    match facts.read {
        Some(read) if facts.cursor < facts.first.unwrap_or(facts.last_id) => {
            gone.saturating_sub(read)
        }
        _ => 0,
    }
}

/// Whether a consumer lives. Its own beat decides, never the server's idle time: that says nothing
/// about a consumer of a quiet stream on servers before 7.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Liveness {
    /// It has beaten lately.
    Alive,
    /// It has missed its beats.
    Silent,
    /// It never beat: it belongs to other software.
    Unknown,
}

impl Liveness {
    /// The word for it, for programs; it does not change between releases.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Silent => "silent",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A consumer of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerInfo {
    /// Its name.
    pub name: String,
    /// Entries that are pending for it, those of the lane included.
    pub pending: u64,
    /// Since when the server has not heard of it: since its last successful read on servers before
    /// 7.2, since its last try on newer ones.
    pub idle: Duration,
    /// Since when nothing was delivered to it; none where the server does not say, or never.
    pub inactive: Option<Duration>,
    /// Whether it lives.
    pub liveness: Liveness,
    /// How long ago its last beat was.
    pub last_heartbeat: Option<Duration>,
    /// Jobs that it held at its last beat.
    pub in_flight: Option<u64>,
    /// Jobs that it may hold at once.
    pub slots: Option<u64>,
    /// Jobs that it has done on this stream since it started, as of its last beat; none of an older
    /// version, which does not say.
    pub done: Option<u64>,
    /// Attempts of its own that failed since then.
    pub failed: Option<u64>,
    /// Entries that it claimed from consumers that were not heard of.
    pub claimed: Option<u64>,
    /// The machine that it runs on.
    pub host: Option<String>,
    /// Its process id there.
    pub process: Option<u32>,
    /// The version of this crate in it.
    pub version: Option<String>,
    /// When it started, by the server's clock in milliseconds since 1970.
    pub started: Option<u64>,
}

impl ConsumerInfo {
    pub(crate) fn all(consumers: Consumers) -> Vec<Self> {
        let now = consumers.now.0;
        consumers.consumers.into_iter().map(|facts| Self::new(facts, now)).collect()
    }

    fn new(facts: ConsumerFacts, now: u64) -> Self {
        let about = facts.about.as_deref().and_then(Heartbeat::read);
        let last_heartbeat = facts.beat.map(|beat| Duration::from_millis(now.saturating_sub(beat)));
        let liveness = match (last_heartbeat, &about) {
            (None, _) => Liveness::Unknown,
            // A beat that was written for a consumer that never beat says nothing about it.
            (Some(_), None) => Liveness::Unknown,
            (Some(age), Some(about)) if about.lives(age) => Liveness::Alive,
            (Some(_), Some(_)) => Liveness::Silent,
        };
        Self {
            name: facts.name,
            pending: facts.pending,
            idle: facts.idle,
            inactive: facts.inactive,
            liveness,
            last_heartbeat,
            in_flight: about.as_ref().map(|about| about.in_flight),
            slots: about.as_ref().map(|about| about.slots),
            done: about.as_ref().and_then(|about| about.done),
            failed: about.as_ref().and_then(|about| about.failed),
            claimed: about.as_ref().and_then(|about| about.claimed),
            started: about.as_ref().map(|about| about.started),
            process: about.as_ref().map(|about| about.process),
            host: about.as_ref().map(|about| about.host.clone()),
            version: about.map(|about| about.version),
        }
    }
}

/// Counting looks at entries: so many are counted where nothing tells.
const COUNTED_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ServerTime;

    fn facts() -> GroupFacts {
        GroupFacts {
            now: ServerTime(10_000),
            counts_lag_right: false,
            length: 5,
            first: Some(EntryId::new(6, 0)),
            last_id: EntryId::new(10, 0),
            added: 10,
            cursor: EntryId::new(8, 0),
            read: Some(8),
            lag: Some(2),
            next: Some(EntryId::new(9, 0)),
            pending: 0,
            lane_pending: 0,
            lane_waiting: 0,
            oldest_pending: None,
            retrying: 0,
            dead_letters: Some(0),
            paused: None,
            trimmed_unread: 0,
        }
    }

    #[test]
    fn the_lag_is_believed_only_where_the_server_counts_it_right() {
        assert_eq!(undelivered(&facts()), None);
        assert_eq!(undelivered(&GroupFacts { counts_lag_right: true, ..facts() }), Some(2));
        for lag in [None, Some(-997), Some(0)] {
            let odd = GroupFacts { counts_lag_right: true, lag, ..facts() };
            assert_eq!(undelivered(&odd), None, "{lag:?}");
        }
    }

    #[test]
    fn a_cursor_at_either_end_needs_no_count() {
        // The phantom: everything is read, and the server still names a lag.
        let ended = GroupFacts { next: None, lag: Some(5), ..facts() };
        assert_eq!(undelivered(&ended), Some(0));
        let passed_by = GroupFacts { cursor: EntryId::new(3, 0), lag: Some(7), ..facts() };
        assert_eq!(undelivered(&passed_by), Some(5));
    }

    #[test]
    fn what_was_passed_by_is_what_went_and_was_not_read() {
        assert_eq!(passed(&facts()), 0);
        let passed_by = GroupFacts { cursor: EntryId::new(3, 0), read: Some(3), ..facts() };
        assert_eq!(passed(&passed_by), 2);
        assert_eq!(passed(&GroupFacts { read: None, ..passed_by.clone() }), 0, "unknown");
        let emptied = GroupFacts { length: 0, first: None, next: None, ..passed_by };
        assert_eq!(passed(&emptied), 7);
    }

    #[test]
    fn only_a_beat_with_words_says_that_a_consumer_lives() {
        let consumer = |beat, about: Option<&str>| {
            let facts = ConsumerFacts {
                name: "a".into(),
                pending: 0,
                idle: Duration::ZERO,
                inactive: None,
                beat,
                about: about.map(Into::into),
            };
            ConsumerInfo::new(facts, 100_000).liveness
        };
        assert_eq!(consumer(Some(99_000), Some("{\"beat_every\":3000}")), Liveness::Alive);
        assert_eq!(consumer(Some(80_000), Some("{\"beat_every\":3000}")), Liveness::Silent);
        assert_eq!(consumer(Some(99_000), None), Liveness::Unknown);
        assert_eq!(consumer(None, None), Liveness::Unknown);
        assert_eq!(Liveness::Silent.to_string(), "silent");
    }
}
