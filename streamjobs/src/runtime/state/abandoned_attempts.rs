//! Attempts that were abandoned here while their entry may still be pending for this consumer.
//!
//! Such an entry was delivered, so recovery must not take its delivery for lost. The reaper claims
//! it when its lease ends, with the next delivery count.

use std::collections::BTreeMap;

use crate::model::entry::{EntryId, Inlet};

/// The entries, each with the delivery count of its abandoned attempt.
#[derive(Debug, Default)]
pub(crate) struct AbandonedAttempts {
    counts: BTreeMap<(Inlet, EntryId), u64>,
    /// How many stayed at the last [`retain`](Self::retain).
    kept: usize,
}

impl AbandonedAttempts {
    pub(crate) fn insert(&mut self, entry: (Inlet, EntryId), delivery_count: u64) {
        self.counts.insert(entry, delivery_count);
    }

    pub(crate) fn remove(&mut self, entry: (Inlet, EntryId)) {
        self.counts.remove(&entry);
    }

    pub(crate) fn contains(&self, entry: (Inlet, EntryId), delivery_count: u64) -> bool {
        self.counts.get(&entry) == Some(&delivery_count)
    }

    pub(crate) fn retain(&mut self, mut is_pending: impl FnMut((Inlet, EntryId)) -> bool) {
        self.counts.retain(|entry, _| is_pending(*entry));
        self.kept = self.counts.len();
    }

    /// Whether so many abandoned attempts are stored that those whose entries are no longer pending should now be
    /// removed. Other consumers have since claimed most of these entries. The threshold is twice what was kept
    /// last, so that this happens rarely.
    pub(crate) fn is_crowded(&self) -> bool {
        self.counts.len() >= CROWDED.max(self.kept * 2)
    }
}

const CROWDED: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn many(attempts: &mut AbandonedAttempts, numbers: std::ops::Range<u64>) {
        for number in numbers {
            attempts.insert((Inlet::STREAM, EntryId::new(number, 0)), 1);
        }
    }

    #[test]
    fn they_are_crowded_at_a_thousand_and_then_at_twice_what_was_kept() {
        let mut attempts = AbandonedAttempts::default();
        many(&mut attempts, 0..999);
        assert!(!attempts.is_crowded());
        many(&mut attempts, 999..1_000);
        assert!(attempts.is_crowded());
        attempts.retain(|_| true);
        assert!(!attempts.is_crowded(), "all are pending still");
        many(&mut attempts, 1_000..2_000);
        assert!(attempts.is_crowded());
        attempts.retain(|_| false);
        assert!(!attempts.is_crowded());
        assert!(!attempts.contains((Inlet::STREAM, EntryId::new(7, 0)), 1));
    }
}
