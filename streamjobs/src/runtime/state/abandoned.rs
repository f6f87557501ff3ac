//! Attempts that ran here and were given up while the entry may still be this consumer's.
//!
//! Such an entry was delivered, so it is not recovered as one whose delivery did not arrive: a sweep
//! takes it up, under the next count.

use std::collections::BTreeMap;

use crate::model::entry::{EntryId, Inlet};

/// The entries with the delivery counts under which they were given up.
#[derive(Debug, Default)]
pub(crate) struct AbandonedAttempts {
    counts: BTreeMap<(Inlet, EntryId), u64>,
    /// How many there were when those whose entries went to others were last forgotten.
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

    /// Whether there are so many that it is time to see which to forget: most entries have gone to
    /// others since. Those that are kept then do not count, so that it is not looked all the time.
    pub(crate) fn is_crowded(&self) -> bool {
        self.counts.len() >= FIRST_LOOK.max(self.kept * 2)
    }
}

/// From this many on it is looked which to forget.
const FIRST_LOOK: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn many(given_up: &mut AbandonedAttempts, numbers: std::ops::Range<u64>) {
        for number in numbers {
            given_up.insert((Inlet::STREAM, EntryId::new(number, 0)), 1);
        }
    }

    #[test]
    fn it_is_looked_which_to_forget_at_a_thousand_and_then_at_twice_what_was_kept() {
        let mut given_up = AbandonedAttempts::default();
        many(&mut given_up, 0..999);
        assert!(!given_up.is_crowded());
        many(&mut given_up, 999..1_000);
        assert!(given_up.is_crowded());
        given_up.retain(|_| true);
        assert!(!given_up.is_crowded(), "all are pending still");
        many(&mut given_up, 1_000..2_000);
        assert!(given_up.is_crowded());
        given_up.retain(|_| false);
        assert!(!given_up.is_crowded());
        assert!(!given_up.contains((Inlet::STREAM, EntryId::new(7, 0)), 1));
    }
}
