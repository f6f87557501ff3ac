//! The state of groups and consumers as it is shown, computed from the server's reports.

use std::fmt;
use std::time::Duration;

use crate::insight::rate::RateInfo;
use crate::insight::words::words;
use crate::model::entry::EntryId;
use crate::model::heartbeat::{Heartbeat, SharedHere};
use crate::model::limit::{CodeLimit, SetLimit};
use crate::model::rate::Rate;
use crate::store::inspect::{ConsumerFacts, Consumers, GroupFacts};
use crate::store::{Queue, Store, StoreError};

/// Entries of a stream that were not delivered to a group yet.
///
/// It is zero if the group's cursor is at the stream's last entry, and the stream's length if the cursor is before
/// the first. Between them, it is the server's lag where its version computes that correctly (7.4.4 and newer in that
/// line, 8.0 and newer); otherwise a count of at most 1,000 entries, which takes a few milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backlog {
    /// The number of entries, or a lower bound of it.
    pub entries: u64,
    /// Whether `entries` is exact; otherwise it is a lower bound.
    pub exact: bool,
}

impl fmt::Display for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_least = if self.exact { "" } else { "at least " };
        write!(f, "{at_least}{}", self.entries)
    }
}

/// The state of a group on a stream at one moment, or at one moment in each of several partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupInfo {
    /// The stream.
    pub stream: String,
    /// The group.
    pub group: String,
    /// How many partitions this state covers: 1 for a stream that is not spread. Counts are sums
    /// over the partitions; each time is the longest among the partitions.
    pub partitions: u16,
    /// Partitions without the group, which are not included: no process of the group has read them yet, or the group
    /// was lost there.
    pub without_group: u16,
    /// The id of the last entry that was delivered to the group; the latest one if there are several partitions.
    pub cursor: EntryId,
    /// Entries that were not delivered to the group yet.
    pub backlog: Backlog,
    /// The lag as the server reports it; `None` where it reports no lag or a negative lag. It can
    /// be wrong on Redis before 7.4.4 and on Valkey; [`backlog`](Self::backlog) is right on all
    /// servers.
    pub lag: Option<u64>,
    /// How long the oldest undelivered entry has waited, by the server's clock.
    pub oldest_waiting: Option<Duration>,
    /// Entries delivered and not acknowledged, including those of the lane, but not released entries.
    pub pending: u64,
    /// Entries that a process or an operator released: they belong to no process, and the next claim by any process
    /// takes them. The server counts them as pending for a consumer `streamjobs-released`.
    pub released: u64,
    /// The idle time of the oldest pending entry that is not released. Entries in flight are renewed, so an entry
    /// that is idle for longer than the lease has no live owner.
    pub oldest_pending: Option<Duration>,
    /// Jobs that wait for a retry, and undelivered entries of the lane.
    pub retrying: u64,
    /// Jobs that wait for a place in the group's limit over all processes; `None` where the key of their
    /// lines holds another type. They are neither in the backlog nor pending.
    pub parked: Option<u64>,
    /// The key with the most waiting jobs in one partition, and their number. With a limit that counts all jobs, the
    /// key is `*`.
    pub longest_line: Option<(String, u64)>,
    /// Dead letters; `None` where their key holds another type.
    pub dead_letters: Option<u64>,
    /// Entries that were trimmed before they were delivered to the group, as far as the server's counts show: the
    /// group has lost them. Undelivered entries that were deleted one by one are included. Redis 7.0 and 7.2 may lose
    /// the count at a failover: entries lost since the last heartbeat of a process are then included only after the
    /// next heartbeat.
    pub trimmed_unread: u64,
    /// How long the group has been paused, in any partition.
    pub paused: Option<Duration>,
    /// The number of partitions in which it is paused.
    pub paused_in: u16,
    /// How long ago its last pause ended, in any partition; `None` if it was never paused. Entries that waited
    /// meanwhile are read from then on.
    pub resumed: Option<Duration>,
    /// The stream's last id, if the cursor is so far beyond it that even new entries are not
    /// delivered: it is beyond the server's clock, from which new ids are made.
    pub beyond: Option<EntryId>,
    /// Event types whose jobs wait because no live process of the group declares a handler for the type: the first 20
    /// by name.
    pub unhandled: Vec<String>,
    /// Dead letters of the last hour that are still stored; 100 stands for 100 or more, and fewer are counted if they
    /// are large.
    pub new_dead_letters: u64,
    /// The error, or else the reason, of the last of these dead letters that was counted, cut to 300 bytes. An error
    /// may quote a payload.
    pub dead_letter_error: Option<String>,
    /// Its rate; `None` if it has no rate, or if nothing is known of it.
    pub rate: Option<RateInfo>,
    /// The number of its limit over all processes that an operator has set. If partitions have different ones, the one
    /// that was set last.
    pub limit: Option<SetLimit>,
    /// The number of partitions that have it.
    pub limit_in: u16,
    /// The last error of a job that waits for a retry after a failure, cut to 300 bytes. Only the five jobs that are
    /// due first and the five that are due last are examined; `None` if none of them has failed. An error may quote a
    /// payload.
    pub retry_error: Option<String>,
}

