//! The steps of one attempt, which the code written by `#[handler]` calls.
//!
//! The futures are boxed: with an opaque type, the compiler would report each type error in the user's
//! code a second time, at the attribute.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::task::Poll;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::extract::FromJob;
use super::job::Job;
use super::resource::{Begin, JobResource};
use super::returned::IntoResult;
use crate::model::cause::panic_text;
use crate::model::entry::Entry;
use crate::model::event::Event;
use crate::model::outcome::{IntoOutcome, Outcome};
use crate::model::schedule::Tick;

/// Decodes the event of the job's entry.
///
/// # Errors
///
/// The outcome of an attempt whose entry cannot be decoded.
pub fn input<E: Event>(job: &Job) -> Result<E, Outcome> {
    job.read::<E>().map_err(Outcome::Undecodable)
}

/// The first argument of a handler that names its stream.
#[diagnostic::on_unimplemented(
    message = "a handler with the option `stream` cannot take `{Self}`",
    label = "expected `streamjobs::Entry`",
    note = "an event has a stream of its own: remove the option `stream`, or take the entry itself"
)]
pub trait RawInput: Sized {
    /// The argument for an entry, whatever it holds.
    fn of_entry(entry: &Entry) -> Self;
}

impl RawInput for Entry {
    fn of_entry(entry: &Entry) -> Self {
        entry.clone()
    }
}

/// The first argument of a handler with a schedule.
#[diagnostic::on_unimplemented(
    message = "a handler with a schedule cannot take `{Self}`",
    label = "expected `streamjobs::schedule::Tick`",
    note = "`cron` and `every` publish a tick for each occurrence: take a `Tick` as the first argument"
)]
pub trait ScheduledInput: Event {}

impl ScheduledInput for Tick {}

/// Decodes the tick of the job's entry.
///
/// # Errors
///
/// The outcome of an attempt whose entry cannot be decoded.
pub fn tick_input<E: ScheduledInput>(job: &Job) -> Result<E, Outcome> {
    input(job)
}

/// Returns the entry itself.
///
/// # Errors
///
/// Never: every entry is accepted.
pub fn raw_input<E: RawInput>(job: &Job) -> Result<E, Outcome> {
    Ok(E::of_entry(job.entry()))
}

/// Makes one argument of the handler.
///
/// # Errors
///
/// The outcome of an attempt for which the argument could not be made.
pub fn extract<A: FromJob>(job: &Job) -> Result<A, Outcome> {
    A::from_job(job).map_err(Outcome::Failed)
}

/// Begins one resource of the handler.
///
/// # Errors
///
/// The outcome of an attempt whose handler does not run.
pub fn begin<'a, R: JobResource + 'a>(job: &'a Job) -> BoxFuture<'a, Result<R, Outcome>> {
    Box::pin(async move {
        match interruptible(job, R::begin(job)).await {
            Ok(Ok(Begin::Run(resource))) => Ok(resource),
            Ok(Ok(Begin::AlreadyDone)) => Err(Outcome::AlreadyDone),
            Ok(Err(error)) => Err(Outcome::Failed(error)),
            Err(outcome) => Err(outcome),
        }
    })
}

/// Runs the handler's body until it returns, panics, or has to stop.
///
/// The return type is a parameter of its own, so that the compiler reports an error about it at the
/// type that the user wrote.
pub fn run<'a, F, T>(job: &'a Job, body: F) -> BoxFuture<'a, Outcome>
where
    F: Future<Output = T> + Send + 'a,
    T: IntoOutcome,
{
    Box::pin(async move {
        // Beginning resources takes time, and the process may have stood still: another attempt may
        // own the job.
        if job.lease_lost() {
            return Outcome::LeaseLost;
        }
        match interruptible(job, body).await {
            Ok(result) => result.into_outcome(),
            Err(outcome) => outcome,
        }
    })
}

/// As [`run()`], and leaves what the body returned with the job.
///
/// The result is encoded before the attempt's resources are committed, so that a result that cannot be kept rolls
/// them back.
pub fn run_with_result<'a, F, T>(job: &'a Job, body: F) -> BoxFuture<'a, Outcome>
where
    F: Future<Output = T> + Send + 'a,
    T: IntoResult,
{
    Box::pin(async move {
        if job.lease_lost() {
            return Outcome::LeaseLost;
        }
        let returned = match interruptible(job, body).await {
            Ok(returned) => returned,
            Err(outcome) => return outcome,
        };
        match returned.into_result(job.client().payload_bytes_max()) {
            Ok(json) => {
                if let Some(returned) = job.returned() {
                    returned.leave(json);
                }
                Outcome::Done
            }
            Err(outcome) => outcome,
        }
    })
}

/// Commits a resource when the attempt has succeeded so far, and rolls it back otherwise. Before a rollback, the
/// resource judges the error.
pub fn settle<'a, R: JobResource + 'a>(
    job: &'a Job,
    resource: R,
    outcome: Outcome,
) -> BoxFuture<'a, Outcome> {
    Box::pin(async move {
        if !matches!(outcome, Outcome::Done) {
            let outcome = match outcome {
                Outcome::Failed(error) => Outcome::Failed(resource.judge(error)),
                other => other,
            };
            resource.rollback().await;
            return outcome;
        }
        // A commit after the lease was lost would race with the attempt that owns the job now.
        if job.lease_lost() {
            resource.rollback().await;
            return Outcome::LeaseLost;
        }
        match resource.commit().await {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::Failed(error),
        }
    })
}

/// Waits for a future of the attempt, unless the attempt has to end first or the future panics.
async fn interruptible<F: Future + Send>(job: &Job, future: F) -> Result<F::Output, Outcome> {
    let mut guarded = pin!(AssertUnwindSafe(future).catch_unwind());
    let finished =
        |finished: Result<_, _>| finished.map_err(|panic| Outcome::Panicked(panic_text(panic)));
    // A future that is ready at once needs no watching.
    let mut ended = None;
    let watched = poll_fn(|context| {
        if let Poll::Ready(answer) = guarded.as_mut().poll(context) {
            return Poll::Ready(finished(answer));
        }
        let ended = ended.get_or_insert_with(|| Box::pin(job.time_ended()));
        ended.as_mut().poll(context).map(Err)
    });
    watched.await
}
