//! The events of one run, and what becomes of each.

use std::fmt;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::vec;

use super::resource::LeftOut;
use crate::handler::Job;
use crate::model::outcome::{JobError, Outcome};

/// The events that a handler with the option `batch` takes in one run, each with its job.
///
/// There is at least one. Their number is at most the option `batch`; a job that has failed before, or was
/// delivered before, is alone.
#[derive(Debug)]
pub struct Batch<E> {
    items: Vec<BatchItem<E>>,
}

/// One event of a [`Batch`], with its job.
///
/// `Debug` shows the job, never the event.
pub struct BatchItem<E> {
    event: E,
    part: Arc<Part>,
}

/// The part of one job in a run.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) job: Job,
    error: Mutex<Option<JobError>>,
    /// Why the handler runs without this job.
    left_out: OnceLock<LeftOut>,
    /// The job does not wait for the end of the run any more.
    left: Arc<AtomicBool>,
}

/// The jobs of one run.
pub struct BatchRun<E> {
    pub(super) parts: Vec<Arc<Part>>,
    /// Taken when the handler begins.
    events: Mutex<Vec<E>>,
}

impl<E> BatchRun<E> {
    pub(super) fn new(entries: Vec<(E, Arc<Part>)>) -> Self {
        let (events, parts) = entries.into_iter().unzip();
        Self { parts, events: Mutex::new(events) }
    }

    /// The first job, for what all jobs have in common; a run has one.
    pub(super) fn first(&self) -> Option<&Job> {
        self.parts.first().map(|part| &part.job)
    }

    /// The events, once.
    pub(super) fn take_events(&self) -> Vec<E> {
        std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<E> Batch<E> {
    pub(super) fn new(items: Vec<BatchItem<E>>) -> Self {
        Self { items }
    }

    /// How many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no event, which is never so when a handler begins.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The events with their jobs, in the order in which they were read.
    pub fn iter(&self) -> slice::Iter<'_, BatchItem<E>> {
        self.items.iter()
    }
}

impl<E> IntoIterator for Batch<E> {
    type Item = BatchItem<E>;
    type IntoIter = vec::IntoIter<BatchItem<E>>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<'a, E> IntoIterator for &'a Batch<E> {
    type Item = &'a BatchItem<E>;
    type IntoIter = slice::Iter<'a, BatchItem<E>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<E> BatchItem<E> {
    pub(super) fn new(event: E, part: Arc<Part>) -> Self {
        Self { event, part }
    }

    /// The event.
    pub fn event(&self) -> &E {
        &self.event
    }

    /// The job of this event.
    pub fn job(&self) -> &Job {
        &self.part.job
    }

    /// Fails this job alone: it ends with the error, as a job whose handler returns it, once the handler returns
    /// `Ok`. The jobs that are not failed are done.
    ///
    /// The first error of a job stands. When the handler returns an error, these are forgotten, and each job runs
    /// again alone.
    pub fn fail(&self, error: impl Into<JobError>) {
        self.part.error().get_or_insert_with(|| error.into());
    }
}

impl<E> fmt::Debug for BatchItem<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchItem").field("job", &self.part.job).finish_non_exhaustive()
    }
}

impl<E> fmt::Debug for BatchRun<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchRun").field("parts", &self.parts).finish_non_exhaustive()
    }
}

impl Part {
    pub(super) fn new(job: Job, left: Arc<AtomicBool>) -> Self {
        Self { job, error: Mutex::new(None), left_out: OnceLock::new(), left }
    }

    /// The handler runs without this job. The first resource that says so decides.
    pub(super) fn leave_out(&self, why: LeftOut) {
        let _decided = self.left_out.set(why);
    }

    pub(super) fn is_left_out(&self) -> bool {
        self.left_out.get().is_some()
    }

    /// Whether the handler has failed this job.
    pub(super) fn has_failed(&self) -> bool {
        self.error().is_some()
    }

    /// What becomes of the job when the run has succeeded.
    pub(super) fn outcome(&self) -> Outcome {
        match self.left_out.get() {
            Some(LeftOut::Done) => Outcome::AlreadyDone,
            Some(LeftOut::Failed(error)) => Outcome::Failed(error.copied()),
            None => self.error().take().map_or(Outcome::Done, Outcome::Failed),
        }
    }

    /// Whether the job takes part in what the run has done.
    pub(super) fn takes_part(&self) -> bool {
        !self.left.load(Ordering::SeqCst) && !self.job.lease_lost()
    }

    fn error(&self) -> MutexGuard<'_, Option<JobError>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