impl GroupInfo {
    /// Reads the state of a group.
    pub(crate) async fn load(store: &dyn Store, queue: &Queue) -> Result<Self, StoreError> {
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

    /// A group without work.
    #[cfg(test)]
    pub(crate) fn idle() -> Self {
        Self {
            stream: "orders".into(),
            group: "mail".into(),
            partitions: 1,
            without_group: 0,
            cursor: EntryId::ZERO,
            backlog: Backlog { entries: 0, exact: true },
            lag: None,
            oldest_waiting: None,
            pending: 0,
            released: 0,
            oldest_pending: None,
            retrying: 0,
            parked: Some(0),
            longest_line: None,
            dead_letters: Some(0),
            trimmed_unread: 0,
            paused: None,
            paused_in: 0,
            resumed: None,
            beyond: None,
            unhandled: Vec::new(),
            new_dead_letters: 0,
            dead_letter_error: None,
            retry_error: None,
            rate: None,
            limit: None,
            limit_in: 0,
        }
    }

    fn new(queue: &Queue, facts: &GroupFacts, backlog: Backlog) -> Self {
        let since = |then: u64| Duration::from_millis(facts.now.0.saturating_sub(then));
        Self {
            stream: queue.stream.to_string(),
            group: queue.group.to_string(),
            partitions: 1,
            without_group: 0,
            cursor: facts.cursor,
            backlog,
            lag: facts.lag.and_then(|lag| u64::try_from(lag).ok()),
            oldest_waiting: facts.next.map(|next| since(next.milliseconds())),
            pending: (facts.pending + facts.lane_pending).saturating_sub(facts.released),
            released: facts.released,
            oldest_pending: facts.oldest_pending,
            retrying: facts.retrying + facts.lane_waiting,
            parked: facts.parked,
            longest_line: facts.longest_line.clone(),
            dead_letters: facts.dead_letters,
            trimmed_unread: facts.trimmed_unread + trimmed_undelivered(facts),
            paused: facts.paused.map(since),
            paused_in: u16::from(facts.paused.is_some()),
            resumed: facts.resumed.map(since),
            beyond: beyond(facts),
            unhandled: facts.unhandled.clone(),
            new_dead_letters: facts.new_dead_letters,
            dead_letter_error: facts.dead_letter_error.clone(),
            retry_error: facts.retry_error.clone(),
            rate: RateInfo::of(&facts.rate),
            limit: facts.limit.clone(),
            limit_in: u16::from(facts.limit.is_some()),
        }
    }
}

/// The stream's last id, if the cursor is beyond it and beyond the server's clock.
///
/// The cursor of a group that was recreated at its floor on a deleted stream is beyond the last id too, but the ids
/// of new entries will be higher.
pub(crate) fn beyond(facts: &GroupFacts) -> Option<EntryId> {
    let last_id = facts.ends?.last_id;
    let is_beyond = facts.cursor > last_id && facts.cursor.milliseconds() > facts.now.0;
    is_beyond.then_some(last_id)
}

/// The number of entries after the cursor, if the facts tell it.
fn undelivered(facts: &GroupFacts) -> Option<u64> {
    if facts.next.is_none() {
        return Some(0);
    }
    if facts.ends.and_then(|ends| ends.first).is_some_and(|first| facts.cursor < first) {
        return Some(facts.length);
    }
    // A lag of zero or less although an entry waits: a client has set a wrong count on the server.
    facts.lag.filter(|lag| facts.counts_lag_right && *lag > 0).and_then(|lag| lag.try_into().ok())
}

/// Entries that were trimmed before they were delivered, and that no heartbeat has counted yet.
fn trimmed_undelivered(facts: &GroupFacts) -> u64 {
    match (facts.read, facts.ends) {
        (Some(read), Some(ends)) if facts.cursor < ends.first.unwrap_or(ends.last_id) => {
            ends.added.saturating_sub(facts.length).saturating_sub(read)
        }
        _ => 0,
    }
}

words! {
    /// Whether a consumer is alive. Its heartbeat decides. The server's idle time does not, because before version
    /// 7.2 it says nothing about a consumer of an idle stream.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub enum Liveness {
        /// It sent a heartbeat recently.
        Alive = "alive",
        /// Its heartbeat is missing: it is dead or cut off.
        Silent = "silent",
        /// It has no heartbeat: it belongs to another client.
        Unknown = "unknown",
    }
}

