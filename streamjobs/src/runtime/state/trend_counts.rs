//! What a queue did in this process, counted for its trend.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::insight::view::GroupInfo;
use crate::model::trend::{BUCKETS, DurationCounts, TrendNote, bucket_of};
use crate::runtime::state::lock;

/// Executor and watcher to trend writer: how long jobs waited and ran, and the backlog. Each value costs a job one
/// increment.
#[derive(Debug, Default)]
pub(crate) struct TrendCounts {
    queue_time: Buckets,
    run_time: Buckets,
    /// Since the last note: the highest backlog that the watcher found, and the longest time for which an oldest
    /// entry had waited.
    seen: Mutex<(u64, Duration)>,
}

impl TrendCounts {
    /// Records how long a job waited for its first attempt.
    pub(crate) fn waited(&self, duration: Duration) {
        self.queue_time.add(duration);
    }

    /// Records how long an attempt ran.
    pub(crate) fn ran(&self, duration: Duration) {
        self.run_time.add(duration);
    }

    /// Takes the state of the group on the server.
    pub(crate) fn saw(&self, group: &GroupInfo) {
        self.see(group.backlog.entries, group.oldest_waiting.unwrap_or_default());
    }

    /// Records a backlog, which can be from a note that the server did not take.
    pub(crate) fn see(&self, waiting: u64, oldest: Duration) {
        let mut seen = lock(&self.seen);
        *seen = (seen.0.max(waiting), seen.1.max(oldest));
    }

    /// The totals since the start, with these counters; and the backlog, which is returned once.
    pub(crate) fn totals(&self, done: u64, failed: u64) -> TrendNote {
        let (waiting, oldest) = std::mem::take(&mut *lock(&self.seen));
        let (queue_time, run_time) = (self.queue_time.counts(), self.run_time.counts());
        TrendNote { done, failed, waiting, oldest, queue_time, run_time }
    }
}

#[derive(Debug)]
struct Buckets([AtomicU64; BUCKETS]);

impl Default for Buckets {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::default()))
    }
}

impl Buckets {
    fn add(&self, duration: Duration) {
        if let Some(count) = self.0.get(bucket_of(duration)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counts(&self) -> DurationCounts {
        DurationCounts::of(self.0.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insight::view::Backlog;

    #[test]
    fn durations_are_counted_since_the_start_and_the_highest_look_is_noted_once() {
        let counts = TrendCounts::default();
        counts.waited(Duration::from_millis(3));
        counts.ran(Duration::from_secs(1));
        counts.ran(Duration::from_secs(1));
        let backlog = Backlog { entries: 7, exact: true };
        let oldest_waiting = Some(Duration::from_secs(9));
        counts.saw(&GroupInfo { backlog, oldest_waiting, ..GroupInfo::idle() });
        counts.saw(&GroupInfo::idle());
        let first = counts.totals(5, 2);
        assert_eq!((first.done, first.failed, first.waiting), (5, 2, 7));
        assert_eq!((first.oldest, first.queue_time.count()), (Duration::from_secs(9), 1));
        let next = counts.totals(5, 2);
        assert_eq!((next.waiting, next.run_time.count()), (0, 2));
        assert!(next.since(&first).is_empty());
        // The note was not taken, and fewer jobs wait since.
        counts.see(first.waiting, first.oldest);
        counts.see(1, Duration::ZERO);
        assert_eq!(counts.totals(5, 2).waiting, 7);
    }
}
