//! Resources that live for one attempt, such as a database transaction.

use std::future::Future;

use super::job::Job;
use super::needs::Requirements;
use crate::model::outcome::JobError;

/// A resource that a handler borrows as `&mut T`: begun before it runs, committed when it succeeds.
///
/// The commit precedes the acknowledgement. In every other case (an error, a panic, a timeout, a lost
/// lease, a shutdown) the resource is rolled back. When an attempt is dropped during a begin or a
/// commit, the resource is dropped too: dropping must roll back, as it does for database
/// transactions.
///
/// Several resources are begun and committed in the order of the arguments. Only one of them should be
/// transactional, since two commits are not atomic.
///
/// ```
/// use streamjobs::{Begin, Event, Job, JobError, JobResource, handler};
/// # #[derive(Event, serde::Serialize, serde::Deserialize)]
/// # #[event(stream = "orders", type = "order.placed")]
/// # struct OrderPlaced { order_id: String }
///
/// /// Lines that are written only if the job succeeds.
/// struct Report(Vec<String>);
///
/// impl JobResource for Report {
///     async fn begin(_job: &Job) -> Result<Begin<Self>, JobError> {
///         Ok(Begin::Run(Self(Vec::new())))
///     }
///
///     async fn commit(self) -> Result<(), JobError> {
///         println!("{}", self.0.join("\n"));
///         Ok(())
///     }
///
///     async fn rollback(self) {}
/// }
///
/// #[handler(group = "reports")]
/// async fn report(order: OrderPlaced, report: &mut Report) {
///     report.0.push(format!("order {}", order.order_id));
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`&mut {Self}` cannot be an argument of a handler",
    label = "not a job-scoped resource",
    note = "implement `streamjobs::JobResource` for it"
)]
pub trait JobResource: Sized + Send {
    /// Begins the resource for one attempt, or finds that the job is already done.
    ///
    /// # Errors
    ///
    /// The attempt fails with the error, and the handler does not run.
    fn begin(job: &Job) -> impl Future<Output = Result<Begin<Self>, JobError>> + Send;

    /// Commits what the handler did with the resource.
    ///
    /// # Errors
    ///
    /// The attempt fails with the error.
    fn commit(self) -> impl Future<Output = Result<(), JobError>> + Send;

    /// Gives an error the meaning that it has for this resource. It is called before the rollback, and
    /// returns the error unchanged by default.
    ///
    /// A database knows that a deadlock in a statement of the handler is not the job's fault, and
    /// snoozes the job with [`into_later`](JobError::into_later). If the handler has decided the
    /// meaning of an error, such as [`is_dead`](JobError::is_dead) or a delay, leave the error
    /// unchanged: [`is_retry`](JobError::is_retry) is false for these.
    ///
    /// It is called with the handler's error, and with an error of another resource's begin or
    /// commit; not for panics, timeouts and payloads that cannot be decoded.
    #[must_use]
    fn judge(&self, error: JobError) -> JobError {
        error
    }

    /// Rolls back what the handler did with the resource.
    ///
    /// The rollback has no time limit: neither the handler's timeout nor a lost lease ends it, and the job keeps its
    /// slot until it returns. If it waits for another system, give up after a few seconds. The resource is then
    /// dropped, and dropping must roll back as well.
    fn rollback(self) -> impl Future<Output = ()> + Send;

    /// Adds what the resource needs from the runtime, so that a start without it is refused.
    fn require(requirements: &mut Requirements) {
        let _ = requirements;
    }
}

/// What beginning a resource found. Exhaustive: adding a variant is a breaking change.
#[derive(Debug)]
pub enum Begin<R> {
    /// The handler may run with this resource.
    Run(R),
    /// This group has done this event before: the job is acknowledged without running.
    AlreadyDone,
}
