//! Marks: what a group has begun or done outside of any database, noted under a key.

use std::time::Duration;

use crate::model::entry::EntryId;
use crate::store::{Queue, Reply};

/// Who begins work, as a mark remembers it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MarkBegin<'a> {
    /// The attempt: no other one has the same owner.
    pub owner: &'a str,
    /// The entry that was published. A job keeps it, whatever becomes of the job's own entry.
    pub origin: EntryId,
    /// How long the work may take. When that is over, jobs of other entries may begin it as well.
    pub expiry: Duration,
    /// How long the mark is kept of work that nobody finishes or undoes.
    pub keep: Duration,
}

impl<'a> MarkBegin<'a> {
    pub(crate) fn new(owner: &'a str, origin: EntryId, expiry: Duration, keep: Duration) -> Self {
        Self { owner, origin, expiry, keep }
    }
}

/// What somebody who wants to begin found. Closed on purpose: it has to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// The work may begin, and the mark says so.
    Begun {
        /// Whether it was begun before, and neither finished nor undone.
        takeover: bool,
    },
    /// The work is done.
    Done,
    /// A job of another entry is at it.
    Running {
        /// How long until its time is over.
        rest: Duration,
    },
}

/// Keeps marks beside a stream.
pub trait MarkStore: Send + Sync {
    /// Marks work as begun, unless it is done, or a job of another entry is at it.
    fn begin_mark<'a>(
        &'a self,
        queue: &'a Queue,
        key: &'a str,
        begin: MarkBegin<'a>,
    ) -> Reply<'a, Marked>;

    /// Marks work as done, whoever has begun it.
    fn finish_mark<'a>(&'a self, queue: &'a Queue, key: &'a str, keep: Duration) -> Reply<'a, ()>;

    /// Removes the mark of work that this owner has begun and nobody has finished: whether it did.
    fn undo_mark<'a>(&'a self, queue: &'a Queue, key: &'a str, owner: &'a str) -> Reply<'a, bool>;
}
