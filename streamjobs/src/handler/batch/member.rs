//! One job's way through a batch.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tracing::Instrument;

use super::items::{BatchRun, Part};
use crate::handler::{Job, Members, RunStage};
use crate::model::cause::panic_text;
use crate::model::config::BatchOptions;
use crate::model::outcome::Outcome;
use crate::model::trace::span;

/// How a handler runs for the jobs of a batch.
pub(super) type Body<E> = fn(BatchRun<E>) -> BoxFuture<'static, Outcome>;

/// A job that waits for the run of its batch.
pub(super) struct Member<E> {
    job: Job,
    /// The job does not wait any more.
    left: Arc<AtomicBool>,
    /// Taken when the run begins.
    event: Mutex<Option<E>>,
    /// The outcome of the run for this job; `None` if the job has to run alone.
    outcome: Mutex<Option<Outcome>>,
}

/// Marks the job as gone when its wait ends, for whatever reason.
struct Waiting<'a> {
    left: &'a AtomicBool,
    stage: &'a RunStage,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.left.store(true, Ordering::SeqCst);
        self.stage.leave();
    }
}

impl<E: Send + Sync + 'static> Member<E> {
    pub(super) fn new(job: Job, event: E) -> Self {
        Self {
            job,
            left: Arc::default(),
            event: Mutex::new(Some(event)),
            outcome: Mutex::new(None),
        }
    }

    /// Runs the job together with other jobs, and returns its outcome, or `None` if the job has to run alone.
    ///
    /// A job that has to end earlier than the run leaves the run. While resources are being settled, the job first
    /// waits for the end of the run, and so does the last job that leaves. So what was committed counts as done, and
    /// the rest is rolled back before the job ends.
    pub(super) async fn run(
        self: Arc<Self>,
        options: BatchOptions,
        body: Body<E>,
    ) -> Option<Outcome> {
        let size = usize::try_from(options.size.get()).unwrap_or(usize::MAX);
        let begin = |members| together(members, options.wait, body);
        let run = self.job.batches().join(&self, size, begin);
        let waiting = Waiting { left: &self.left, stage: run.stage() };
        let reason = tokio::select! {
            biased;
            () = run.ended() => None,
            outcome = self.job.cut_off() => Some(outcome),
        };
        drop(waiting);
        if reason.is_some() && (run.stage().is_settling() || run.stage().is_abandoned()) {
            run.ended().await;
        }
        let outcome = lock(&self.outcome).take();
        match reason {
            Some(reason) => Some(outcome.filter(is_done).unwrap_or(reason)),
            None => outcome,
        }
    }
}

/// Fills the batch and runs it.
async fn together<E: Send + Sync + 'static>(
    members: Arc<Members<Arc<Member<E>>>>,
    wait: Duration,
    body: Body<E>,
) {
    let (mut parts, mut entries) = (Vec::new(), Vec::new());
    let joined = members.filled(wait).await;
    for member in &joined {
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
    let run = BatchRun::new(entries, Arc::clone(&members.stage));
    let whole = AssertUnwindSafe(body(run)).catch_unwind().instrument(span);
    let outcome = whole.await.unwrap_or_else(|panic| Outcome::Panicked(panic_text(panic)));
    let speaks_of_all = match &outcome {
        // The other side is busy, has a limit, or an operator has to repair something.
        Outcome::Failed(error) => {
            error.is_later() && (error.is_blocked() || !members.stage.has_failed_by_resource())
        }
        _ => false,
    } || parts.len() == 1;
    for (part, member) in parts {
        *lock(&member.outcome) = match &outcome {
            whole if is_done(whole) => part.outcome(),
            whole => speaks_of_all.then(|| whole.copied()),
        };
    }
}

/// Runs the handler for one job, unless it has to end.
pub(super) async fn alone<E: Send + Sync + 'static>(job: Job, event: E, body: Body<E>) -> Outcome {
    if let Some(outcome) = job.has_to_end() {
        return outcome;
    }
    let (left, stage) = (Arc::<AtomicBool>::default(), Arc::new(RunStage::of_one()));
    let part = Arc::new(Part::new(job.begun_now(), Arc::clone(&left)));
    let run = BatchRun::new(vec![(event, Arc::clone(&part))], Arc::clone(&stage));
    let mut whole = pin!(AssertUnwindSafe(body(run)).catch_unwind());
    let waiting = Waiting { left: &left, stage: &stage };
    let reason = tokio::select! {
        biased;
        ended = &mut whole => Err(ended),
        outcome = job.cut_off() => Ok(outcome),
    };
    drop(waiting);
    let (ended, reason) = match reason {
        Err(ended) => (ended, None),
        // The run rolls its resources back, or commits them if it has begun to.
        Ok(reason) => (whole.await, Some(reason)),
    };
    let ended = ended.unwrap_or_else(|panic| Outcome::Panicked(panic_text(panic)));
    match reason {
        _ if is_done(&ended) => part.outcome().unwrap_or(ended),
        Some(reason) => reason,
        None => ended,
    }
}

fn is_done(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done | Outcome::AlreadyDone)
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
