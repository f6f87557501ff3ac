//! What jobs in memory have ended, for tests that ask.

use std::collections::{BTreeMap, HashSet};

use crate::model::entry::EntryId;
use crate::store::Queue;

/// What tests want to know about the past.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    /// Every queue that ever had a group, by the key of its record.
    pub(super) queues: BTreeMap<String, Queue>,
    pub(super) ended: Ended,
    /// The jobs that were delivered again after their success, by record and published entry; `None` if
    /// jobs are not repeated.
    pub(super) repeated: Option<HashSet<(String, EntryId)>>,
}

/// How often each kind of end occurred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Jobs that were acknowledged as done.
    pub(crate) done: u64,
    /// Attempts that failed.
    pub(crate) failed: u64,
    /// Attempts after which the job waits although no failure was recorded.
    pub(crate) snoozed: u64,
    /// Jobs that were delivered again after their success.
    pub(crate) repeated: u64,
}

#[cfg(feature = "testing")]
impl Ended {
    /// How many attempts have ended.
    pub(crate) fn attempts(self) -> u64 {
        self.done + self.failed + self.snoozed
    }
}
