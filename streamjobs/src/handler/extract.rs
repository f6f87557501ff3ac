//! Arguments of handlers that are made from the job.

use std::any::type_name;

use super::job::Job;
use super::needs::Requirements;
use crate::model::outcome::JobError;

/// An argument of a handler, made from the job.
///
/// Implement it for something that several handlers need, such as a tenant:
///
/// ```
/// use streamjobs::{FromJob, Job, JobError};
///
/// struct Tenant(String);
///
/// impl FromJob for Tenant {
///     fn from_job(job: &Job) -> Result<Self, JobError> {
///         let tenant = job.entry().text("tenant").ok_or("the entry has no tenant")?;
///         Ok(Self(tenant.to_owned()))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a handler",
    label = "not an extractor",
    note = "the first argument is the event; the others are `streamjobs::State<T>`, `Job`, `&mut` resources, \
            or types that implement `streamjobs::FromJob`"
)]
pub trait FromJob: Sized + Send {
    /// Makes the argument.
    ///
    /// # Errors
    ///
    /// The attempt fails with the error, and the handler does not run.
    fn from_job(job: &Job) -> Result<Self, JobError>;

    /// Adds what the argument needs from the runtime, so that a start without it is refused.
    fn require(requirements: &mut Requirements) {
        let _ = requirements;
    }
}

impl FromJob for Job {
    fn from_job(job: &Job) -> Result<Self, JobError> {
        Ok(job.clone())
    }
}

/// A value that the application gave to the runtime's builder, found by its type.
///
/// A handler takes it with the pattern `State(mailer): State<Mailer>`. The value is cloned for each
/// job, so wrap a value that is expensive to clone in an [`Arc`](std::sync::Arc).
///
/// axum has a type of this name, too. In a file with both, rename one of them where it is imported:
///
/// ```
/// use streamjobs::{Entry, State as JobState, handler};
///
/// #[derive(Clone)]
/// struct Mailer;
///
/// #[handler(group = "mail", stream = "orders")]
/// async fn confirm(_: Entry, JobState(mailer): JobState<Mailer>) {
///     let _ = mailer;
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State<T>(pub T);

impl<T: Clone + Send + Sync + 'static> FromJob for State<T> {
    fn from_job(job: &Job) -> Result<Self, JobError> {
        let state = job
            .state::<T>()
            .ok_or_else(|| format!("the runtime has no state of type {}", type_name::<T>()))?;
        Ok(Self(state))
    }

    fn require(requirements: &mut Requirements) {
        requirements.state::<T>();
    }
}
