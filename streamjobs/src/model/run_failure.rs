//! What ends a run, other than an error of its handler.

use std::time::Duration;

use crate::model::event::DecodeError;

/// Why a run failed, if not by an error of its handler: the cause of the
/// [`JobError`](crate::JobError) that a [middleware](crate::middleware) gets for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunFailure {
    /// The handler panicked, with this message.
    #[error("the handler panicked: {0}")]
    Panicked(String),
    /// The attempt took longer than its timeout.
    #[error("the handler ran for longer than {0:?}")]
    TimedOut(Duration),
    /// The entry could not be decoded as the handler's event. The handler did not run.
    #[error(transparent)]
    Undecodable(DecodeError),
    /// The lease was lost: another process may run the job.
    #[error("the lease is lost")]
    LeaseLost,
    /// The process stops; the job is released.
    #[error("the process is shutting down")]
    Shutdown,
    /// The job was cancelled.
    #[error("the job was cancelled")]
    Cancelled,
}
