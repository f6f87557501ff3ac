//! What a group did, in steps of a minute or of a quarter of an hour: pure.

mod durations;

use std::time::{Duration, SystemTime};

pub use self::durations::DurationCounts;
pub(crate) use self::durations::{BUCKETS, bucket_of};

/// How far back a trend goes, and in which steps. Variants may be added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TrendRange {
    /// The last 6 hours, in steps of a minute (the default).
    #[default]
    SixHours,
    /// The last 7 days, in steps of 15 minutes.
    SevenDays,
}

impl TrendRange {
    /// Every range.
    pub(crate) const ALL: [Self; 2] = [Self::SixHours, Self::SevenDays];

    /// How far back it goes.
    #[must_use]
    pub const fn span(self) -> Duration {
        match self {
            Self::SixHours => Duration::from_secs(6 * 60 * 60),
            Self::SevenDays => Duration::from_secs(7 * 24 * 60 * 60),
        }
    }

    /// The time of one point.
    #[must_use]
    pub const fn step(self) -> Duration {
        match self {
            Self::SixHours => Duration::from_secs(60),
            Self::SevenDays => Duration::from_secs(15 * 60),
        }
    }

    /// How many points it has at most.
    pub(crate) const fn points(self) -> u64 {
        self.span().as_secs() / self.step().as_secs()
    }

    /// The number of the step that contains this time, in milliseconds since 1970.
    pub(crate) fn number(self, milliseconds: u64) -> u64 {
        milliseconds / (self.step().as_secs() * 1_000)
    }

    /// When a step began.
    fn began(self, number: u64) -> SystemTime {
        let seconds = number.saturating_mul(self.step().as_secs());
        // Another client can have written any number; a number beyond any clock is not among the last steps.
        SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(seconds))
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// What happened in a group within some time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrendNote {
    /// Jobs whose handler succeeded.
    pub done: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// The most entries that one reading found undelivered.
    pub waiting: u64,
    /// The longest time that the oldest of them had waited.
    pub oldest: Duration,
    /// From publishing to the start of the first attempt.
    pub queue_time: DurationCounts,
    /// How long handlers ran.
    pub run_time: DurationCounts,
}

impl TrendNote {
    /// Whether nothing happened.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what happened in the same group at about the same time, as the script does.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn add(&mut self, other: &Self) {
        self.count(other);
        self.waiting = self.waiting.max(other.waiting);
        self.oldest = self.oldest.max(other.oldest);
    }

    /// Adds what happened at about the same time in another group, or on another partition.
    fn join(&mut self, other: &Self) {
        self.count(other);
        self.waiting = self.waiting.saturating_add(other.waiting);
        self.oldest = self.oldest.max(other.oldest);
    }

    fn count(&mut self, other: &Self) {
        self.done = self.done.saturating_add(other.done);
        self.failed = self.failed.saturating_add(other.failed);
        self.queue_time.add(&other.queue_time);
        self.run_time.add(&other.run_time);
    }

    /// What these totals have in addition to earlier ones. The backlog is not a total.
    pub(crate) fn since(mut self, earlier: &Self) -> Self {
        self.done = self.done.saturating_sub(earlier.done);
        self.failed = self.failed.saturating_sub(earlier.failed);
        self.queue_time.subtract(&earlier.queue_time);
        self.run_time.subtract(&earlier.run_time);
        self
    }

    /// The note as words, as scripts take them and as they are stored.
    pub(crate) fn words(&self) -> [String; 6] {
        let oldest = u64::try_from(self.oldest.as_millis()).unwrap_or(u64::MAX).min(WHOLE_MAX);
        let [done, failed, waiting] =
            [self.done, self.failed, self.waiting].map(|count| count.min(WHOLE_MAX).to_string());
        let (queue_time, run_time) = (self.queue_time.write(), self.run_time.write());
        [done, failed, waiting, oldest.to_string(), queue_time, run_time]
    }
}

/// A step as it is stored: its number, and what happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrendStep {
    /// How many steps of this length there were since 1970.
    pub number: u64,
    /// What happened.
    pub note: TrendNote,
}

impl TrendStep {
    /// Reads a stored step; `None` for a text that no version has written. Further words after the known ones belong
    /// to a later version.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut next = || words.next();
        let number = next()?.parse().ok()?;
        let mut count = || next()?.parse::<u64>().ok();
        let (done, failed, waiting) = (count()?, count()?, count()?);
        let oldest = Duration::from_millis(count()?);
        let queue_time = DurationCounts::read(next()?);
        let run_time = DurationCounts::read(next()?);
        Some(Self {
            number,
            note: TrendNote { done, failed, waiting, oldest, queue_time, run_time },
        })
    }
}

/// What happened in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrendPoint {
    /// When the step began, by the server's clock.
    pub began: SystemTime,
    /// Jobs whose handler succeeded.
    pub done: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// The most entries that one reading found undelivered; for several partitions or groups, the sum of each one's
    /// maximum.
    pub waiting: u64,
    /// The longest time that the oldest of them had waited.
    pub oldest: Duration,
    /// The time from publishing, or for a scheduled event from when it entered the stream, to the start of the first
    /// attempt, by the server's clock. It covers jobs that no process had begun before, and that did not wait in a
    /// line for their key or their group's limit.
    pub queue_time: DurationCounts,
    /// How long handlers ran, in all attempts.
    pub run_time: DurationCounts,
}

/// What one group did, or several groups together, step by step.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trend {
    /// How far back it goes.
    pub range: TrendRange,
    /// The server's clock when it was read.
    pub now: SystemTime,
    /// The steps in which any process noted something, oldest first. The last step might not be over yet.
    pub points: Vec<TrendPoint>,
}

