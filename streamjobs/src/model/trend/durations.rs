//! Counts of durations, in buckets whose bounds grow by the square root of two: pure.

use std::collections::BTreeMap;
use std::time::Duration;

/// How many durations there were of about each length.
///
/// They are counted in 61 buckets from 125 µs to 37 hours, each of which ends at 1.41 times its beginning. So a
/// percentile is exact to within 41 %, and to within a fifth where durations are spread over its bucket. Shorter
/// durations count as up to 125 µs, longer ones as 37 hours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DurationCounts(BTreeMap<usize, u64>);

impl DurationCounts {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The duration that this part of all durations, from 0 to 1, does not exceed: 95 % of them stayed below
    /// `percentile(0.95)`. `None` without any.
    #[must_use]
    pub fn percentile(&self, part: f64) -> Option<Duration> {
        let rank = exact(self.count()) * part.clamp(0.0, 1.0);
        let (mut before, mut value) = (0.0, None);
        for (&bucket, &count) in &self.0 {
            let within = ((rank - before) / exact(count)).clamp(0.0, 1.0);
            value = Some(place(bucket, within));
            before += exact(count);
            if before >= rank {
                break;
            }
        }
        value
    }

    /// Adds other counts to these.
    pub fn add(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            self.put(*bucket, *count);
        }
    }

    /// Counts one more.
    #[doc(hidden)]
    #[cfg(any(test, feature = "testing"))]
    pub fn record(&mut self, duration: Duration) {
        self.put(bucket_of(duration), 1);
    }

    /// From the counts of all buckets.
    pub(crate) fn of(counts: impl Iterator<Item = u64>) -> Self {
        Self(counts.enumerate().filter(|(_, count)| *count > 0).collect())
    }

    pub(super) fn subtract(&mut self, earlier: &Self) {
        for (bucket, count) in &earlier.0 {
            if let Some(mine) = self.0.get_mut(bucket) {
                *mine = mine.saturating_sub(*count);
            }
        }
        self.0.retain(|_, count| *count > 0);
    }

    /// The counts as text: `bucket:count` separated by commas, or `-` without any.
    pub(super) fn write(&self) -> String {
        if self.0.is_empty() {
            return "-".to_owned();
        }
        let words = self.0.iter().map(|(bucket, count)| format!("{bucket}:{count}"));
        words.collect::<Vec<_>>().join(",")
    }

    /// Reads such a text; parts that cannot be read are left out.
    pub(super) fn read(text: &str) -> Self {
        let mut counts = Self::default();
        for word in text.split(',') {
            let pair = word.split_once(':').and_then(|(bucket, count)| {
                Some((bucket.parse::<usize>().ok()?, count.parse::<u64>().ok()?))
            });
            if let Some((bucket, count)) = pair.filter(|(bucket, _)| *bucket < BUCKETS) {
                counts.put(bucket, count);
            }
        }
        counts
    }

    fn put(&mut self, bucket: usize, count: u64) {
        if count > 0 {
            let mine = self.0.entry(bucket).or_default();
            *mine = mine.saturating_add(count);
        }
    }
}

/// The bucket of a duration.
pub(crate) fn bucket_of(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    ENDS.partition_point(|end| *end < micros).min(BUCKETS - 1)
}

/// The duration at a relative place within a bucket, on a logarithmic scale.
fn place(bucket: usize, within: f64) -> Duration {
    let end = ENDS.get(bucket).copied().map_or(0.0, exact);
    let start = bucket.checked_sub(1).and_then(|before| ENDS.get(before)).copied().map(exact);
    let micros = match start {
        Some(start) => start * (end / start).powf(within),
        None => end * within,
    };
    Duration::from_secs_f64(micros / 1e6)
}

#[expect(clippy::cast_precision_loss, reason = "a percentile needs no 16 digits")]
fn exact(count: u64) -> f64 {
    count as f64
}

/// How many buckets there are.
pub(crate) const BUCKETS: usize = 61;
/// Where each bucket ends, in microseconds.
const ENDS: [u64; BUCKETS] = ends();

#[expect(clippy::indexing_slicing, reason = "a constant: the compiler would refuse a wrong index")]
const fn ends() -> [u64; BUCKETS] {
    let mut ends = [0; BUCKETS];
    let (mut bucket, mut end) = (0, FIRST);
    while bucket < BUCKETS {
        ends[bucket] = end;
        if bucket + 1 < BUCKETS {
            ends[bucket + 1] = (end * 1_414_214 + 500_000) / 1_000_000;
        }
        end *= 2;
        bucket += 2;
    }
    ends
}

const FIRST: u64 = 125;

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(durations: impl IntoIterator<Item = Duration>) -> DurationCounts {
        let mut counts = DurationCounts::default();
        for duration in durations {
            counts.record(duration);
        }
        counts
    }

    #[test]
    fn buckets_grow_by_the_square_root_of_two_from_125_microseconds_to_37_hours() {
        assert_eq!((ENDS[0], ENDS[1], ENDS[2], ENDS[6]), (125, 177, 250, 1_000));
        assert_eq!(ENDS[60] / 3_600_000_000, 37);
        assert!(
            ENDS.windows(2).all(|pair| (1.40..1.42).contains(&(exact(pair[1]) / exact(pair[0]))))
        );
        let bucket = |micros| bucket_of(Duration::from_micros(micros));
        assert_eq!([0, 125, 126, 177, 178, 1_000].map(bucket), [0, 0, 1, 1, 2, 6]);
        assert_eq!(bucket_of(Duration::MAX), 60);
    }

    #[test]
    fn percentiles_are_within_the_documented_error() {
        // Spread evenly over 1 to 1,000 ms, a single value, and two far apart.
        let even = counts((1..=1_000).map(Duration::from_millis));
        for (part, exact) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0)] {
            let found = even.percentile(part).unwrap().as_secs_f64() * 1_000.0;
            assert!((found / exact - 1.0).abs() < 0.2, "{part}: {found}");
        }
        for micros in [130, 1_700, 45_000, 9_000_000, 3_600_000_000_u64] {
            let one = counts([Duration::from_micros(micros)]);
            let found = one.percentile(0.5).unwrap().as_secs_f64() * 1e6 / exact(micros);
            assert!((0.7..1.42).contains(&found), "{micros}: {found}");
        }
        let two = counts([Duration::from_millis(1), Duration::from_secs(60)]);
        assert!(two.percentile(0.5).unwrap() <= Duration::from_millis(1));
        assert!(two.percentile(0.99).unwrap() > Duration::from_secs(40));
        assert!(two.percentile(7.0).unwrap() >= Duration::from_secs(60));
        assert_eq!(DurationCounts::default().percentile(0.5), None);
    }

    #[test]
    fn counts_are_read_as_they_were_written_and_nonsense_is_left_out() {
        let one = counts([Duration::from_millis(1), Duration::from_millis(1), Duration::MAX]);
        assert_eq!(one.write(), "6:2,60:1");
        assert_eq!(DurationCounts::read(&one.write()), one);
        assert_eq!(DurationCounts::read("-"), DurationCounts::default());
        assert_eq!(DurationCounts::read("6:1,x,7:-1,61:5,6:1,60:1,9:0").write(), "6:2,60:1");
        assert_eq!(DurationCounts::default().write(), "-");
        let mut most = DurationCounts::read("6:18446744073709551615");
        most.add(&one);
        assert_eq!(most.count(), u64::MAX, "it does not overflow");
    }
}
