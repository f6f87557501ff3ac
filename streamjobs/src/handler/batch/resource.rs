//! Resources that one run has for all its jobs.

use std::future::Future;

use crate::handler::{Job, JobResource};
use crate::model::outcome::JobError;

/// A resource that a handler with the option `batch` borrows as `&mut T`: begun once for all jobs of a run.
///
/// It is settled as a [`JobResource`]: committed when the handler returns `Ok` and every job has its lease, and
/// rolled back in every other case. After that, each job runs again alone, with a resource of its own.
#[diagnostic::on_unimplemented(
    message = "`&mut {Self}` cannot be an argument of a handler with the option `batch`",
    label = "begins for one job alone",
    note = "implement `streamjobs::batch::BatchResource` for it, or remove the option `batch`"
)]
pub trait BatchResource: JobResource {
    /// Begins the resource for these jobs, of which there is at least one, and says without which the handler runs.
    ///
    /// Two jobs can be of the same event: let one of them fail with [`JobError::later`].
    ///
    /// # Errors
    ///
    /// The run fails with the error, and the handler does not run.
    fn begin_batch(jobs: &[Job])
    -> impl Future<Output = Result<BatchBegun<Self>, JobError>> + Send;

    /// Commits what the handler did. The jobs at these places were [failed](super::BatchItem::fail) by it, so that
    /// the resource must not take them for done.
    ///
    /// # Errors
    ///
    /// The run fails with the error.
    fn commit_batch(self, failed: &[usize]) -> impl Future<Output = Result<(), JobError>> + Send;
}

/// What beginning a resource for several jobs found.
///
/// The handler runs without the jobs that are named here, and not at all if those are all.
#[derive(Debug)]
#[must_use]
pub struct BatchBegun<R> {
    resource: R,
    left_out: Vec<(usize, LeftOut)>,
}

/// Why the handler runs without a job.
#[derive(Debug)]
pub(super) enum LeftOut {
    /// Its group has done this event before.
    Done,
    /// It ends with this error.
    Failed(JobError),
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

    pub(super) fn into_parts(self) -> (R, Vec<(usize, LeftOut)>) {
        (self.resource, self.left_out)
    }
}
