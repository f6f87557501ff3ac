//! Why the archive did not do what it was asked.

use streamjobs::error::DeadLetterError;
use thiserror::Error;

use super::id::RedriveId;
use super::selection::SelectionError;

/// Why dead letters were not read, counted or deleted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The selection cannot be asked for.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// The database refused, or could not be reached.
    #[error("cannot {action} the archive of dead letters")]
    Database {
        /// What was to be done.
        action: &'static str,
        /// What the database said.
        #[source]
        source: sqlx::Error,
    },
}

/// Why jobs were not put back.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RedriveError {
    /// The request says too little or too much. Nothing was changed.
    #[error("a redrive says who asks and why: `{part}` must have 1 to {max} bytes and no U+0000")]
    Request {
        /// `by` or `why`.
        part: &'static str,
        /// The most bytes it may have.
        max: usize,
    },
    /// Letters are selected that may have been put back before. Nothing was changed.
    #[error(
        "the selection goes beyond open letters: name the letters by `ids` and say `again` to put \
         back what was put back before or is known as done"
    )]
    NotOpen,
    /// No request has this number.
    #[error("there is no redrive {id}")]
    Unknown {
        /// The number that was asked for.
        id: RedriveId,
    },
    /// The request could not be written or read. It may have been written if the answer was lost:
    /// [`DeadLetters::redrives`](super::DeadLetters::redrives) shows it.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A server could not be reached for too long. What was put back is noted;
    /// [`DeadLetters::resume`](super::DeadLetters::resume) goes on.
    #[error("redrive {id} was interrupted and can be resumed")]
    Interrupted {
        /// The request.
        id: RedriveId,
        /// What the database or Redis said last.
        #[source]
        source: Interruption,
    },
}

/// What kept a redrive from going on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Interruption {
    /// The database refused, or could not be reached.
    #[error("the archive of dead letters does not answer as it should")]
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
