//! How many entries a read asks for, bounded in entries and in bytes.

use crate::model::entry::Delivery;

/// Learns from each read how large the next one may be.
#[derive(Debug)]
pub(crate) struct BatchSizer {
    /// How many entries the last read gave.
    last_count: usize,
    /// The mean size of these entries.
    entry_bytes: usize,
}

impl Default for BatchSizer {
    fn default() -> Self {
        Self { last_count: 0, entry_bytes: ENTRY_BYTES_ASSUMED }
    }
}

impl BatchSizer {
    /// How many entries make a good batch, if they are as large as the last ones.
    pub(crate) fn entries_max(&self) -> usize {
        (BATCH_BYTES / self.entry_bytes.max(1)).clamp(1, BATCH_MAX)
    }

    /// Whether entries come faster than one by one.
    pub(crate) fn is_busy(&self) -> bool {
        self.last_count >= BUSY_COUNT
    }

    /// Learns from what a read gave.
    pub(crate) fn observe(&mut self, deliveries: &[Delivery]) {
        self.last_count = deliveries.len();
        let bytes = deliveries.iter().map(|delivery| delivery.entry.bytes()).sum::<usize>();
        if let Some(mean) = bytes.checked_div(deliveries.len()) {
            self.entry_bytes = mean;
        }
    }
}

/// Larger reads are long pauses for the server and gain nothing.
pub(crate) const BATCH_MAX: usize = 500;
/// The target size of a read: small beside the memory of the jobs, and large enough that a round
/// trip costs little.
const BATCH_BYTES: usize = 1024 * 1024;
/// Before the first read has shown how large entries are.
const ENTRY_BYTES_ASSUMED: usize = 16 * 1024;
const BUSY_COUNT: usize = 32;
