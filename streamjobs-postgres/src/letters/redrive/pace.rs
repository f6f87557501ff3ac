//! The pace of a redrive: batch sizes, pauses, and retries while a server is unreachable.

use std::time::Duration;

use crate::backoff;

/// The size of the next batch: at most a tenth of the rate per second, so that the rate is even
/// rather than a burst each second, and at most the number of failures that are left.
pub(super) fn batch(rate: Option<u64>, failures_left: Option<u64>) -> u64 {
    let paced = rate.map_or(BATCH_MAX, |rate| (rate / 10).clamp(1, BATCH_MAX));
    failures_left.map_or(paced, |left| paced.min(left.max(1)))
}

/// The pause after a batch of this size.
pub(super) fn pause(letters: u64, rate: Option<u64>) -> Duration {
    let Some(rate) = rate.filter(|rate| *rate > 0) else { return Duration::ZERO };
    let micros = letters.saturating_mul(1_000_000) / rate;
    Duration::from_micros(micros)
}

/// The retries of a redrive while a server is unreachable.
#[derive(Debug, Default)]
pub(super) struct RetryBudget {
    tries: u32,
}

impl RetryBudget {
    /// Starts over after a success.
    pub(super) fn reset(&mut self) {
        self.tries = 0;
    }

    /// The delay before the next try; `None` when the retries are used up. `random` is drawn evenly
    /// from 0 to 1.
    pub(super) fn next(&mut self, random: f64) -> Option<Duration> {
        if self.tries >= TRIES_MAX {
            return None;
        }
        self.tries += 1;
        Some(backoff::delay(self.tries, random))
    }
}

/// The most jobs in one request to Redis and one transaction.
const BATCH_MAX: u64 = 100;
/// The most tries in a row. Their delays are about 20 s together, plus the time that each try
/// takes: enough for a restart or a failover.
const TRIES_MAX: u32 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_follow_the_rate_and_the_failures_left() {
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
