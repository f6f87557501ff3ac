//! Marks: keys under which a group records work that it has begun or done outside of any database.

use std::time::Duration;

use async_trait::async_trait;

use super::types::{Queue, Result};
use crate::model::entry::EntryId;

/// The beginning of work, as a mark stores it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MarkBegin<'a> {
    /// Identifies the attempt: no other attempt has the same text.
    pub owner: &'a str,
    /// The published entry. A job keeps it through retries and redrives.
    pub origin: EntryId,
    /// How long the work may take. Afterwards, jobs of other entries may begin the work too.
    pub expiry: Duration,
    /// How long the mark is kept if the work is neither finished nor undone.
    pub keep: Duration,
}

impl<'a> MarkBegin<'a> {
    /// Begins work as this owner, for the job of this entry.
    #[must_use]
    pub fn new(owner: &'a str, origin: EntryId, expiry: Duration, keep: Duration) -> Self {
        Self { owner, origin, expiry, keep }
    }
}

/// The answer to `Marks::begin_mark`. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// The work may begin; it is marked as begun.
    Begun {
        /// Whether it had been begun before, and neither finished nor undone.
        takeover: bool,
    },
    /// The work is done.
    Done,
    /// A job of another entry is doing the work.
    Running {
        /// How long until that job's time is over.
        rest: Duration,
    },
}

/// Marks of a group.
#[async_trait]
pub trait Marks: Send + Sync {
    /// Marks work as begun, unless it is done or a job of another entry is doing it.
    async fn begin_mark(&self, queue: &Queue, key: &str, begin: MarkBegin<'_>) -> Result<Marked>;

    /// Marks work as done, whichever attempt began it.
    async fn finish_mark(&self, queue: &Queue, key: &str, keep: Duration) -> Result<()>;

    /// Removes the mark of unfinished work that this owner began. Returns whether there was one.
    async fn undo_mark(&self, queue: &Queue, key: &str, owner: &str) -> Result<bool>;
}
