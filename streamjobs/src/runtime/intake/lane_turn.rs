//! Which inlet the reader reads next.

use std::sync::Arc;

use crate::runtime::state::LaneSignal;
use crate::store::Inlet;

/// The stream and the lane take turns while both have entries.
#[derive(Debug)]
pub(crate) struct LaneTurn {
    pub(crate) signal: Arc<LaneSignal>,
    /// The last read was from the lane, so the stream is next.
    pub(crate) lane_served: bool,
}

impl LaneTurn {
    /// The inlet to read next, and whether entries wait in the lane.
    pub(super) fn next(&self) -> (Inlet, bool) {
        let lane_waits = self.signal.is_raised();
        let inlet = if lane_waits && !self.lane_served { Inlet::LANE } else { Inlet::STREAM };
        (inlet, lane_waits)
    }

    /// An inlet is about to be read. What enters the lane from now on may be missing in the answer, so its signal is
    /// kept.
    pub(super) fn begins(&self, inlet: Inlet) {
        if inlet.is_lane() {
            self.signal.clear();
        }
    }

    /// An inlet was read, to its end or not.
    pub(super) fn served(&mut self, inlet: Inlet, to_its_end: bool) {
        self.lane_served = inlet.is_lane();
        if !to_its_end {
            self.failed(inlet);
        }
    }

    /// An inlet could not be read.
    pub(super) fn failed(&self, inlet: Inlet) {
        if inlet.is_lane() {
            self.signal.raise();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn() -> LaneTurn {
        let turn = LaneTurn { signal: Arc::default(), lane_served: false };
        turn.signal.raise();
        turn
    }

    fn read(turn: &mut LaneTurn, to_its_end: bool) -> Inlet {
        let (inlet, _) = turn.next();
        turn.begins(inlet);
        turn.served(inlet, to_its_end);
        inlet
    }

    #[test]
    fn the_lane_and_the_stream_take_turns_until_the_lane_is_read_to_its_end() {
        let mut turn = turn();
        let inlets = [false, false, false, true, true, true].map(|end| read(&mut turn, end));
        let (lane, stream) = (Inlet::LANE, Inlet::STREAM);
        assert_eq!(inlets, [lane, stream, lane, stream, lane, stream]);
        assert_eq!(turn.next(), (stream, false));
    }

    #[test]
    fn what_enters_the_lane_while_an_empty_answer_is_on_its_way_is_read() {
        let mut turn = turn();
        turn.begins(Inlet::LANE);
        turn.signal.raise();
        turn.served(Inlet::LANE, true);
        assert_eq!(read(&mut turn, true), Inlet::STREAM);
        assert_eq!(turn.next(), (Inlet::LANE, true));
    }

    #[test]
    fn a_lane_that_could_not_be_read_is_read_again() {
        let turn = turn();
        turn.begins(Inlet::LANE);
        turn.failed(Inlet::LANE);
        assert_eq!(turn.next(), (Inlet::LANE, true));
    }
}
