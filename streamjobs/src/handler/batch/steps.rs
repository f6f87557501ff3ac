//! The steps of a run for several jobs, which the code written by `#[handler]` calls.

use std::any::type_name;
use std::future::{Future, pending};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::sleep_until;

use super::items::{Batch, BatchItem, BatchRun};
use super::member::{Body, Member, alone};
use super::resource::{BatchResource, LeftOut};
use crate::handler::{FromJob, Job, State};
use crate::model::cause::panic_text;
use crate::model::config::BatchOptions;
use crate::model::outcome::{IntoOutcome, JobError, Outcome};

/// The first argument of a handler with the option `batch`.
#[diagnostic::on_unimplemented(
    message = "a handler with the option `batch` cannot take `{Self}`",
    label = "expected `streamjobs::Batch` of the event",
    note = "the handler runs for several events at once: take a `Batch<E>` as the first argument, or remove the \
            option `batch`"
)]
pub trait BatchInput {
    /// What each job gives: an event, or an entry.
    type Item: Send + Sync + 'static;

    /// The argument for the jobs of a run.
    fn of_batch(batch: Batch<Self::Item>) -> Self;
}

impl<E: Send + Sync + 'static> BatchInput for Batch<E> {
    type Item = E;

    fn of_batch(batch: Self) -> Self {
        batch
    }
}

/// An argument of a handler that is the same for all jobs of a run.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a handler with the option `batch`",
    label = "made from one job",
    note = "the handler runs for several jobs at once: take what each has from `item.job()`; `State<T>` is the \
            same for all"
)]
pub trait FromBatch: FromJob {}

impl<T: Clone + Send + Sync + 'static> FromBatch for State<T> {}

/// Runs a handler for one job, together with other jobs where the options allow it.
///
/// A job that failed before, or was delivered before, runs alone: a job that its handler cannot take must not make
/// other jobs fail again and again. If a run fails as a whole, each of its jobs also runs alone afterwards.
pub fn run_in_batch<E: Send + Sync + 'static>(
    job: Job,
    options: BatchOptions,
    input: fn(&Job) -> Result<E, Outcome>,
    body: Body<E>,
) -> BoxFuture<'static, Outcome> {
    Box::pin(async move {
        let event = match input(&job) {
            Ok(event) => event,
            Err(outcome) => return outcome,
        };
        if options.size.get() == 1 || job.attempt() > 1 || job.delivery_count() > 1 {
            return alone(job, event, body).await;
        }
        let member = Arc::new(Member::new(job.clone(), event));
        match member.run(options, body).await {
            Some(outcome) => outcome,
            None => match input(&job) {
                Ok(event) => alone(job, event, body).await,
                Err(outcome) => outcome,
            },
        }
    })
}

/// The events for which the handler runs.
///
/// # Errors
///
/// When the resources have left out every job, or a job has lost its lease or was cancelled.
pub fn batch_input<B: BatchInput>(run: &BatchRun<B::Item>) -> Result<B, Outcome> {
    // Beginning resources takes time.
    if !run.is_whole() {
        return Err(Outcome::LeaseLost);
    }
    let all = run.take_events().into_iter().zip(&run.parts);
    let items = all.filter(|(_, part)| !part.is_left_out());
    let items = items.map(|(event, part)| BatchItem::new(event, Arc::clone(part)));
    let items = items.collect::<Vec<_>>();
    if items.is_empty() { Err(Outcome::AlreadyDone) } else { Ok(B::of_batch(Batch::new(items))) }
}

/// Makes one argument of the handler.
///
/// # Errors
///
/// The outcome of a run for which the argument could not be made.
pub fn batch_extract<A: FromBatch, E>(run: &BatchRun<E>) -> Result<A, Outcome> {
    match run.first() {
        Some(job) => A::from_job(job).map_err(Outcome::Failed),
        None => Err(Outcome::AlreadyDone),
    }
}

/// Begins one resource of the handler.
///
/// # Errors
///
/// The outcome of a run whose handler does not run.
pub fn batch_begin<'a, R: BatchResource + 'a, E: Send + Sync>(
    run: &'a BatchRun<E>,
) -> BoxFuture<'a, Result<R, Outcome>> {
    Box::pin(async move {
        let jobs = run.parts.iter().map(|part| part.job.clone()).collect::<Vec<_>>();
        let begun = in_time(run, R::begin_batch(&jobs)).await?;
        let (resource, left_out) =
            begun.map_err(|error| failed_by_resource(run, error))?.into_parts();
        let is_single = run.parts.len() == 1;
        for (place, why) in left_out {
            if matches!(why, LeftOut::Alone) && is_single {
                continue;
            }
            if let Some(part) = run.parts.get(place) {
                part.leave_out(type_name::<R>(), why);
            }
        }
        Ok(resource)
    })
}

/// Runs the handler's body until it returns, panics, or its time is over.
pub fn batch_run<'a, F, T, E: Send + Sync>(run: &'a BatchRun<E>, body: F) -> BoxFuture<'a, Outcome>
where
    F: Future<Output = T> + Send + 'a,
    T: IntoOutcome,
{
    Box::pin(async move {
        match in_time(run, body).await {
            Ok(result) => result.into_outcome(),
            Err(outcome) => outcome,
        }
    })
}

/// Commits a resource when the run has succeeded so far, and rolls it back otherwise. Before a rollback, the resource
/// judges the error.
pub fn batch_settle<'a, R: BatchResource + 'a, E: Send + Sync>(
    run: &'a BatchRun<E>,
    resource: R,
    outcome: Outcome,
) -> BoxFuture<'a, Outcome> {
    Box::pin(async move {
        let outcome = match outcome {
            // A commit for a job that has lost its lease could race with the job's next attempt.
            Outcome::Done if !run.stage.settle(|| run.is_whole()) => Outcome::LeaseLost,
            Outcome::Done if run.parts.iter().any(|part| !part.is_undone()) => {
                let name = type_name::<R>();
                let undone = run.parts.iter().enumerate();
                let undone = undone.filter(|(_, part)| part.is_undone_for(name));
                let undone = undone.map(|(place, _)| place).collect::<Vec<_>>();
                return match resource.commit_batch(&undone).await {
                    Ok(()) => Outcome::Done,
                    Err(error) => failed_by_resource(run, error),
                };
            }
            Outcome::Failed(error) => {
                let decided = error.is_later();
                let error = resource.judge(error);
                if !decided && error.is_later() {
                    run.stage.fail_by_resource();
                }
                Outcome::Failed(error)
            }
            other => other,
        };
        resource.rollback().await;
        outcome
    })
}

/// What the failure of a resource means for the jobs: perhaps the database was busy with one of them.
fn failed_by_resource<E>(run: &BatchRun<E>, error: JobError) -> Outcome {
    run.stage.fail_by_resource();
    Outcome::Failed(error)
}

/// Waits for a future of the run, unless the run's time is over first, no job waits for the run, or the future
/// panics.
async fn in_time<E, F: Future + Send>(run: &BatchRun<E>, future: F) -> Result<F::Output, Outcome> {
    let guarded = AssertUnwindSafe(future).catch_unwind();
    let timed_out = async {
        match run.first().and_then(Job::time_limit) {
            Some((end, timeout)) => {
                sleep_until(end).await;
                Outcome::TimedOut(timeout)
            }
            None => pending().await,
        }
    };
    tokio::select! {
        biased;
        finished = guarded => finished.map_err(|panic| Outcome::Panicked(panic_text(panic))),
        () = run.stage.abandoned() => Err(Outcome::CutOff),
        outcome = timed_out => Err(outcome),
    }
}
