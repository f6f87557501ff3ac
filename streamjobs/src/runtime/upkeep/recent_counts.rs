//! How many jobs were done and how many attempts failed within the last minutes, from a few samples
//! of the counters. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Samples of two counters that started at zero.
#[derive(Debug)]
pub(super) struct RecentCounts {
    samples: VecDeque<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    done: u64,
    failed: u64,
}

impl RecentCounts {
    pub(super) fn new(started: Instant) -> Self {
        Self { samples: VecDeque::from([Sample { at: started, done: 0, failed: 0 }]) }
    }

    /// Takes the counters. Returns what was done and what failed within about the last five
    /// minutes.
    pub(super) fn sample(&mut self, now: Instant, done: u64, failed: u64) -> (u64, u64) {
        let age = |sample: &Sample| now.saturating_duration_since(sample.at);
        // The window begins at the last sample from before it.
        while self.samples.get(1).is_some_and(|next| age(next) >= WINDOW) {
            self.samples.pop_front();
        }
        let (before, after) =
            self.samples.front().map_or((0, 0), |first| (first.done, first.failed));
        if self.samples.back().is_none_or(|last| age(last) >= STEP) {
            self.samples.push_back(Sample { at: now, done, failed });
        }
        (done.saturating_sub(before), failed.saturating_sub(after))
    }
}

const WINDOW: Duration = Duration::from_secs(300);
const STEP: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_five_minutes_count_and_the_samples_are_bounded() {
        let started = Instant::now();
        let mut recent = RecentCounts::new(started);
        let at = |seconds| started + Duration::from_secs(seconds);
        assert_eq!(recent.sample(at(0), 0, 0), (0, 0));
        assert_eq!(recent.sample(at(1), 7, 2), (7, 2), "since the start");
        for second in 2..3_600 {
            recent.sample(at(second), 7 + second, 2);
            assert!(recent.samples.len() <= 33, "{}", recent.samples.len());
        }
        let (done, failed) = recent.sample(at(3_600), 3_607, 2);
        assert!((300..=310).contains(&done) && failed == 0, "{done} {failed}");
        assert_eq!(recent.sample(at(9_999), 3_607, 2), (0, 0), "nothing since");
    }
}
