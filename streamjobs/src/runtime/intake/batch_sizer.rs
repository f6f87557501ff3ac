//! How many entries a read asks for: bounded in slots, entries and bytes, and shared with claims.

use crate::model::entry::{Delivery, Inlet};

/// Learns from each read how large the next read may be.
#[derive(Debug)]
pub(crate) struct BatchSizer {
    /// How many entries the last read gave.
    last_count: usize,
    /// The mean size of an entry of that read.
    entry_bytes: usize,
    /// The most entries to ask for: fewer after a larger answer was lost on its way.
    count_max: usize,
    /// How many entries the last request asked for.
    asked: usize,
    /// The last read gave less than it asked for.
    is_drained: bool,
    backlog: Backlog,
    /// Of an odd number of slots, the reader has the larger part next time.
    has_larger_half: bool,
}

/// What is left to read in the stream and in the lane, as far as is known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backlog {
    stream: Fullness,
    lane: Fullness,
}

/// How the last reads of an inlet were. A full read may have taken the last entry: a quiet stream gives one entry to a
/// read for one. So entries are known to be left only after two full reads.
#[derive(Clone, Copy, Debug, Default)]
struct Fullness {
    was_full: bool,
    is_left: bool,
}

impl Backlog {
    pub(crate) fn is_left(self) -> bool {
        self.stream.is_left || self.lane.is_left
    }

    /// The same after another read.
    pub(crate) fn after(mut self, inlet: Inlet, is_full: bool) -> Self {
        let last = if inlet.is_lane() { &mut self.lane } else { &mut self.stream };
        *last = Fullness { was_full: is_full, is_left: is_full && last.was_full };
        self
    }
}

impl Default for BatchSizer {
    fn default() -> Self {
        Self {
            last_count: 0,
            entry_bytes: ENTRY_BYTES_ASSUMED,
            count_max: BATCH_MAX,
            asked: 0,
            is_drained: false,
            backlog: Backlog::default(),
            has_larger_half: true,
        }
    }
}

impl BatchSizer {
    /// How many of the free slots to read into. While claims want slots, claims get every second
    /// slot, and all slots if nothing is left to read.
    pub(crate) fn count(&mut self, free: usize, claims_want: bool) -> usize {
        if !claims_want {
            return self.ask(free);
        }
        if self.is_drained {
            return 0;
        }
        let half = (free + usize::from(self.has_larger_half)) / 2;
        self.has_larger_half ^= free % 2 == 1;
        self.ask(half)
    }

    /// How many of `wanted` entries to ask for in one request, if they are as large as the last entries.
    pub(crate) fn ask(&mut self, wanted: usize) -> usize {
        let batch = (BATCH_BYTES / self.entry_bytes.max(1)).clamp(1, self.count_max);
        self.asked = wanted.min(batch);
        self.asked
    }

    /// An answer was lost. It may have been too large for the link or for a limit of the server, so
    /// the next answer will have half as many entries.
    pub(crate) fn lost(&mut self) {
        self.count_max = (self.asked.min(self.count_max) / 2).max(1);
    }

    /// Whether entries come faster than one by one.
    pub(crate) fn is_busy(&self) -> bool {
        self.last_count >= BUSY_COUNT
    }

    /// Whether there was nothing left to read.
    pub(crate) fn is_drained(&self) -> bool {
        self.is_drained
    }

    /// What is known to be left to read. Until the next read has noted it, nothing is.
    pub(crate) fn take_backlog(&mut self) -> Backlog {
        std::mem::take(&mut self.backlog)
    }

    /// Whether entries are left to read, as far as is known.
    pub(crate) fn has_backlog(&self) -> bool {
        self.backlog.is_left()
    }

    /// Notes what is left to read.
    pub(crate) fn note_backlog(&mut self, backlog: Backlog) {
        self.backlog = backlog;
    }

    /// Notes that new entries may have come since the last read found nothing left.
    pub(crate) fn refill(&mut self) {
        self.is_drained = false;
    }

