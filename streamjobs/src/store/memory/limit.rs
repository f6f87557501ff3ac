//! The limit of one group in memory: places and lines.

use std::collections::{BTreeMap, VecDeque};

use crate::model::entry::{EntryId, Fields, Inlet};
use crate::model::limit::HoldRule;

/// The limit of one group.
#[derive(Clone, Debug, Default)]
pub(super) struct Limit {
    /// The key that each job with a place counts for.
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

pub(super) fn limit_of(rule: HoldRule) -> usize {
    usize::try_from(rule.limit.get()).unwrap_or(usize::MAX)
}
