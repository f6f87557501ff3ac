//! One stream in memory: entries, groups, and their pending lists.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::entry::{EntryId, Fields};

/// A stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) entries: BTreeMap<EntryId, Fields>,
    pub(super) last: EntryId,
    /// Entries ever appended.
    pub(super) added: u64,
    pub(super) groups: HashMap<String, Group>,
}

/// A group on a stream.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) delivered: EntryId,
    /// Entries that stand at or before the last delivered one, if that is known.
    pub(super) read: Option<u64>,
    pub(super) pending: BTreeMap<EntryId, Pending>,
    pub(super) consumers: BTreeSet<String>,
}

/// An entry that was delivered and not acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) consumer: String,
    /// The server's clock in milliseconds; the idle time counts from here.
    pub(super) since: u64,
    pub(super) delivery_count: u64,
}

impl Pending {
    pub(super) fn idle(&self, now: u64) -> u64 {
        now.saturating_sub(self.since)
    }
}

impl Stream {
    /// Appends under the next id: the clock's, or the last one's follower when the clock is behind.
    pub(super) fn append(&mut self, now: u64, fields: Fields) -> EntryId {
        let fresh = EntryId::new(now, 0);
        let id = if fresh > self.last { fresh } else { self.last.next().unwrap_or(EntryId::MAX) };
        self.last = id;
        self.added += 1;
        self.entries.insert(id, fields);
        id
    }

    /// Delivers entries that nobody in the group has got yet.
    pub(super) fn deliver(
        &mut self,
        group: &str,
        consumer: &str,
        count: usize,
        now: u64,
    ) -> Option<Vec<(EntryId, Fields)>> {
        let group = self.groups.get_mut(group)?;
        let Some(from) = group.delivered.next() else { return Some(Vec::new()) };
        let fresh = self.entries.range(from..).take(count);
        let fresh = fresh.map(|(id, fields)| (*id, fields.clone())).collect::<Vec<_>>();
        for (id, _) in &fresh {
            let pending = Pending { consumer: consumer.to_owned(), since: now, delivery_count: 1 };
            group.pending.insert(*id, pending);
            group.consumers.insert(consumer.to_owned());
            group.delivered = *id;
            group.read = group.read.map(|read| read + 1);
        }
        Some(fresh)
    }

    /// Entries that were there and are not any more.
    pub(super) fn gone(&self) -> u64 {
        self.added.saturating_sub(u64::try_from(self.entries.len()).unwrap_or(u64::MAX))
    }

    /// The lowest id that some group still needs, and which group; none without groups.
    pub(super) fn needed(&self) -> Option<(String, EntryId)> {
        let lowest = |group: &Group| match group.pending.keys().next() {
            Some(id) => *id,
            None => group.delivered.next().unwrap_or(EntryId::MAX),
        };
        let needed = self.groups.iter().map(|(name, group)| (lowest(group), name));
        needed.min().map(|(id, name)| (name.clone(), id))
    }

    /// Removes the oldest entries: at most `excess`, and only what `may_go` allows.
    pub(super) fn trim(&mut self, excess: usize, may_go: impl Fn(EntryId) -> bool) -> u64 {
        let gone = self.entries.keys().copied().take(excess).take_while(|id| may_go(*id));
        let gone = gone.collect::<Vec<_>>();
        for id in &gone {
            self.entries.remove(id);
        }
        u64::try_from(gone.len()).unwrap_or(u64::MAX)
    }
}
