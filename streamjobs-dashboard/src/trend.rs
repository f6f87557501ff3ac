//! What a group did over the last quarter of an hour, in steps. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::history::Rates;

/// A group at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TrendPoint {
    pub(crate) at: Instant,
    /// Jobs per second over about the last ten seconds; `None` until the second sample.
    pub(crate) rates: Option<Rates>,
    /// Entries that were not delivered yet.
    pub(crate) waiting: u64,
    /// How long the oldest of these had waited.
    pub(crate) oldest: Duration,
}

/// The points of the last quarter of an hour, ten seconds or more apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trend {
    points: VecDeque<TrendPoint>,
}

impl Trend {
    /// Adds a point, unless too little time has passed since the last one.
    pub(crate) fn add(&mut self, point: TrendPoint) {
        let last = self.points.back();
        if last.is_some_and(|last| point.at.saturating_duration_since(last.at) < STEP) {
            return;
        }
        self.points.push_back(point);
        let is_old = |old: &TrendPoint| point.at.saturating_duration_since(old.at) > KEPT;
        while self.points.front().is_some_and(is_old) {
            self.points.pop_front();
        }
    }

    /// The points, oldest first.
    pub(crate) fn points(&self) -> Vec<TrendPoint> {
        self.points.iter().copied().collect()
    }
}

/// How far charts look back.
pub(crate) const KEPT: Duration = Duration::from_secs(900);
const STEP: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_an_hour_is_kept_in_steps_of_ten_seconds() {
        let (mut trend, start) = (Trend::default(), Instant::now());
        for second in 0..4_000 {
            let at = start + Duration::from_secs(second);
            let oldest = Duration::ZERO;
            trend.add(TrendPoint { at, rates: None, waiting: second, oldest });
        }
        let points = trend.points();
        assert_eq!(points.len(), 91, "900 seconds, both ends included");
        assert!(points.windows(2).all(|pair| pair[1].waiting - pair[0].waiting == 10));
        assert_eq!(points.last().unwrap().waiting, 3_990);
    }
}