/// A consumer of a group. If it reads several partitions, figures are sums, except for its slots, which the
/// partitions share; and it is alive if it is alive in any of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerInfo {
    /// Its name.
    pub name: String,
    /// The number of its pending entries, including those in the lane.
    pub pending: u64,
    /// How long it has been idle, according to the server: since its last successful read on servers before 7.2,
    /// since its last attempt to read on newer servers.
    pub idle: Duration,
    /// How long ago an entry was last delivered to it; `None` if that never happened, or the server does not say.
    pub inactive: Option<Duration>,
    /// Whether it is alive.
    pub liveness: Liveness,
    /// How long ago its last heartbeat was.
    pub last_heartbeat: Option<Duration>,
    /// Jobs in flight at its last heartbeat, each with its slot.
    pub in_flight: Option<u64>,
    /// Further jobs, whose retry or dead letter the server had refused by then, for example at its memory limit: they
    /// wait in the process without a slot.
    pub refused: Option<u64>,
    /// Jobs that it may have in flight at once.
    pub slots: Option<u64>,
    /// Jobs that it has done on this stream since it started, as of its last heartbeat; `None` for an
    /// older version, which does not write it.
    pub done: Option<u64>,
    /// Its attempts that failed since it started.
    pub failed: Option<u64>,
    /// Jobs that it has done within the last five minutes, as of its last heartbeat; `None` for an
    /// older version, which does not write it.
    pub recent_done: Option<u64>,
    /// Its attempts that failed within the last five minutes.
    pub recent_failed: Option<u64>,
    /// Entries that it claimed from other consumers: released entries, and entries of consumers that stopped
    /// renewing.
    pub claimed: Option<u64>,
    /// The consumer that, within five minutes before the last heartbeat, claimed a running job of this consumer
    /// although the job's lease had not ended.
    pub claimed_early_by: Option<String>,
    /// The host that it runs on.
    pub host: Option<String>,
    /// Its process id on that host.
    pub process: Option<u32>,
    /// The version of this crate that it runs.
    pub version: Option<String>,
    /// The rate in its code; `None` without a rate, or for an older version.
    pub rate: Option<Rate>,
    /// How it limits the jobs of the group over all processes, in words; `None` without a limit.
    pub limits: Option<String>,
    /// The same limit, if operators can change its number with [`Group::set_limit`](crate::stream::Group::set_limit).
    /// `None` for order per key and fair shares, and for an older version, which does not follow such changes.
    pub limit: Option<CodeLimit>,
    /// The set that it shares its slots with; `None` if they are its own, or for an older version.
    pub slot_set: Option<SlotSet>,
    /// Its weight there.
    pub weight: Option<u32>,
    /// When it started, by the server's clock in milliseconds since 1970.
    pub started: Option<u64>,
}

/// A set of slots that groups of one process share, see
/// [`RuntimeBuilder::shared_slots`](crate::RuntimeBuilder::shared_slots).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotSet {
    /// Its name.
    pub name: String,
    /// How many slots it has.
    pub slots: u64,
    /// How many of them are taken: by jobs in flight, and by reads on their way.
    pub in_use: u64,
}

impl ConsumerInfo {
    /// A consumer that writes nothing about itself.
    #[cfg(test)]
    pub(crate) fn named(name: &str, liveness: Liveness) -> Self {
        let facts = ConsumerFacts {
            name: name.to_owned(),
            pending: 0,
            idle: Duration::ZERO,
            inactive: None,
            beat: None,
            about: None,
        };
        Self { liveness, ..Self::new(facts, 0) }
    }

    pub(crate) fn all(consumers: Consumers) -> Vec<Self> {
        let now = consumers.now.0;
        consumers.consumers.into_iter().map(|facts| Self::new(facts, now)).collect()
    }

