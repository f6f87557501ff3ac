//! One stream in memory: entries, groups, and their pending lists.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::entry::{EntryId, Fields};
use crate::store::types::released_for;

/// A stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream {
    pub(super) entries: BTreeMap<EntryId, Fields>,
    pub(super) last: EntryId,
    /// Entries ever appended.
    pub(super) added: u64,
    pub(super) groups: HashMap<String, Group>,
}

/// A group on a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) delivered: EntryId,
    /// How many entries were appended up to the last delivered one, if that is known.
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

    /// Gives the entry to another owner. Releasing lowers the delivery count by one, and the next claim
    /// raises it again.
    pub(super) fn pass_to(&mut self, owner: String, now: u64) {
        let released = [&self.consumer, &owner].map(|name| released_for(name).is_some());
        match released {
            [false, true] => self.delivery_count = self.delivery_count.saturating_sub(1),
            [true, false] => self.delivery_count += 1,
            _ => {}
        }
        self.consumer = owner;
        self.since = now;
    }
}

impl Stream {
    /// Appends under the next id: the clock's time, or the id after the last one if the clock is behind.
    pub(super) fn append(&mut self, now: u64, fields: Fields) -> EntryId {
        let fresh = EntryId::new(now, 0);
        let id = if fresh > self.last { fresh } else { self.last.next().unwrap_or(EntryId::MAX) };
        self.last = id;
        self.added += 1;
        self.entries.insert(id, fields);
        id
    }

    /// Delivers entries that the group has not read yet.
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

    /// Whether the group has entries to read, or does not exist.
    pub(super) fn may_deliver(&self, group: &str) -> bool {
        let Some(group) = self.groups.get(group) else { return true };
        let next = group.delivered.next();
        next.is_some_and(|from| self.entries.range(from..).next().is_some())
    }

    /// The ids of the entries after this id.
    pub(super) fn after(&self, id: EntryId) -> impl Iterator<Item = EntryId> + '_ {
        let from = id.next().unwrap_or(EntryId::MAX);
        self.entries.range(from..).map(|(id, _)| *id)
    }

    /// How many entries were removed.
    pub(super) fn removed(&self) -> u64 {
        self.added.saturating_sub(count(self.entries.len()))
    }

    /// The lowest id that a group still needs, and that group's name; `None` without groups.
    pub(super) fn needed(&self) -> Option<(String, EntryId)> {
        let lowest = |group: &Group| match group.pending.keys().next() {
            Some(id) => *id,
            None => group.delivered.next().unwrap_or(EntryId::MAX),
        };
        let needed = self.groups.iter().map(|(name, group)| (lowest(group), name));
        needed.min().map(|(id, name)| (name.clone(), id))
    }

    /// By how many entries the stream exceeds a length.
    pub(super) fn excess(&self, length: u64) -> usize {
        self.entries.len().saturating_sub(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// Removes the oldest entries down to a length. Returns how many were removed.
    pub(super) fn trim_to(&mut self, length: u64) -> u64 {
        self.trim(self.excess(length), |_| true)
    }

    /// Removes at most `excess` of the oldest entries, up to the first that `may_go` refuses.
    pub(super) fn trim(&mut self, excess: usize, may_go: impl Fn(EntryId) -> bool) -> u64 {
        let oldest = self.entries.keys().copied().take(excess).take_while(|id| may_go(*id));
        let oldest = oldest.collect::<Vec<_>>();
        for id in &oldest {
            self.entries.remove(id);
        }
        count(oldest.len())
    }
}

/// A length as servers report it.
pub(super) fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
