//! Rates from counters that consumers report. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// Counters at one moment, by the consumer that reports them.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    at: Instant,
    totals: HashMap<String, Totals>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    done: u64,
    failed: u64,
}

/// Events per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    pub(crate) done: f64,
    pub(crate) failed: f64,
}

impl Point {
    pub(crate) fn new(at: Instant) -> Self {
        Self { at, totals: HashMap::new() }
    }

    /// Adds a consumer's counters.
    pub(crate) fn count(&mut self, consumer: &str, done: u64, failed: u64) {
        self.totals.insert(consumer.to_owned(), Totals { done, failed });
    }

    /// Rates since an earlier moment. A consumer that is new since then is assumed to have started
    /// from zero. Counts that a consumer made after its last report are lost when it goes.
    fn since(&self, before: &Self) -> Rates {
        let seconds = self.at.saturating_duration_since(before.at).as_secs_f64();
        if seconds <= 0.0 {
            return Rates::default();
        }
        let (mut done, mut failed) = (0, 0);
        for (consumer, totals) in &self.totals {
            let earlier = before.totals.get(consumer).copied().unwrap_or_default();
            done += totals.done.saturating_sub(earlier.done);
            failed += totals.failed.saturating_sub(earlier.failed);
        }
        Rates { done: per_second(done, seconds), failed: per_second(failed, seconds) }
    }
}

/// Counters of the last five minutes.
#[derive(Debug, Default)]
pub(crate) struct History {
    points: VecDeque<Point>,
}

impl History {
    pub(crate) fn add(&mut self, point: Point) {
        let now = point.at;
        self.points.push_back(point);
        let old = |point: &Point| now.saturating_duration_since(point.at) > KEPT;
        while self.points.front().is_some_and(old) || self.points.len() > POINTS_MAX {
            self.points.pop_front();
        }
    }

    /// Rates over about ten seconds, because consumers report their counters every few seconds.
    pub(crate) fn rates(&self) -> Option<Rates> {
        self.over(RECENT)
    }

    /// Rates since the oldest point within this time, or since the second last point.
    fn over(&self, time: Duration) -> Option<Rates> {
        let last = self.points.back()?;
        let recent = |point: &&Point| last.at.saturating_duration_since(point.at) <= time;
        let before = self.points.iter().find(recent).filter(|point| point.at < last.at);
        let before = before.or_else(|| self.points.iter().rev().nth(1))?;
        Some(last.since(before))
    }

    /// Rates over the last minute, or over as much of it as is known.
    pub(crate) fn minute(&self) -> Option<Rates> {
        self.over(MINUTE)
    }

    /// Jobs done per second in each step of a few seconds, oldest first.
    pub(crate) fn done(&self) -> Vec<f64> {
        let mut rates = Vec::new();
        let mut points = self.points.iter();
        let Some(mut before) = points.next() else { return rates };
        for point in points {
            if point.at.saturating_duration_since(before.at) >= STEP {
                rates.push(point.since(before).done);
                before = point;
            }
        }
        rates
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no 16 digits")]
fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

const KEPT: Duration = Duration::from_secs(300);
const RECENT: Duration = Duration::from_secs(11);
const MINUTE: Duration = Duration::from_secs(61);
/// The length of a step. Consumers send a heartbeat every third of a lease, so a shorter step would alternate between
/// zero and a peak.
const STEP: Duration = Duration::from_secs(5);
const POINTS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn point(start: Instant, seconds: u64, totals: &[(&str, u64, u64)]) -> Point {
        let mut point = Point::new(start + Duration::from_secs(seconds));
        for (consumer, done, failed) in totals {
            point.count(consumer, *done, *failed);
        }
        point
    }

    #[test]
    fn a_rate_sums_what_all_consumers_have_done() {
        let (mut history, start) = (History::default(), Instant::now());
        history.add(point(start, 0, &[("a", 100, 1)]));
        assert_eq!(history.rates(), None, "one sample gives no rate");
        history.add(point(start, 10, &[("a", 150, 2), ("b", 20, 0)]));
        assert_eq!(history.rates(), Some(Rates { done: 7.0, failed: 0.1 }));
    }

    #[test]
    fn a_consumer_that_leaves_or_restarts_does_not_lower_the_rate() {
        let (mut history, start) = (History::default(), Instant::now());
        history.add(point(start, 0, &[("a", 1_000, 0), ("b", 500, 0)]));
        history.add(point(start, 10, &[("b", 10, 0)]));
        assert_eq!(history.rates(), Some(Rates::default()));
    }

    #[test]
    fn only_five_minutes_are_kept_and_recent_is_ten_seconds() {
        let (mut history, start) = (History::default(), Instant::now());
        for second in 0..1_000 {
            let done = if second > 900 { 900 + (second - 900) * 10 } else { second };
            history.add(point(start, second, &[("a", done, 0)]));
        }
        assert_eq!(history.rates(), Some(Rates { done: 10.0, failed: 0.0 }));
        assert!(history.points.len() <= POINTS_MAX);
        let done = history.done();
        assert!(done.len() >= 30 && done.first() == Some(&1.0) && done.last() == Some(&10.0));
    }

    #[test]
    fn a_sample_after_a_long_gap_divides_by_the_whole_gap() {
        let (mut history, start) = (History::default(), Instant::now());
        history.add(point(start, 0, &[("a", 0, 0)]));
        history.add(point(start, 100, &[("a", 100, 0)]));
        assert_eq!(history.rates(), Some(Rates { done: 1.0, failed: 0.0 }));
    }
}
