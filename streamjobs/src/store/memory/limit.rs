//! The limit of one group in memory: places and lines.

use std::collections::{BTreeMap, VecDeque};

use crate::model::entry::{EntryId, Fields, Inlet};
use crate::model::limit::HoldRule;

/// The limit of one group.
#[derive(Clone, Debug, Default)]
pub(super) struct Limit {
    /// The key for which each job with a place is counted.
    pub(super) holds: BTreeMap<(Inlet, EntryId), String>,
    /// Jobs that wait, by their key.
    pub(super) lines: BTreeMap<String, VecDeque<Fields>>,
}

impl Limit {
    pub(super) fn busy(&self, key: &str) -> usize {
        self.holds.values().filter(|held| *held == key).count()
    }

    pub(super) fn admits(&self, rule: HoldRule, key: &str) -> bool {
        self.busy(key) < limit_of(rule) && !self.lines.contains_key(key)
    }

    pub(super) fn parked(&self) -> usize {
        self.lines.values().map(VecDeque::len).sum()
    }

    /// The next job of a key's line.
    pub(super) fn next(&mut self, key: &str) -> Option<Fields> {
        let line = self.lines.get_mut(key)?;
        let job = line.pop_front();
        if line.is_empty() {
            self.lines.remove(key);
        }
        job
    }
}

/// When the keys of a group had their last turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    of_keys: BTreeMap<String, u64>,
    last: u64,
}

impl Turns {
    pub(super) fn of(&self, key: &str) -> u64 {
        self.of_keys.get(key).copied().unwrap_or(0)
    }

    /// Moves a key's turn behind the turns of all other keys.
    pub(super) fn take(&mut self, key: &str) {
        self.last += 1;
        self.of_keys.insert(key.to_owned(), self.last);
    }
}

pub(super) fn limit_of(rule: HoldRule) -> usize {
    usize::try_from(rule.limit.get()).unwrap_or(usize::MAX)
}
