//! Middleware: code around the run of each job.
//!
//! A chain runs within the attempt's timeout, cancellation and panic guard, and around the making of the handler's
//! arguments and resources.

use std::convert::Infallible;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;

use super::job::Job;
use super::needs::Requirements;
use crate::model::cause::panic_text;
use crate::model::outcome::{JobError, Outcome};

/// Code around the run of each job: for the runtime, for a group, or for one handler.
///
/// Every `async fn(Job, Next) -> Result<(), JobError>` is middleware, and so is a closure of this form. Implement the
/// trait for a type with fields of its own. Set it with [`RuntimeBuilder::around`](crate::RuntimeBuilder::around),
/// [`RuntimeBuilder::around_group`](crate::RuntimeBuilder::around_group), or the option `wrap` of
/// [`#[handler]`](crate::handler). The runtime's middleware is outermost, then the group's, then the handler's; of
/// several in one place, the first is outermost.
///
/// ```
/// use std::time::Instant;
/// use streamjobs::middleware::Next;
/// use streamjobs::{Job, JobError};
///
/// async fn timed(job: Job, next: Next) -> Result<(), JobError> {
///     let began = Instant::now();
///     let result = next.run().await;
///     println!("{} took {:?}: {}", job.event_id(), began.elapsed(), result.is_ok());
///     result
/// }
/// ```
///
/// # What it may do
///
/// - **See the outcome.** A panic, a timeout and a payload that cannot be decoded are errors as well, whose
///   [`run_failure`](JobError::run_failure) says which.
/// - **Change an error**: replace it, or change its meaning into a dead letter, a delay or a snooze.
/// - **Turn a success into a failure.** What the handler has done or committed stays, and the job is retried.
/// - **Refuse the job** by an error without calling `next`: the handler does not run, and the error counts as if the
///   handler had returned it.
///
/// It cannot turn a failure into a success: only a handler that returned `Ok` has done the job. If middleware returns
/// `Ok` for a failed run, the failure remains; if it returns `Ok` without a run, that is itself a failure. It sees a
/// lost lease, a shutdown and a cancelled job as errors, which remain whatever it returns.
///
/// # Time and panics
///
/// It shares the attempt's timeout and cancellation with the handler. When these end the attempt, the middleware's
/// future is dropped at its current await. If the run was under way, the drop waits until the run has ended and its
/// resources are rolled back. Unless the cause was a shutdown or a lost lease, it then waits an eighth of the lease
/// more (at most a second). The outcome of a run that had ended before remains, unless it is a success and middleware
/// around it [completes the job](Self::completes_job). A panic fails the attempt.
///
/// # Delivery
///
/// It runs with each attempt, including attempts after a failure or a crash.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a middleware",
    label = "expected an `async fn(Job, Next) -> Result<(), JobError>`",
    note = "or a type that implements `streamjobs::middleware::Middleware`"
)]
pub trait Middleware: Send + Sync + 'static {
    /// Runs the job with [`Next::run`], or refuses it.
    ///
    /// # Errors
    ///
    /// The attempt fails with the error.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any await, as described for the trait.
    fn around(&self, job: Job, next: Next) -> impl Future<Output = Result<(), JobError>> + Send;

    /// Whether the job is done only once this middleware has returned: `false` by default.
    ///
    /// If true, a success of the run does not count when a timeout, a shutdown, a cancellation or a lost lease ends
    /// the attempt before this middleware has returned `Ok`. The attempt then has the outcome of that cause, and the
    /// job runs again, though its handler has returned `Ok` and its resources are committed. This is for middleware
    /// whose work after the run must not be left out.
    fn completes_job(&self) -> bool {
        false
    }

    /// Adds what the middleware needs from the runtime, so that a start without it is refused. Nothing by default.
    fn require(&self, requirements: &mut Requirements) {
        let _ = requirements;
    }
}

impl<F, R> Middleware for F
where
    F: Fn(Job, Next) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), JobError>> + Send,
{
    fn around(&self, job: Job, next: Next) -> impl Future<Output = Result<(), JobError>> + Send {
        self(job, next)
    }
}