impl Trend {
    /// From the steps of some partitions, each with its server's clock in milliseconds.
    pub(crate) fn new(range: TrendRange, parts: Vec<(u64, Vec<TrendStep>)>) -> Self {
        let now = parts.iter().map(|(now, _)| *now).max().unwrap_or_default();
        let mut steps = std::collections::BTreeMap::<u64, TrendNote>::new();
        for TrendStep { number, note } in parts.into_iter().flat_map(|(_, steps)| steps) {
            steps.entry(number).or_default().join(&note);
        }
        let points = steps.into_iter().map(|(number, note)| point(range, number, note));
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now.min(WHOLE_MAX));
        Self { range, now, points: points.collect() }
    }

    /// The sum of this trend and another group's. Both must have the same range; otherwise nothing is added.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if self.range != other.range {
            return self;
        }
        let (range, now) = (self.range, self.now.max(other.now));
        let mut points = std::collections::BTreeMap::<SystemTime, TrendNote>::new();
        for point in self.points.into_iter().chain(other.points) {
            let TrendPoint { began, done, failed, waiting, oldest, queue_time, run_time } = point;
            let note = TrendNote { done, failed, waiting, oldest, queue_time, run_time };
            points.entry(began).or_default().join(&note);
        }
        let points =
            points.into_iter().map(|(began, note)| TrendPoint { began, ..point(range, 0, note) });
        Self { range, now, points: points.collect() }
    }
}

fn point(range: TrendRange, number: u64, note: TrendNote) -> TrendPoint {
    let TrendNote { done, failed, waiting, oldest, queue_time, run_time } = note;
    let began = range.began(number);
    TrendPoint { began, done, failed, waiting, oldest, queue_time, run_time }
}

/// Of all stored steps, the steps of the range that have begun by this time of the server. If the server's clock was
/// set back, some stored steps are in the future: they are shown only when the clock has reached them again.
pub(crate) fn shown(range: TrendRange, now: u64, steps: &mut Vec<TrendStep>) {
    let last = range.number(now);
    steps.retain(|step| step.number <= last && step.number.saturating_add(range.points()) > last);
    steps.sort_unstable_by_key(|step| step.number);
}

/// The largest whole number that scripts add without loss.
const WHOLE_MAX: u64 = 1 << 53;

#[cfg(test)]
mod tests {
    use super::*;

    fn note(done: u64, waiting: u64) -> TrendNote {
        let oldest = Duration::from_millis(waiting * 10);
        TrendNote { done, waiting, oldest, ..TrendNote::default() }
    }

    #[test]
    fn a_step_is_read_as_it_was_written_and_longer_ones_of_later_versions_too() {
        let mut run_time = DurationCounts::default();
        run_time.record(Duration::from_millis(3));
        let note = TrendNote { run_time, failed: 2, ..note(7, 9) };
        let text = format!("29387145 {}", note.words().join(" "));
        let step = TrendStep { number: 29_387_145, note };
        assert_eq!(TrendStep::read(&text), Some(step.clone()));
        assert_eq!(TrendStep::read(&format!("{text} later")), Some(step));
        for broken in
            ["", "x", "1 2 3", "1 2 3 4 5 -", "1 2 3 4 -5 - -", "18446744073709551616 0 0 0 0 - -"]
        {
            assert_eq!(TrendStep::read(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn only_the_steps_of_the_range_are_shown() {
        let minute = |number| TrendStep { number, note: note(1, 0) };
        let mut steps =
            vec![minute(1_001), minute(1_000), minute(640), minute(641), minute(u64::MAX)];
        shown(TrendRange::SixHours, 1_000 * 60_000 + 59_999, &mut steps);
        assert_eq!(steps, [minute(641), minute(1_000)], "360 of them, the current one included");
        assert_eq!(TrendRange::ALL.map(TrendRange::points), [360, 672]);
    }

    #[test]
    fn a_group_has_the_highest_backlog_of_its_looks_and_partitions_are_summed() {
        let mut one = note(3, 5);
        one.add(&note(4, 2));
        assert_eq!((one.done, one.waiting, one.oldest), (7, 5, Duration::from_millis(50)));
        let step = |number, note| TrendStep { number, note };
        let parts = vec![
            (60_000 * 9, vec![step(8, one)]),
            (60_000 * 9 + 5, vec![step(8, note(1, 7)), step(9, note(1, 0))]),
        ];
        let trend = Trend::new(TrendRange::SixHours, parts);
        let figures =
            |trend: &Trend| trend.points.iter().map(|at| (at.done, at.waiting)).collect::<Vec<_>>();
        assert_eq!(figures(&trend), [(8, 12), (1, 0)]);
        assert_eq!(trend.now, SystemTime::UNIX_EPOCH + Duration::from_millis(540_005));
        assert_eq!(trend.points[0].began, SystemTime::UNIX_EPOCH + Duration::from_secs(480));
        let twice = trend.clone().and(trend.clone());
        assert_eq!(figures(&twice), [(16, 24), (2, 0)]);
        assert_eq!(twice.points[1].began, trend.points[1].began);
        let days = Trend { range: TrendRange::SevenDays, ..trend.clone() };
        assert_eq!(trend.clone().and(days), trend);
    }

    #[test]
    fn what_is_new_is_the_difference_of_totals() {
        let (mut before, mut after) = (note(3, 0), note(5, 8));
        before.run_time.record(Duration::from_millis(1));
        after.run_time.record(Duration::from_millis(1));
        after.run_time.record(Duration::from_secs(1));
        let new = after.clone().since(&before);
        assert_eq!((new.done, new.waiting, new.run_time.count()), (2, 8, 1));
        assert!(after.clone().since(&after).since(&TrendNote::default()).run_time.count() == 0);
        assert!(TrendNote::default().is_empty() && !note(0, 1).is_empty());
    }
}
