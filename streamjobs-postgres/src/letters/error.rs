//! Errors of queries and redrives.

use streamjobs::error::DeadLetterError;
use thiserror::Error;

use super::id::RedriveId;
use super::selection::SelectionError;

/// Why dead letters were not read, counted or deleted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The selection is invalid.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// A [`View`](super::View) did not get one of its connections in time: other views use them, or
    /// the pool has none left.
    #[error("the archive of dead letters is busy: {what}")]
    Busy {
        /// What is used up.
        what: &'static str,
    },
    /// The database refused, or could not be reached.
    #[error("cannot {action} the archive of dead letters")]
    Database {
        /// The operation, such as `list`.
        action: &'static str,
        /// The error of the database.
        #[source]
        source: sqlx::Error,
    },
}

/// Why a redrive failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RedriveError {
    /// A text of the request is empty, too long or invalid. Nothing was changed.
    #[error("`{part}` of a redrive request must have 1 to {max} bytes and no U+0000")]
    Request {
        /// `by` or `why`.
        part: &'static str,
        /// The maximum length in bytes.
        max: usize,
    },
    /// The selection includes dead letters that are not open. Nothing was changed.
    #[error(
        "the selection includes dead letters that are redriven or known as done: name them by \
         `ids` and use `again` to redrive them"
    )]
    NotOpen,
    /// No request has this number.
    #[error("there is no redrive {id}")]
    Unknown {
        /// The given number.
        id: RedriveId,
    },
    /// The request could not be written or read. If the reply was lost, the request may have been
    /// written: see [`DeadLetters::redrives`](super::DeadLetters::redrives).
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A server was unreachable for too long. The progress is recorded, and
    /// [`DeadLetters::resume`](super::DeadLetters::resume) continues from there.
    #[error("redrive {id} was interrupted and can be resumed")]
    Interrupted {
        /// The request.
        id: RedriveId,
        /// The last error of the database or of Redis.
        #[source]
        source: Interruption,
    },
}

/// What interrupted a redrive.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Interruption {
    /// The database refused, or could not be reached.
    #[error("the database of the archive failed")]
    Database(#[source] sqlx::Error),
    /// Redis could not be reached.
    #[error(transparent)]
    Redis(#[from] DeadLetterError),
}

impl QueryError {
    pub(super) fn database(action: &'static str, source: sqlx::Error) -> Self {
        Self::Database { action, source }
    }
}
