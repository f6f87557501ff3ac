//! Whether an entry that is not pending any more may have been moved elsewhere and done there.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::{Renewed, ServerTime};

/// What renewals report about entries that operators moved or acknowledged.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// How often operators did so, by the server's last answer.
    count: Option<u64>,
    /// The time since which that number has not changed and this process has not stood still;
    /// `None` means since its start.
    unchanged_since: Option<Instant>,
    /// When the last request with such an answer was sent, and the server's clock in the answer.
    last: Option<(Instant, ServerTime)>,
}

impl Moves {
    /// Takes the count of the first heartbeat; later calls change nothing.
    pub(super) fn begin_with(&mut self, moves: u64) {
        self.count.get_or_insert(moves);
    }

    pub(super) fn observe(&mut self, renewed: &Renewed, sent: Instant, received: Instant) {
        let stood_still = self.last.is_some_and(|(before, clock)| {
            let there = Duration::from_millis(renewed.now.0.saturating_sub(clock.0));
            there > received.saturating_duration_since(before) + STANDSTILL_MIN
        });
        if stood_still || self.count.is_some_and(|count| count != renewed.moves) {
            self.unchanged_since = Some(received);
        }
        self.count = Some(renewed.moves);
        self.last = Some((sent, renewed.now));
    }

    /// Whether no entry was moved since this request was sent.
    pub(super) fn none_since(&self, sent: Instant) -> bool {
        self.unchanged_since.is_none_or(|since| sent >= since)
    }
}

/// If the server's clock advances by this much more than the local clock, the machine was
/// suspended.
const STANDSTILL_MIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn renewed(now: u64, moves: u64) -> Renewed {
        Renewed { now: ServerTime(now), moves, answers: Vec::new() }
    }

    #[test]
    fn a_move_or_a_standstill_speaks_against_what_was_proven_before() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut moves = Moves::default();
        moves.begin_with(7);
        moves.begin_with(6);
        moves.observe(&renewed(1_000, 7), at(0), at(10));
        moves.observe(&renewed(2_000, 7), at(1_000), at(1_010));
        assert!(moves.none_since(start));
        moves.observe(&renewed(3_000, 8), at(2_000), at(2_010));
        assert!(!moves.none_since(at(2_000)) && moves.none_since(at(2_010)));
        moves.observe(&renewed(4_000, 8), at(3_000), at(3_010));
        assert!(moves.none_since(at(2_010)));
        moves.observe(&renewed(60_000, 8), at(4_000), at(4_010));
        assert!(!moves.none_since(at(4_000)) && moves.none_since(at(4_010)));
        moves.observe(&renewed(1, 8), at(5_000), at(5_010));
        assert!(moves.none_since(at(4_010)), "a clock that was set back");
    }
}