    fn new(facts: ConsumerFacts, now: u64) -> Self {
        let heartbeat = facts.about.as_deref().and_then(Heartbeat::read);
        let last_heartbeat = facts.beat.map(|beat| Duration::from_millis(now.saturating_sub(beat)));
        let liveness = match (last_heartbeat, &heartbeat) {
            (None, _) => Liveness::Unknown,
            // A heartbeat without its details was not written by the consumer.
            (Some(_), None) => Liveness::Unknown,
            (Some(age), Some(heartbeat)) if heartbeat.is_alive(age) => Liveness::Alive,
            (Some(_), Some(_)) => Liveness::Silent,
        };
        let shared = heartbeat.as_ref().and_then(|heartbeat| heartbeat.shared.as_ref());
        Self {
            name: facts.name,
            pending: facts.pending,
            idle: facts.idle,
            inactive: facts.inactive,
            liveness,
            last_heartbeat,
            in_flight: heartbeat.as_ref().map(|heartbeat| heartbeat.in_flight),
            refused: heartbeat.as_ref().map(|heartbeat| heartbeat.refused),
            slots: heartbeat.as_ref().map(|heartbeat| heartbeat.slots),
            done: heartbeat.as_ref().and_then(|heartbeat| heartbeat.done),
            failed: heartbeat.as_ref().and_then(|heartbeat| heartbeat.failed),
            recent_done: heartbeat.as_ref().and_then(|heartbeat| heartbeat.recent_done),
            recent_failed: heartbeat.as_ref().and_then(|heartbeat| heartbeat.recent_failed),
            claimed: heartbeat.as_ref().and_then(|heartbeat| heartbeat.claimed),
            claimed_early_by: heartbeat.as_ref().and_then(|about| about.claimed_early_by.clone()),
            started: heartbeat.as_ref().map(|heartbeat| heartbeat.started),
            process: heartbeat.as_ref().map(|heartbeat| heartbeat.process),
            rate: heartbeat.as_ref().and_then(Heartbeat::rate),
            limits: heartbeat.as_ref().and_then(|heartbeat| heartbeat.limits.clone()),
            limit: heartbeat.as_ref().and_then(|about| CodeLimit::read(about.limit.as_deref()?)),
            slot_set: shared.map(|SharedHere { set, slots, in_use, .. }| SlotSet {
                name: set.clone(),
                slots: *slots,
                in_use: *in_use,
            }),
            weight: shared.map(|shared| shared.weight),
            host: heartbeat.as_ref().map(|heartbeat| heartbeat.host.clone()),
            version: heartbeat.map(|heartbeat| heartbeat.version),
        }
    }
}

/// The most entries that are counted if the facts do not tell the backlog.
const COUNTED_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::inspect::StreamEnds;
    use crate::store::{RateFacts, ServerTime};

    fn facts() -> GroupFacts {
        GroupFacts {
            now: ServerTime(10_000),
            counts_lag_right: false,
            length: 5,
            ends: Some(StreamEnds {
                first: Some(EntryId::new(6, 0)),
                last_id: EntryId::new(10, 0),
                added: 10,
            }),
            cursor: EntryId::new(8, 0),
            read: Some(8),
            lag: Some(2),
            next: Some(EntryId::new(9, 0)),
            pending: 0,
            lane_pending: 0,
            lane_waiting: 0,
            released: 0,
            oldest_pending: None,
            retrying: 0,
            parked: Some(0),
            longest_line: None,
            dead_letters: Some(0),
            paused: None,
            resumed: None,
            trimmed_unread: 0,
            unhandled: Vec::new(),
            new_dead_letters: 0,
            dead_letter_error: None,
            retry_error: None,
            rate: RateFacts::default(),
            limit: None,
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
        // The server can report a lag although everything was read.
        let ended = GroupFacts { next: None, lag: Some(5), ..facts() };
        assert_eq!(undelivered(&ended), Some(0));
        let passed_by = GroupFacts { cursor: EntryId::new(3, 0), lag: Some(7), ..facts() };
        assert_eq!(undelivered(&passed_by), Some(5));
    }

    #[test]
    fn entries_that_were_trimmed_and_not_read_are_lost() {
        assert_eq!(trimmed_undelivered(&facts()), 0);
        let passed_by = GroupFacts { cursor: EntryId::new(3, 0), read: Some(3), ..facts() };
        assert_eq!(trimmed_undelivered(&passed_by), 2);
        assert_eq!(
            trimmed_undelivered(&GroupFacts { read: None, ..passed_by.clone() }),
            0,
            "unknown"
        );
        let ends = passed_by.ends.map(|ends| StreamEnds { first: None, ..ends });
        let emptied = GroupFacts { length: 0, ends, next: None, ..passed_by };
        assert_eq!(trimmed_undelivered(&emptied), 7);
        assert_eq!(trimmed_undelivered(&GroupFacts { ends: None, ..emptied }), 0, "within");
    }

    #[test]
    fn only_a_heartbeat_with_details_shows_that_a_consumer_is_alive() {
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
