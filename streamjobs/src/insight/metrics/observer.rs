//! The metrics of the application's observers, which belong to no stream.

use metrics::Counter;

use super::labels::Labels;
use super::table::{OBSERVATIONS_DROPPED, OBSERVER_PANICS};

/// The handles of a runtime's observers.
#[derive(Debug)]
pub(crate) struct ObserverMetrics {
    /// Observations that were dropped before an observer got them.
    pub(crate) dropped: Counter,
    /// Calls that panicked.
    pub(crate) panicked: Counter,
}

impl ObserverMetrics {
    /// Makes every handle with the current recorder.
    pub(crate) fn new() -> Self {
        let labels = Labels::default();
        Self {
            dropped: labels.counter(OBSERVATIONS_DROPPED),
            panicked: labels.counter(OBSERVER_PANICS),
        }
    }
}
