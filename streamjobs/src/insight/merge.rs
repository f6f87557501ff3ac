//! The state of a whole stream and its groups, computed from its partitions: pure.

use std::collections::BTreeMap;

use crate::insight::limit;
use crate::insight::view::{Backlog, ConsumerInfo, GroupInfo, Liveness};
use crate::model::name::StreamName;
use crate::store::admin::Trimmed;
use crate::store::inspect::{OldestUnfinished, StreamInfo, StreamSizes};

/// The sizes of two partitions together. Each group is on all of them.
pub(crate) fn sizes(one: StreamSizes, other: StreamSizes) -> StreamSizes {
    StreamSizes {
        length: one.length + other.length,
        added: one.added + other.added,
        bytes: one.bytes.zip(other.bytes).map(|(one, other)| one + other),
        groups: one.groups.max(other.groups),
    }
}

/// The state of two partitions together.
pub(crate) fn infos(one: StreamInfo, other: StreamInfo) -> StreamInfo {
    StreamInfo {
        length: one.length + other.length,
        first: one.first.into_iter().chain(other.first).min(),
        last: one.last.max(other.last),
        last_id: one.last_id.max(other.last_id),
        added: one.added + other.added,
        bytes: one.bytes.zip(other.bytes).map(|(one, other)| one + other),
        groups: one.groups.max(other.groups),
    }
}

/// The sum of what was trimmed in each partition.
pub(crate) fn trimmed(partitions: Vec<Trimmed>) -> Trimmed {
    let mut all = Trimmed::default();
    for one in partitions {
        all.removed += one.removed;
        all.length += one.length;
        all.more |= one.more;
        let needed = all.blocked_by.into_iter().chain(one.blocked_by);
        all.blocked_by = needed.min_by_key(|(_, id)| *id);
    }
    all
}

/// The oldest unfinished entry of all partitions.
pub(crate) fn oldest(partitions: Vec<OldestUnfinished>) -> OldestUnfinished {
    OldestUnfinished {
        published: partitions.iter().filter_map(|one| one.published).min(),
        complete: partitions.iter().all(|one| one.complete),
    }
}

/// The groups of a stream, by name, from those of each partition that exists.
pub(crate) fn groups(
    stream: &StreamName,
    partitions: u16,
    infos: Vec<Vec<GroupInfo>>,
) -> Vec<GroupInfo> {
    let mut by_name = BTreeMap::<String, Vec<GroupInfo>>::new();
    for info in infos.into_iter().flatten() {
        by_name.entry(info.group.clone()).or_default().push(info);
    }
    by_name.into_values().filter_map(|infos| group(stream, partitions, infos)).collect()
}

/// A group, from its state in each partition that has it; `None` without any.
pub(crate) fn group(
    stream: &StreamName,
    partitions: u16,
    infos: Vec<GroupInfo>,
) -> Option<GroupInfo> {
    let with = u16::try_from(infos.len()).unwrap_or(u16::MAX);
    let whole = infos.into_iter().reduce(both)?;
    let without_group = partitions.saturating_sub(with);
    Some(GroupInfo { stream: stream.to_string(), partitions, without_group, ..whole })
}

/// The state of a group on two partitions.
fn both(one: GroupInfo, other: GroupInfo) -> GroupInfo {
    let (first, second) = if one.cursor >= other.cursor { (&one, &other) } else { (&other, &one) };
    let mut unhandled = [one.unhandled.as_slice(), &other.unhandled].concat();
    unhandled.sort_unstable();
    unhandled.dedup();
    unhandled.truncate(TYPES_MAX);
    let set = |info: &GroupInfo| (info.limit.clone(), info.limit_in);
    let (limit, limit_in) = limit::of_both(set(&one), set(&other));
    GroupInfo {
        cursor: first.cursor,
        // A cursor beyond the server's clock is beyond every other cursor.
        beyond: first.beyond.or(second.beyond),
        backlog: Backlog {
            entries: one.backlog.entries + other.backlog.entries,
            exact: one.backlog.exact && other.backlog.exact,
        },
        lag: one.lag.zip(other.lag).map(|(one, other)| one + other),
        oldest_waiting: one.oldest_waiting.max(other.oldest_waiting),
        pending: one.pending + other.pending,
        released: one.released + other.released,
        oldest_pending: one.oldest_pending.max(other.oldest_pending),
        retrying: one.retrying + other.retrying,
        parked: one.parked.zip(other.parked).map(|(one, other)| one + other),
        longest_line: longer(one.longest_line, other.longest_line),
        dead_letters: one.dead_letters.zip(other.dead_letters).map(|(one, other)| one + other),
        trimmed_unread: one.trimmed_unread + other.trimmed_unread,
        paused: one.paused.max(other.paused),
        paused_in: one.paused_in + other.paused_in,
        resumed: one.resumed.into_iter().chain(other.resumed).min(),
        unhandled,
        new_dead_letters: (one.new_dead_letters + other.new_dead_letters).min(LETTERS_MAX),
        dead_letter_error: one.dead_letter_error.or(other.dead_letter_error),
        retry_error: one.retry_error.or(other.retry_error),
        // Only the first partition has the rate.
        rate: one.rate.or(other.rate),
        limit,
        limit_in,
        stream: one.stream,
        group: one.group,
        partitions: one.partitions + other.partitions,
        without_group: one.without_group + other.without_group,
    }
}

