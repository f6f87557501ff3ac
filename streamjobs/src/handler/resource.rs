//! Resources that live for one attempt, such as a database transaction.

use std::future::Future;

use super::job::Job;
use super::needs::Requirements;
use crate::model::outcome::JobError;

/// Something a handler borrows as `&mut T`: begun before it runs, committed when it succeeds.
///
/// The commit comes before the acknowledgement. Whatever else happens (an error, a panic, a
/// timeout, a lost lease, a shutdown) the resource is rolled back. When an attempt is dropped in
/// the middle of a begin or a commit, so is the resource: dropping must roll back too, as it does
/// for database transactions.
///
/// With several resources they are begun and committed in the order of the arguments; only one of
/// them should be transactional, since two commits are not one.
#[diagnostic::on_unimplemented(
    message = "`&mut {Self}` cannot be an argument of a handler",
    label = "not a job-scoped resource",
    note = "implement `streamjobs::JobResource` for it"
)]
pub trait JobResource: Sized + Send {
    /// Begins the resource for one attempt, or says that the job is already done.
    ///
    /// # Errors
    ///
    /// The attempt fails with the error, and the handler is not run.
    fn begin(job: &Job) -> impl Future<Output = Result<Begin<Self>, JobError>> + Send;

    /// Makes lasting what the handler did with the resource.
    ///
    /// # Errors
    ///
    /// The attempt fails with the error.
    fn commit(self) -> impl Future<Output = Result<(), JobError>> + Send;

    /// Says what a failure means to this resource: asked before the resource is rolled back.
    ///
    /// A database can tell that a deadlock in one of the handler's own statements is no fault of the
    /// job's, and answer with [`into_later`](JobError::into_later). What the handler has decided
    /// itself ([`is_dead`](JobError::is_dead), or a delay of its own) is best left as it is, which
    /// [`is_retry`](JobError::is_retry) tells. Unchanged by default.
    ///
    /// It is asked of the handler's error, and where there are several resources, of what the begin
    /// or the commit of another one gave; not of panics, timeouts and payloads that cannot be read.
    #[must_use]
    fn judge(&self, error: JobError) -> JobError {
        error
    }

    /// Undoes what the handler did with the resource.
    fn rollback(self) -> impl Future<Output = ()> + Send;

    /// Names what the resource needs from the runtime, so that a start without it is refused.
    fn require(requirements: &mut Requirements) {
        let _ = requirements;
    }
}

/// What beginning a resource found. Closed on purpose.
#[derive(Debug)]
pub enum Begin<R> {
    /// The handler may run with this resource.
    Run(R),
    /// This group has done this event before: acknowledge it without running.
    AlreadyDone,
}
