//! The events of one run, and what becomes of each.

use std::fmt;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec;

use super::resource::LeftOut;
use crate::handler::{Job, RunStage};
use crate::model::outcome::{JobError, Outcome};

/// The events that a handler with the option `batch` takes in one run, each with its job.
///
/// It has at least one event, and at most as many as the option `batch` says; a job that has failed before, or was
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
    /// The resources for which the handler runs without this job.
    left_out: Mutex<Vec<(&'static str, LeftOut)>>,
    /// The job does not wait for the end of the run any more.
    left: Arc<AtomicBool>,
}

/// The jobs of one run.
pub struct BatchRun<E> {
    pub(super) parts: Vec<Arc<Part>>,
    /// Taken when the handler begins.
    events: Mutex<Vec<E>>,
    pub(super) stage: Arc<RunStage>,
}

impl<E> BatchRun<E> {
    pub(super) fn new(entries: Vec<(E, Arc<Part>)>, stage: Arc<RunStage>) -> Self {
        let (events, parts) = entries.into_iter().unzip();
        Self { parts, events: Mutex::new(events), stage }
    }

    /// The first job, for what all jobs have in common; a run has one.
    pub(super) fn first(&self) -> Option<&Job> {
        self.parts.first().map(|part| &part.job)
    }

    /// The events, once.
    pub(super) fn take_events(&self) -> Vec<E> {
        std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether all jobs take part in what the run has done.
    pub(super) fn is_whole(&self) -> bool {
        self.parts.iter().all(|part| part.takes_part())
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

    /// Whether there is no event; never true when a handler begins.
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

    /// Fails this job alone: once the handler returns `Ok`, the job ends as if its handler had returned the error.
    /// Jobs that were not failed are done.
    ///
    /// The first error of a job counts. When the handler itself returns an error, these errors are dropped, and each
    /// job runs again alone.
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
        Self { job, error: Mutex::default(), left_out: Mutex::default(), left }
    }

    /// Leaves this job out of the run, for this resource. The first resource that does so decides what becomes of the
    /// job.
    pub(super) fn leave_out(&self, resource: &'static str, why: LeftOut) {
        self.left_out().push((resource, why));
    }

    pub(super) fn is_left_out(&self) -> bool {
        !self.left_out().is_empty()
    }

    /// Whether the handler has failed this job.
    pub(super) fn has_failed(&self) -> bool {
        self.error().is_some()
    }

    /// Whether the job is not done when the run has succeeded.
    pub(super) fn is_undone(&self) -> bool {
        self.is_left_out() || self.has_failed()
    }

    /// Whether a resource that took the job has to learn that the job is not done: the handler has failed it, or ran
    /// without it because of another resource.
    pub(super) fn is_undone_for(&self, resource: &'static str) -> bool {
        let left_out = self.left_out();
        let by_itself = left_out.iter().any(|(by, _)| *by == resource);
        !by_itself && (!left_out.is_empty() || self.has_failed())
    }

    /// What becomes of the job when the run has succeeded; `None` if the job then runs alone.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        match self.left_out().first() {
            Some((_, LeftOut::Done)) => Some(Outcome::AlreadyDone),
            Some((_, LeftOut::Failed(error))) => Some(Outcome::Failed(error.copied())),
            Some((_, LeftOut::Alone)) => None,
            None => Some(self.error().take().map_or(Outcome::Done, Outcome::Failed)),
        }
    }

    /// Whether the job takes part in what the run has done.
    pub(super) fn takes_part(&self) -> bool {
        !self.left.load(Ordering::SeqCst) && !self.job.lease_lost()
    }

    fn left_out(&self) -> MutexGuard<'_, Vec<(&'static str, LeftOut)>> {
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self) -> MutexGuard<'_, Option<JobError>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