/// The rest of an attempt: the middleware within, and the handler.
///
/// Dropping this value refuses the job, and dropping the future of [`run`](Self::run) ends the run. The attempt does
/// not end before this value or that future is gone, so a run in another task ends before its job.
#[must_use = "the handler does not run without it"]
pub struct Next {
    job: Job,
    chain: Arc<Chain>,
    place: usize,
    progress: Arc<Progress>,
    /// Dropped to tell the surrounding middleware, or the code that waits for it, that this value is gone.
    alive: Option<oneshot::Sender<Infallible>>,
}

impl Next {
    /// Runs the rest, and returns how it ended.
    ///
    /// # Errors
    ///
    /// The error of the handler or of inner middleware, or an error with a
    /// [`run_failure`](JobError::run_failure).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the handler's future at its current await, and its resources, which rolls them back.
    /// In that case the job is not done, whatever the middleware returns.
    pub async fn run(mut self) -> Result<(), JobError> {
        let (progress, alive) = (Arc::clone(&self.progress), self.alive.take());
        let mut unended = Unended(Some(&progress));
        let stands = !self.chain.completes_job_before(self.place);
        let outcome = self.outcome().await;
        unended.0 = None;
        progress.set(outcome.copied(), stands);
        drop(alive);
        outcome.into_result()
    }

    /// Runs the rest, and returns its outcome.
    async fn outcome(self) -> Outcome {
        let Self { job, chain, place, progress, .. } = self;
        let Some(Layer(layer)) = chain.layers.get(place) else {
            let Some(_running) = progress.begin() else { return job.time_ended().await };
            return (chain.run)(job).await;
        };
        let (alive, gone) = oneshot::channel();
        let next = Self {
            job: job.clone(),
            chain: Arc::clone(&chain),
            place: place + 1,
            progress: Arc::clone(&progress),
            alive: Some(alive),
        };
        let result = layer.around_boxed(job, next).await;
        // The middleware may have given the run to another task. The receiver gets an error as soon as the rest is
        // gone.
        let _gone = gone.await.is_err();
        match (progress.take(), result) {
            (Some(outcome), result) => outcome.replaced_by(result),
            (None, Err(error)) => Outcome::Failed(error),
            (None, Ok(())) => Outcome::Failed(JobError::retry(NOT_RUN)),
        }
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").field("job", &self.job).finish_non_exhaustive()
    }
}

/// A middleware as a runtime keeps it. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Layer(Arc<dyn AnyMiddleware>);

impl Layer {
    /// The layer of a middleware.
    #[must_use]
    pub fn new(middleware: impl Middleware) -> Self {
        Self(Arc::new(middleware))
    }

    /// Adds what the middleware needs from the runtime.
    pub(crate) fn require(&self, requirements: &mut Requirements) {
        self.0.require_boxed(requirements);
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Layer")
    }
}

/// A middleware of any type.
trait AnyMiddleware: Send + Sync {
    fn around_boxed(&self, job: Job, next: Next) -> BoxFuture<'_, Result<(), JobError>>;

    fn completes_job_boxed(&self) -> bool;

    fn require_boxed(&self, requirements: &mut Requirements);
}

impl<M: Middleware> AnyMiddleware for M {
    fn around_boxed(&self, job: Job, next: Next) -> BoxFuture<'_, Result<(), JobError>> {
        Box::pin(self.around(job, next))
    }

    fn completes_job_boxed(&self) -> bool {
        self.completes_job()
    }

    fn require_boxed(&self, requirements: &mut Requirements) {
        self.require(requirements);
    }
}

/// The middleware around one handler, outermost first, and the handler.
#[derive(Debug)]
pub(crate) struct Chain {
    layers: Vec<Layer>,
    run: fn(Job) -> BoxFuture<'static, Outcome>,
}

