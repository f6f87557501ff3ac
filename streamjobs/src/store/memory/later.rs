//! The events of one stream in memory that wait for their time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::stream::count;
use crate::model::entry::Fields;
use crate::store::{ServerTime, Upcoming};

/// The events of one stream that wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Later {
    /// Since when events have been scheduled to the stream.
    pub(super) since: Option<u64>,
    /// When each event is due, and its id.
    pub(super) members: BTreeSet<(u64, String)>,
    /// By id: when each event is due, and its fields.
    pub(super) records: BTreeMap<String, (u64, Fields)>,
}

impl Later {
    /// Removes an event. Returns whether there was one.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        let members = self.members.len();
        self.members.retain(|(_, member)| member != id);
        self.records.remove(id).is_some() || self.members.len() < members
    }

    /// Whether events are scheduled to the stream.
    pub(super) fn is_used(&self) -> bool {
        self.since.is_some() || !self.members.is_empty()
    }

    /// How many records have no member.
    fn misplaced(&self) -> usize {
        self.records.len().saturating_sub(self.members.len())
    }

    pub(super) fn upcoming(&self, now: u64) -> Upcoming {
        let first = self.members.first();
        Upcoming {
            now: ServerTime(now),
            waiting: count(self.members.len()),
            next_due: first.map(|(due, _)| Duration::from_millis(due.saturating_sub(now))),
            misplaced: count(self.misplaced()),
            used: self.is_used(),
        }
    }

    /// Gives each record without a member a member again. Returns how many.
    pub(super) fn restore(&mut self) -> usize {
        if self.misplaced() == 0 {
            return 0;
        }
        let lost = self.records.iter().map(|(id, (due, _))| (*due, id.clone()));
        let before = self.members.len();
        self.members.extend(lost);
        self.members.len() - before
    }
}
