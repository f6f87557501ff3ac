//! The progress of running jobs, beside their pending entries.

use std::time::Duration;

use async_trait::async_trait;

use super::inspect::PendingEntry;
use super::types::{Hold, Inlet, Queue, Result};
use crate::model::entry::EntryId;
use crate::model::name::ConsumerName;
pub use crate::model::progress::{Progress, Reported};

/// A job and what its handler said last; `None` removes what was written for this attempt.
pub type NewProgress = (Hold, Option<Reported>);

/// The steps on the progress of jobs. It belongs to an attempt: what another one wrote is not seen.
#[async_trait]
pub trait JobProgress: Send + Sync {
    /// Writes the progress of jobs that this consumer has, and removes that of jobs that ended. Nothing is
    /// written for an entry that is not pending for this attempt, and nothing removed that another has
    /// written. What a process leaves behind is gone a day after the last progress in its group at the latest.
    async fn write_progress(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        progress: &[NewProgress],
    ) -> Result<()>;

    /// The progress of each of these rows of a pending list, if the attempt that has it has written one.
    async fn read_progress(
        &self,
        queue: &Queue,
        inlet: Inlet,
        rows: &[PendingEntry],
    ) -> Result<Vec<Option<Progress>>>;
}

/// How long progress is kept after the last one was written in its group.
pub(crate) const KEPT_HOURS: u64 = 24;
/// Above so many of them, those that processes have left behind are removed with all others. Jobs that run
/// write theirs again with their next report.
pub(crate) const FIELDS_MAX: usize = 10_000;

/// The name of the progress of an entry.
pub(crate) fn field(inlet: Inlet, id: EntryId) -> String {
    format!("{}:{id}", inlet.as_str())
}

/// What the attempt that has an entry wrote, by the server's clock in milliseconds.
pub(crate) fn of_attempt(stored: &str, now: u64, row: &PendingEntry) -> Option<Progress> {
    let (head, line) = stored.split_once('\n')?;
    let (at, attempt) = head.split_once(' ')?;
    let (count, consumer) = attempt.split_once(' ')?;
    let is_own = count == row.delivery_count.to_string() && consumer == row.consumer;
    let age = Duration::from_millis(now.saturating_sub(at.parse().ok()?));
    Progress::read(line, age).filter(|_| is_own)
}
