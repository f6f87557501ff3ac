//! Which inlet the reader reads next: the lane and the stream take turns while both have entries.

use std::sync::Arc;

use crate::model::entry::Inlet;
use crate::runtime::state::signals::LaneSignal;

/// The reader's turn between the stream and the lane.
#[derive(Debug)]
pub(crate) struct LaneTurn {
    signal: Arc<LaneSignal>,
    /// The last read was from the lane, so the stream is next.
    lane_served: bool,
}

impl LaneTurn {
    pub(crate) fn new(signal: Arc<LaneSignal>) -> Self {
        Self { signal, lane_served: false }
    }

    /// The inlet to read next, and whether entries wait in the lane.
    pub(crate) fn next(&self) -> (Inlet, bool) {
        let lane_waits = self.signal.is_raised();
        let inlet = if lane_waits && !self.lane_served { Inlet::LANE } else { Inlet::STREAM };
        (inlet, lane_waits)
    }

    /// An inlet was read, to its end or not.
    pub(crate) fn served(&mut self, inlet: Inlet, to_its_end: bool) {
        self.lane_served = inlet == Inlet::LANE;
        if self.lane_served && to_its_end {
            self.signal.clear();
        }
    }
}
