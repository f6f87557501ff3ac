//! The metrics of a set of shared slots, which belongs to no stream.

use metrics::Gauge;

use super::labels::Labels;
use super::queue::move_gauge;
use super::table::{SHARED_SLOTS, SHARED_SLOTS_IN_USE};

/// The handles of one set. Several runtimes may share a recorder, so gauges are raised or lowered by the
/// difference and never set.
#[derive(Debug)]
pub(crate) struct SharedSlotsMetrics {
    slots: Gauge,
    in_use: Gauge,
}

impl SharedSlotsMetrics {
    /// Makes every handle with the current recorder.
    pub(crate) fn new(set: &'static str) -> Self {
        let labels = Labels::default().and("slots", set);
        Self { slots: labels.gauge(SHARED_SLOTS), in_use: labels.gauge(SHARED_SLOTS_IN_USE) }
    }

    pub(crate) fn move_slots(&self, before: usize, after: usize) {
        move_gauge(&self.slots, before, after);
    }

    pub(crate) fn move_in_use(&self, before: usize, after: usize) {
        if before != after {
            move_gauge(&self.in_use, before, after);
        }
    }
}
