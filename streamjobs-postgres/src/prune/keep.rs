//! How long rows are kept.

use std::time::Duration;

use streamjobs::service::ServedQueue;
use thiserror::Error;

/// How long rows are kept. Each setting has a default.
///
/// ```
/// use std::time::Duration;
/// use streamjobs_postgres::Keep;
///
/// let day = Duration::from_secs(24 * 60 * 60);
/// let keep = Keep::default().done(14 * day).letters(90 * day);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the settings do nothing until a pruner has them"]
pub struct Keep {
    pub(super) done: Duration,
    pub(super) letters: Option<Duration>,
    pub(super) batches: Duration,
    pub(super) unfinished: Duration,
    pub(super) interval: Duration,
    pub(super) batch: u32,
}

impl Keep {
    /// How long a guard row is kept after its work was done: 7 days by default, at least a minute.
    ///
    /// An event that is published again or redriven after that time is done again. A runtime does
    /// not start if its streams keep entries by age and this time is shorter than the time in which
    /// a job can be delivered. Whatever is set here, rows younger than the oldest unfinished job of
    /// their group stay. A longer time costs about 270 bytes for each job.
    pub fn done(mut self, age: Duration) -> Self {
        self.done = age;
        self
    }

    /// How long a dead letter stays in the archive after it was dead-lettered, whether or not it
    /// was redriven: at least a minute. Without this setting, dead letters are never deleted.
    pub fn letters(mut self, age: Duration) -> Self {
        self.letters = Some(age);
        self
    }

    /// How long a [batch](crate::batches) is kept after it has completed: 30 days by default, at least a minute.
    ///
    /// If a dead member is redriven after that, the batch can no longer succeed. Batches that have not completed
    /// stay.
    pub fn batches(mut self, age: Duration) -> Self {
        self.batches = age;
        self
    }

    /// How long after a [batch](crate::batches) was opened it should have completed: a day by default, at least a
    /// minute. Each sweep counts the batches that have not completed by then, and the log warns of them.
    pub fn unfinished_batches(mut self, age: Duration) -> Self {
        self.unfinished = age;
        self
    }

    /// The time between two sweeps: 10 minutes by default, at least a second.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How many rows are deleted in one transaction: 5,000 by default, from 1 to 50,000.
    ///
    /// A large batch delays concurrent writers and replicas; with small batches, a sweep takes
    /// longer.
    pub fn batch(mut self, rows: u32) -> Self {
        self.batch = rows;
        self
    }

    /// Checks the settings against each other and against the groups that the runtime serves.
    pub(super) fn check(&self, queues: &[ServedQueue]) -> Result<(), KeepError> {
        if !(1..=BATCH_MAX).contains(&self.batch) {
            return Err(KeepError::Batch(self.batch));
        }
        if self.interval < INTERVAL_MIN {
            return Err(KeepError::Interval(self.interval));
        }
        let ages = [Some(self.done), self.letters, Some(self.batches), Some(self.unfinished)];
        if let Some(age) = ages.into_iter().flatten().min()
            && age < AGE_MIN
        {
            return Err(KeepError::Age(age));
        }
        let horizons = queues.iter().filter_map(|queue| Some((queue.horizon?, queue)));
        match horizons.max_by_key(|(horizon, _)| *horizon) {
            Some((horizon, queue)) if horizon > self.done => Err(KeepError::Horizon {
                done: self.done,
                horizon,
                stream: queue.stream.to_string(),
                group: queue.group.to_string(),
            }),
            _ => Ok(()),
        }
    }
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            done: Duration::from_secs(7 * 24 * 60 * 60),
            letters: None,
            batches: Duration::from_secs(30 * 24 * 60 * 60),
            unfinished: Duration::from_secs(24 * 60 * 60),
            interval: Duration::from_secs(600),
            batch: 5_000,
        }
    }
}

/// Why a runtime with these settings does not start.
#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum KeepError {
    #[error("the batch size {0} is not between 1 and {BATCH_MAX}")]
    Batch(u32),
    #[error("interval {0:?} is shorter than {INTERVAL_MIN:?}")]
    Interval(Duration),
    #[error("age {0:?} is shorter than {AGE_MIN:?}")]
    Age(Duration),
    #[error(
        "guard rows are kept for {done:?}, but jobs of group {group} on stream {stream} can be \
         delivered for {horizon:?} after they are published: increase `Keep::done`, or shorten the \
         retention of the stream"
    )]
    Horizon { done: Duration, horizon: Duration, stream: String, group: String },
}

const BATCH_MAX: u32 = 50_000;
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const AGE_MIN: Duration = Duration::from_secs(60);
