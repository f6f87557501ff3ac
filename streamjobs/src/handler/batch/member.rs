//! One job's way through a batch.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tracing::Instrument;

use super::items::{BatchRun, Part};
use crate::handler::{Job, Members};
use crate::model::cause::panic_text;
use crate::model::config::BatchOptions;
use crate::model::outcome::Outcome;
use crate::model::trace::{apart, span};

/// How a handler runs for the jobs of a batch.
pub(super) type Body<E> = fn(BatchRun<E>) -> BoxFuture<'static, Outcome>;

/// A job that waits for the run of its batch.
pub(super) struct Member<E> {
    job: Job,
    /// The job does not wait any more.
    left: Arc<AtomicBool>,
    /// Taken when the run begins.
    event: Mutex<Option<E>>,
    /// What the run came to for this job; none if the job has to run alone.
    outcome: Mutex<Option<Outcome>>,
}

/// Marks the job as gone when its wait ends.
struct Waiting<'a>(&'a AtomicBool);

impl<E: Send + Sync + 'static> Member<E> {
    pub(super) fn new(job: Job, event: E) -> Self {
        Self {
            job,
            left: Arc::default(),
            event: Mutex::new(Some(event)),
            outcome: Mutex::new(None),
        }
    }

    /// Runs with others: what came of it, or `None` if the job has to run alone.
    pub(super) async fn run(
        self: Arc<Self>,
        options: BatchOptions,
        body: Body<E>,
    ) -> Option<Outcome> {
        let size = usize::try_from(options.size.get()).unwrap_or(usize::MAX);
        let begin = |members| together(members, options.wait, body).boxed();
        let run = self.job.batches().join(&self, size, begin);
        let waiting = Waiting(&self.left);
        let gone = tokio::select! {
            biased;
            () = run => None,
            outcome = self.job.cut_off() => Some(outcome),
        };
        drop(waiting);
        gone.or_else(|| lock(&self.outcome).take())
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Fills the batch and runs it. Its jobs poll it together, so that it goes on as long as one of them waits, and is
/// dropped with the last.
async fn together<E: Send + Sync + 'static>(
    members: Arc<Members<Arc<Member<E>>>>,
    wait: Duration,
    body: Body<E>,
) {
    let mut parts = Vec::new();
    let mut entries = Vec::new();
    let members = members.filled(wait).await;
    for member in &members {
        let part = Arc::new(Part::new(member.job.begun_now(), Arc::clone(&member.left)));
        if part.takes_part()
            && let Some(event) = lock(&member.event).take()
        {
            entries.push((event, Arc::clone(&part)));
            parts.push((part, member));
        }
    }
    let Some((first, _)) = parts.first() else { return };
    let span = span::batch(first.job.entry().event_type(), parts.len());
    let run = BatchRun::new(entries);
    let whole = AssertUnwindSafe(apart(body(run))).catch_unwind().instrument(span);
    let outcome = whole.await.unwrap_or_else(|panic| Outcome::Panicked(panic_text(panic)));
    let is_alone = parts.len() == 1;
    for (part, member) in parts {
        *lock(&member.outcome) = outcome_of(&part, &outcome, is_alone);
    }
}

/// Runs the handler for one job.
pub(super) async fn alone<E: Send + Sync + 'static>(job: Job, event: E, body: Body<E>) -> Outcome {
    if job.lease_lost() {
        return Outcome::LeaseLost;
    }
    let part = Arc::new(Part::new(job.begun_now(), Arc::default()));
    let run = BatchRun::new(vec![(event, Arc::clone(&part))]);
    let whole = AssertUnwindSafe(body(run)).catch_unwind();
    let outcome = tokio::select! {
        biased;
        ended = whole => ended.unwrap_or_else(|panic| Outcome::Panicked(panic_text(panic))),
        outcome = job.cut_off() => outcome,
    };
    outcome_of(&part, &outcome, true).unwrap_or(outcome)
}

/// What a run came to for one of its jobs; none if the job has to run alone.
fn outcome_of(part: &Part, whole: &Outcome, is_alone: bool) -> Option<Outcome> {
    match whole {
        Outcome::Done | Outcome::AlreadyDone => Some(part.outcome()),
        // The handler speaks of all of them: the other side is busy, or has a limit.
        Outcome::Failed(error) if error.is_later() => Some(whole.copied()),
        _ => is_alone.then(|| whole.copied()),
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
