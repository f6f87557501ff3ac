//! How many jobs are put back at once, and how long an interrupted redrive is tried.

use std::time::Duration;

use crate::backoff;

/// How many letters the next batch has: at most a tenth of a second's worth, so that a rate is even
/// rather than a burst for every second, and never more than may still fail.
pub(super) fn batch(rate: Option<u64>, failures_left: Option<u64>) -> u64 {
    let paced = rate.map_or(BATCH_MAX, |rate| (rate / 10).clamp(1, BATCH_MAX));
    failures_left.map_or(paced, |left| paced.min(left.max(1)))
}

/// How long the batch after one with this many letters waits.
pub(super) fn pause(letters: u64, rate: Option<u64>) -> Duration {
    let Some(rate) = rate.filter(|rate| *rate > 0) else { return Duration::ZERO };
    let micros = letters.saturating_mul(1_000_000) / rate;
    Duration::from_micros(micros)
}

/// Waits between tries while a server is out of reach, and their end.
#[derive(Debug, Default)]
pub(super) struct RetryBudget {
    tries: u32,
}

impl RetryBudget {
    /// Something went on.
    pub(super) fn reset(&mut self) {
        self.tries = 0;
    }

    /// How long to wait before the next try; none when there have been enough. `random` is drawn
    /// evenly from 0 to 1.
    pub(super) fn next(&mut self, random: f64) -> Option<Duration> {
        if self.tries >= TRIES_MAX {
            return None;
        }
        self.tries += 1;
        Some(backoff::delay(self.tries, random))
    }
}

/// What one round trip carries to Redis and one transaction notes.
const BATCH_MAX: u64 = 100;
/// About 20 s, beyond the time that each try takes: a restart or a failover, not a lunch break.
const TRIES_MAX: u32 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_follow_the_rate_and_what_may_still_fail() {
        assert_eq!(batch(None, None), 100);
        assert_eq!([1, 9, 10, 55, 5_000].map(|rate| batch(Some(rate), None)), [1, 1, 1, 5, 100]);
        assert_eq!([0, 1, 3, 500].map(|left| batch(None, Some(left))), [1, 1, 3, 100]);
        assert_eq!(batch(Some(20), Some(50)), 2);
    }

    #[test]
    fn pauses_add_up_to_the_rate() {
        for rate in [1, 7, 10, 99, 100, 1_000, 123_456] {
            let letters = batch(Some(rate), None);
            let seconds = pause(letters, Some(rate)).as_secs_f64();
            let paced = f64::from(u32::try_from(letters).unwrap()) / seconds;
            let wanted = f64::from(u32::try_from(rate).unwrap());
            assert!((paced / wanted - 1.0).abs() < 0.01, "{rate}: {paced}");
        }
        assert_eq!(pause(100, None), Duration::ZERO);
        assert_eq!(pause(100, Some(0)), Duration::ZERO);
    }

    #[test]
    fn a_retry_budget_ends_and_is_reset() {
        let mut budget = RetryBudget::default();
        let pauses = std::iter::from_fn(|| budget.next(1.0)).collect::<Vec<_>>();
        assert_eq!(pauses.len(), 9);
        assert_eq!((pauses[0], pauses[8]), (Duration::from_millis(100), Duration::from_secs(5)));
        assert_eq!(budget.next(0.0), None);
        budget.reset();
        assert_eq!(budget.next(0.0), Some(Duration::from_millis(50)));
    }
}