/// The consumers of a group, by name, from those of each partition that has the group.
pub(crate) fn consumers(partitions: Vec<Vec<ConsumerInfo>>) -> Vec<ConsumerInfo> {
    let mut by_name = BTreeMap::<String, ConsumerInfo>::new();
    for consumer in partitions.into_iter().flatten() {
        let known = by_name.remove(&consumer.name);
        let whole = match known {
            Some(known) => of_both(known, consumer),
            None => consumer,
        };
        by_name.insert(whole.name.clone(), whole);
    }
    by_name.into_values().collect()
}

/// A consumer of two partitions.
fn of_both(one: ConsumerInfo, other: ConsumerInfo) -> ConsumerInfo {
    let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (Some(one), Some(other)) => Some(one + other),
        (one, other) => one.or(other),
    };
    let least = |one: Option<_>, other: Option<_>| one.into_iter().chain(other).min();
    let has = |liveness| one.liveness == liveness || other.liveness == liveness;
    let liveness = match (has(Liveness::Alive), has(Liveness::Silent)) {
        (true, _) => Liveness::Alive,
        (false, true) => Liveness::Silent,
        (false, false) => Liveness::Unknown,
    };
    ConsumerInfo {
        liveness,
        pending: one.pending + other.pending,
        idle: one.idle.min(other.idle),
        inactive: least(one.inactive, other.inactive),
        last_heartbeat: least(one.last_heartbeat, other.last_heartbeat),
        in_flight: sum(one.in_flight, other.in_flight),
        refused: sum(one.refused, other.refused),
        // The partitions share the slots.
        slots: one.slots.max(other.slots),
        done: sum(one.done, other.done),
        failed: sum(one.failed, other.failed),
        recent_done: sum(one.recent_done, other.recent_done),
        recent_failed: sum(one.recent_failed, other.recent_failed),
        claimed: sum(one.claimed, other.claimed),
        claimed_early_by: one.claimed_early_by.or(other.claimed_early_by),
        host: one.host.or(other.host),
        process: one.process.or(other.process),
        rate: one.rate.or(other.rate),
        limits: one.limits.or(other.limits),
        limit: one.limit.or(other.limit),
        slot_set: one.slot_set.or(other.slot_set),
        weight: one.weight.or(other.weight),
        version: one.version.or(other.version),
        started: one.started.into_iter().chain(other.started).min(),
        name: one.name,
    }
}

/// The most event types without a handler that are named.
const TYPES_MAX: usize = 20;
/// This many new dead letters stand for this many or more.
const LETTERS_MAX: u64 = 100;

