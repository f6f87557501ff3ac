//! The progress of running jobs, beside their pending entries.

use std::time::Duration;

use async_trait::async_trait;

use super::inspect::PendingEntry;
use super::types::{Hold, Inlet, Queue, Result};
use crate::model::entry::EntryId;
use crate::model::name::ConsumerName;
pub use crate::model::progress::{Progress, Reported};

/// A job and what its handler reported last; `None` removes what this attempt has written.
pub type NewProgress = (Hold, Option<Reported>);

/// The steps on the progress of jobs. Progress belongs to an attempt: one attempt does not see what another
/// wrote.
#[async_trait]
pub trait JobProgress: Send + Sync {
    /// Writes the progress of jobs that this consumer has, and removes the progress of jobs that ended. It
    /// writes nothing for an entry that is not pending for this attempt, and removes nothing that another attempt has
    /// written. What a process leaves behind is gone at the latest a day after the last write of progress in its group.
    async fn write_progress(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        progress: &[NewProgress],
    ) -> Result<()>;

    /// Reads the progress for each of these rows of a pending list, if the attempt that owns the entry has
    /// written some.
    async fn read_progress(
        &self,
        queue: &Queue,
        inlet: Inlet,
        rows: &[PendingEntry],
    ) -> Result<Vec<Option<Progress>>>;
}

/// How long progress is kept after the last write in its group.
pub(crate) const KEPT_HOURS: u64 = 24;
/// Above this many fields, all fields are removed, to get rid of those that processes have left behind. Running jobs
/// write theirs again with their next report.
pub(crate) const FIELDS_MAX: usize = 10_000;

/// The field that holds the progress of an entry.
pub(crate) fn field(inlet: Inlet, id: EntryId) -> String {
    format!("{}:{id}", inlet.as_str())
}

/// What the attempt that owns an entry wrote; `now` is the server's clock in milliseconds.
pub(crate) fn of_attempt(stored: &str, now: u64, row: &PendingEntry) -> Option<Progress> {
    let (head, line) = stored.split_once('\n')?;
    let (at, attempt) = head.split_once(' ')?;
    let (count, consumer) = attempt.split_once(' ')?;
    let is_own = count == row.delivery_count.to_string() && consumer == row.consumer;
    let age = Duration::from_millis(now.saturating_sub(at.parse().ok()?));
    Progress::read(line, age).filter(|_| is_own)
}
