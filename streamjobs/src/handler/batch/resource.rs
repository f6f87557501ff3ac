//! Resources that one run has for all its jobs.

use std::future::Future;

use crate::handler::{Job, JobResource};
use crate::model::outcome::JobError;

/// A resource that a handler with the option `batch` borrows as `&mut T`: begun once for all jobs of a run.
///
/// It is settled like a [`JobResource`]: committed when the handler returns `Ok` and has not failed every job, and no
/// job has lost its lease or was cancelled; rolled back in every other case. After a rollback, each job runs again
/// alone, with a resource of its own, unless the handler has decided what becomes of the job.
#[diagnostic::on_unimplemented(
    message = "`&mut {Self}` cannot be an argument of a handler with the option `batch`",
    label = "begins for one job alone",
    note = "implement `streamjobs::batch::BatchResource` for it, or remove the option `batch`"
)]
pub trait BatchResource: JobResource {
    /// Begins the resource for these jobs, at least one, and names those without which the handler runs.
    ///
    /// Two of the jobs can be for the same event: let one of them fail with [`JobError::later`].
    ///
    /// # Errors
    ///
    /// The handler does not run. Each job runs again alone, unless the error is a [`JobError::blocked`].
    fn begin_batch(jobs: &[Job])
    -> impl Future<Output = Result<BatchBegun<Self>, JobError>> + Send;

    /// Commits what the handler did. The jobs at these places are not done: the handler has
    /// [failed](super::BatchItem::fail) them, or ran without them because of another resource.
    ///
    /// # Errors
    ///
    /// As for `begin_batch`.
    fn commit_batch(self, failed: &[usize]) -> impl Future<Output = Result<(), JobError>> + Send;
}

/// What beginning a resource for several jobs found.
///
/// The handler runs without the jobs that are named here; if these are all jobs, it does not run.
#[derive(Debug)]
#[must_use]
pub struct BatchBegun<R> {
    resource: R,
    left_out: Vec<(usize, LeftOut)>,
}

/// Why the handler runs without a job.
#[derive(Debug)]
pub(super) enum LeftOut {
    /// The job's group has done this event before.
    Done,
    /// The job ends with this error.
    Failed(JobError),
    /// The job has a run of its own.
    Alone,
}

impl<R> BatchBegun<R> {
    /// The handler runs for all jobs with this resource.
    pub fn new(resource: R) -> Self {
        Self { resource, left_out: Vec::new() }
    }

    /// The job at this place was done before: it is acknowledged without running.
    pub fn done(mut self, place: usize) -> Self {
        self.left_out.push((place, LeftOut::Done));
        self
    }

    /// The job at this place cannot run now: it ends with the error.
    pub fn failed(mut self, place: usize, error: impl Into<JobError>) -> Self {
        self.left_out.push((place, LeftOut::Failed(error.into())));
        self
    }

    /// The job at this place gets a run of its own after this run. With a single job this has no effect.
    pub fn alone(mut self, place: usize) -> Self {
        self.left_out.push((place, LeftOut::Alone));
        self
    }

    pub(super) fn into_parts(self) -> (R, Vec<(usize, LeftOut)>) {
        (self.resource, self.left_out)
    }
}