/// The longer of two lines.
fn longer(one: Option<(String, u64)>, other: Option<(String, u64)>) -> Option<(String, u64)> {
    one.into_iter().chain(other).max_by_key(|(_, jobs)| *jobs)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::entry::EntryId;

    fn whole(infos: Vec<GroupInfo>) -> GroupInfo {
        group(&StreamName::new("orders").unwrap(), 3, infos).unwrap()
    }

    #[test]
    fn a_group_has_the_sums_and_the_oldest_of_its_partitions() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let one = GroupInfo {
            stream: "orders".into(),
            backlog: Backlog { entries: 5, exact: true },
            oldest_waiting: seconds(9),
            pending: 2,
            dead_letters: Some(1),
            new_dead_letters: 70,
            resumed: seconds(60),
            unhandled: vec!["b".into(), "c".into()],
            cursor: EntryId::new(7, 0),
            ..GroupInfo::idle()
        };
        let other = GroupInfo {
            stream: "orders:p1:{1801}".into(),
            backlog: Backlog { entries: 1_000, exact: false },
            oldest_waiting: seconds(40),
            dead_letters: Some(2),
            new_dead_letters: 70,
            paused: seconds(5),
            paused_in: 1,
            unhandled: vec!["a".into(), "b".into()],
            cursor: EntryId::new(3, 0),
            beyond: None,
            ..GroupInfo::idle()
        };
        let all = whole(vec![one, other]);
        assert_eq!((all.stream.as_str(), all.cursor), ("orders", EntryId::new(7, 0)));
        assert_eq!(all.backlog, Backlog { entries: 1_005, exact: false });
        assert_eq!((all.oldest_waiting, all.pending), (seconds(40), 2));
        assert_eq!((all.dead_letters, all.new_dead_letters), (Some(3), 100));
        assert_eq!((all.paused, all.resumed), (seconds(5), seconds(60)));
        assert_eq!((all.paused_in, all.partitions, all.without_group), (1, 3, 1));
        assert_eq!(all.unhandled, ["a", "b", "c"]);
    }

    #[test]
    fn what_one_partition_does_not_say_is_not_said_of_the_whole() {
        let unknown = GroupInfo { dead_letters: None, ..GroupInfo::idle() };
        assert_eq!(whole(vec![GroupInfo::idle(), unknown]).dead_letters, None);
        let sizes_of = |bytes| StreamSizes { length: 1, added: 2, bytes, groups: 1 };
        let both = sizes(sizes_of(Some(9)), sizes_of(None));
        assert_eq!((both.length, both.added, both.bytes, both.groups), (2, 4, None, 1));
    }

    #[test]
    fn a_stream_begins_with_the_smallest_and_ends_with_the_largest_id() {
        let info = |first: Option<u64>, last: u64| StreamInfo {
            length: 1,
            first: first.map(|id| EntryId::new(id, 0)),
            last: first.map(|_| EntryId::new(last, 0)),
            last_id: EntryId::new(last, 0),
            added: 1,
            bytes: Some(10),
            groups: 2,
        };
        let both = infos(infos(info(Some(5), 9), info(None, 12)), info(Some(3), 4));
        assert_eq!((both.first, both.last), (Some(EntryId::new(3, 0)), Some(EntryId::new(9, 0))));
        assert_eq!((both.last_id, both.bytes, both.groups), (EntryId::new(12, 0), Some(30), 2));
    }

    #[test]
    fn a_consumer_is_alive_if_it_is_in_any_partition_and_its_slots_are_shared() {
        let consumer = |name: &str, liveness, pending| ConsumerInfo {
            pending,
            in_flight: Some(pending),
            slots: Some(16),
            recent_done: Some(3),
            ..ConsumerInfo::named(name, liveness)
        };
        let one = vec![consumer("a", Liveness::Silent, 2), consumer("b", Liveness::Silent, 1)];
        let other = vec![consumer("a", Liveness::Alive, 3), consumer("c", Liveness::Unknown, 1)];
        let all = consumers(vec![one, other]);
        let shown = all.iter().map(|one| (one.name.as_str(), one.liveness, one.pending));
        let expected =
            [("a", Liveness::Alive, 5), ("b", Liveness::Silent, 1), ("c", Liveness::Unknown, 1)];
        assert_eq!(shown.collect::<Vec<_>>(), expected);
        let all = &all[0];
        assert_eq!((all.in_flight, all.slots, all.recent_done), (Some(5), Some(16), Some(6)));
    }

    #[test]
    fn a_trim_is_blocked_by_the_group_that_needs_the_oldest_entry() {
        let part = |removed, needed: Option<(&str, u64)>| Trimmed {
            removed,
            length: 4,
            blocked_by: needed.map(|(group, id)| (group.to_owned(), EntryId::new(id, 0))),
            more: removed > 5,
        };
        let all =
            trimmed(vec![part(1, Some(("mail", 9))), part(6, Some(("work", 3))), part(0, None)]);
        assert_eq!((all.removed, all.length, all.more), (7, 12, true));
        assert_eq!(all.blocked_by, Some(("work".to_owned(), EntryId::new(3, 0))));
    }
}
