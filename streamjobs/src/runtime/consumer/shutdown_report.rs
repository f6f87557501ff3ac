//! What a shutdown did, and what it had to abandon.

use std::time::Duration;

use crate::model::entry::EntryId;

/// What a shutdown did, and what it had to abandon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Jobs that were in flight when the shutdown began and ended by themselves.
    pub finished: u64,
    /// Jobs that were released uncounted, for other processes to claim at once.
    pub released: u64,
    /// Jobs that could neither finish nor be released; other consumers claim them when their leases
    /// end.
    pub abandoned: Vec<Abandoned>,
    /// How long the shutdown took.
    pub took: Duration,
}

/// A job that a shutdown had to abandon.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Abandoned {
    /// The stream.
    pub stream: String,
    /// The group.
    pub group: String,
    /// The entry.
    pub entry_id: EntryId,
}

impl ShutdownReport {
    /// Adds what another consumer's stop did.
    pub(crate) fn add(&mut self, other: Self) {
        self.finished += other.finished;
        self.released += other.released;
        self.abandoned.extend(other.abandoned);
    }
}