    /// Learns from what a read gave, and whether that is all there is.
    pub(crate) fn observe(&mut self, deliveries: &[Delivery], is_drained: bool) {
        self.is_drained = is_drained;
        self.last_count = deliveries.len();
        self.arrived(deliveries);
    }

    /// Learns from an answer with entries that did arrive.
    pub(crate) fn arrived(&mut self, deliveries: &[Delivery]) {
        let bytes = deliveries.iter().map(|delivery| delivery.entry.bytes()).sum::<usize>();
        if let Some(mean) = bytes.checked_div(deliveries.len()) {
            self.entry_bytes = mean;
            self.count_max = self.count_max.saturating_mul(2).min(BATCH_MAX);
        }
    }
}

/// How many acknowledgements are worth a request, with this many slots. Meanwhile the jobs in the other slots run on,
/// so that the handlers have work until the next jobs come.
pub(crate) fn acks_worthwhile(slots: usize) -> usize {
    let slots = slots.min(BATCH_MAX);
    (slots / 4).max(BUSY_COUNT).min(slots / 2).max(1)
}

/// The most entries in one read. Larger reads are long pauses for the server and gain nothing.
pub(crate) const BATCH_MAX: usize = 500;
/// The target size of a read: small beside the memory of the jobs, and large enough that a round
/// trip costs little.
const BATCH_BYTES: usize = 1024 * 1024;
/// The size of an entry that is assumed before the first read has shown how large entries are.
const ENTRY_BYTES_ASSUMED: usize = 256 * 1024;
/// A stream is busy if a read gives at least this many entries. On a stream with little work,
/// entries come one by one.
const BUSY_COUNT: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::entry::{Entry, EntryId, Inlet};

    fn deliveries(count: usize, bytes: usize) -> Vec<Delivery> {
        let entry = Entry::new(EntryId::ZERO, vec![("a".into(), vec![b'x'; bytes].into())]);
        let delivery = Delivery { inlet: Inlet::STREAM, entry, delivery_count: 1 };
        vec![delivery; count]
    }

    #[test]
    fn requests_are_small_until_the_size_of_entries_is_known() {
        let mut sizer = BatchSizer::default();
        let first = sizer.count(1_000, false);
        assert_eq!(first, 4);
        sizer.observe(&deliveries(first, 100), false);
        assert_eq!(sizer.count(1_000, false), BATCH_MAX);
        sizer.observe(&deliveries(1, 1024 * 1024), false);
        assert_eq!(sizer.count(1_000, false), 1);
    }

    #[test]
    fn after_a_lost_answer_half_as_many_are_asked_for_and_more_again_later() {
        let mut sizer = BatchSizer::default();
        sizer.observe(&deliveries(1, 100), false);
        for expected in [500, 250, 125, 62, 31, 15, 7, 3, 1, 1] {
            assert_eq!(sizer.count(1_000, false), expected);
            sizer.lost();
        }
        for expected in [2, 4, 8] {
            sizer.arrived(&deliveries(1, 100));
            assert_eq!(sizer.count(1_000, false), expected);
        }
    }

    #[test]
    fn a_part_of_the_slots_is_acknowledged_together_and_one_of_few() {
        let slots = [1, 2, 4, 10, 16, 100, 1_000, 10_000];
        assert_eq!(slots.map(acks_worthwhile), [1, 1, 2, 4, 4, 25, 125, 125]);
    }

    #[test]
    fn claims_get_every_second_slot_and_all_when_nothing_is_left_to_read() {
        let mut sizer = BatchSizer::default();
        sizer.observe(&deliveries(1, 100), false);
        assert_eq!([1, 1, 7, 7, 8].map(|free| sizer.count(free, true)), [1, 0, 4, 3, 4]);
        sizer.observe(&[], true);
        assert_eq!(sizer.count(8, true), 0);
        assert_eq!(sizer.count(8, false), 8);
    }
}
