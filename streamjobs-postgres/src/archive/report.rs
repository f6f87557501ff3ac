//! The result of moving dead letters into the table, and why it failed.

use streamjobs::error::DeadLetterError;
use thiserror::Error;

/// What a [sweep](super::Archive::sweep) moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "it says whether dead letters were refused"]
pub struct ArchiveReport {
    /// Dead letters that were stored.
    pub stored: u64,
    /// Dead letters that had a row already and were still in their stream.
    pub stored_before: u64,
    /// Those of the stored dead letters whose job was done according to the guard, so that nothing
    /// is lost.
    pub known_done: u64,
    /// Dead letters that the database refused. They stay in their stream.
    pub refused: u64,
    /// Dead letters that were taken before and no longer exist: redriven, purged, or moved by
    /// another process.
    pub gone: u64,
}

/// Why dead letters were not moved. Those that were not moved stay in their stream.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// Redis could not be reached, or refused to return or remove dead letters.
    #[error(transparent)]
    Letters(#[from] DeadLetterError),
    /// The database refused, or could not be reached.
    #[error("cannot store dead letters of group {group} on stream {stream}")]
    Database {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
        /// The error of the database.
        #[source]
        source: sqlx::Error,
    },
}