impl Chain {
    /// The chain around a handler; `None` without middleware.
    pub(crate) fn new(
        layers: Vec<Layer>,
        run: fn(Job) -> BoxFuture<'static, Outcome>,
    ) -> Option<Arc<Self>> {
        (!layers.is_empty()).then(|| Arc::new(Self { layers, run }))
    }

    /// Whether any of the middleware outside of this place has to return before the job is done.
    fn completes_job_before(&self, place: usize) -> bool {
        self.layers.iter().take(place).any(|Layer(layer)| layer.completes_job_boxed())
    }

    /// Runs a job with the middleware around it, unless the attempt has to end first.
    pub(crate) async fn run(self: Arc<Self>, job: Job) -> Outcome {
        let progress = Arc::<Progress>::default();
        let shared = Arc::clone(&progress);
        let next = Next { job: job.clone(), chain: self, place: 0, progress: shared, alive: None };
        let whole = AssertUnwindSafe(next.outcome()).catch_unwind();
        let over = async {
            let outcome = job.time_ended().await;
            if progress.has_begun_or_never_does() {
                // The run notices by itself that its time is over, and rolls its resources back.
                progress.at_rest().await;
                if !matches!(outcome, Outcome::LeaseLost | Outcome::CutOff) {
                    sleep(job.window()).await;
                }
            }
            // The outcome is taken before the run is dropped, because the drop forgets it.
            progress.take_standing().unwrap_or(outcome)
        };
        tokio::select! {
            biased;
            ended = whole => ended.unwrap_or_else(|panic| Outcome::Panicked(panic_text(panic))),
            outcome = over => outcome,
        }
    }
}

/// The stage of an attempt's run.
#[derive(Debug, Default)]
struct Progress {
    state: Mutex<State>,
    rested: Notify,
}

#[derive(Debug, Default)]
struct State {
    has_begun: bool,
    /// The attempt has ended before the handler began; the handler never begins now.
    is_over: bool,
    is_running: bool,
    /// How the run ended, as changed by the middleware that has returned so far; `None` if it did not end by itself.
    outcome: Option<Outcome>,
    /// Whether this outcome stands even if the middleware that has not returned yet is dropped.
    stands: bool,
}

impl Progress {
    /// The handler begins, and runs until the guard is dropped; `None` if the attempt is over.
    fn begin(&self) -> Option<Running<'_>> {
        let mut state = self.state();
        if state.is_over {
            return None;
        }
        (state.has_begun, state.is_running) = (true, true);
        Some(Running(self))
    }

    /// At the end of the attempt: whether the handler has begun. If not, it never will.
    fn has_begun_or_never_does(&self) -> bool {
        let mut state = self.state();
        state.is_over = !state.has_begun;
        state.has_begun
    }

    fn set(&self, outcome: Outcome, stands: bool) {
        let mut state = self.state();
        (state.outcome, state.stands) = (Some(outcome), stands);
    }

    fn take(&self) -> Option<Outcome> {
        self.state().outcome.take()
    }

    /// Takes the outcome that still counts if some middleware is dropped before it has returned.
    fn take_standing(&self) -> Option<Outcome> {
        let mut state = self.state();
        let stands = state.stands;
        let is_success =
            |outcome: &Outcome| matches!(outcome, Outcome::Done | Outcome::AlreadyDone);
        state.outcome.take().filter(|outcome| stands || !is_success(outcome))
    }

    /// Waits until the handler is not running.
    async fn at_rest(&self) {
        loop {
            let rested = self.rested.notified();
            if !self.state().is_running {
                return;
            }
            rested.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run that is dropped before its end leaves no outcome.
struct Unended<'a>(Option<&'a Progress>);

impl Drop for Unended<'_> {
    fn drop(&mut self) {
        if let Some(progress) = self.0 {
            drop(progress.take());
        }
    }
}

/// The handler runs.
struct Running<'a>(&'a Progress);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.state().is_running = false;
        self.0.rested.notify_waiters();
    }
}

const NOT_RUN: &str = "middleware returned `Ok`, and the job has not run";
