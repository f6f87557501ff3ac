//! Work outside of any database that should be done once: mail, calls to other systems.
//!
//! A handler that takes `&mut OnceMark` runs only when its group has not done the event before, and
//! nobody else of the group is at it:
//!
//! ```
//! use streamjobs::once::OnceMark;
//! use streamjobs::{Event, JobError, handler};
//! # #[derive(Event, serde::Serialize, serde::Deserialize)]
//! # #[event(stream = "orders", type = "order.placed")]
//! # struct OrderPlaced { order_id: String }
//! # async fn was_sent(_: &str) -> Result<bool, JobError> { Ok(false) }
//! # async fn send(_: &str, _: &str) -> Result<(), JobError> { Ok(()) }
//!
//! #[handler(group = "mails", timeout = "1m")]
//! async fn confirm(order: OrderPlaced, mark: &mut OnceMark) -> Result<(), JobError> {
//!     // Somebody began this and was never heard of again: it may be sent already.
//!     if mark.is_takeover() && was_sent(mark.key()).await? {
//!         return Ok(());
//!     }
//!     send(&order.order_id, mark.key()).await
//! }
//! ```
//!
//! # What is guaranteed
//!
//! The work is done at least once, and there is one window in which it is done again: a process
//! that dies, or an attempt that is cut off, **between the work and the note that it is done**. (The
//! note is tried again for some seconds before an attempt fails for want of it.) No mark can close
//! the window, because a mail server and a mark have no common transaction. The next attempt learns
//! of it by [`is_takeover`](OnceMark::is_takeover); a system that takes an idempotency key closes it
//! when it is given [`key`](OnceMark::key). Outside of the window, a group does each event once:
//! redelivered, published twice, or redriven.
//!
//! How much of that survives a loss depends on where the marks are:
//!
//! - [`ServerMarks`], the default: as durable as the server of the streams. Marks that it loses (in a
//!   crash without an append-only file, in a failover, by eviction or by a flush) are as if never
//!   made: the work may be done again, and is never left out. The marks of one stream say nothing
//!   about another stream.
//! - The marks of `streamjobs-postgres`: as durable as the database, whatever becomes of the server.
//!   The window is the same.
//! - `Once` of `streamjobs-postgres`: the effects stand in the same database, and are committed with
//!   the note. There is no window: such effects happen exactly once.
//! - Streams in memory, in tests: as [`ServerMarks`], and gone with the process.
//! - No guard at all: at least once, without any of this.
//!
//! # States
//!
//! A mark is *running*, with its owner and the time after which it counts as abandoned, or *done*:
//!
//! - Without a mark, the work begins, and the mark is running.
//! - Running for the same job (it was delivered again, so its owner is gone or has lost its lease):
//!   taken over at once.
//! - Running for another job of the same event (it was published twice): the job is
//!   [put off](crate::JobError::later), at most 5 seconds at a time, and looks again.
//! - Running and abandoned: taken over by whoever comes.
//! - Done: the job is acknowledged without running.
//!
//! A mark counts as abandoned 30 seconds after the attempt's deadline, or 15 minutes after its begin
//! where the handler has no timeout: **give it one**. A handler that runs for longer without one may
//! have company.

#[cfg(feature = "testing")]
pub mod conformance;

mod server;

pub use self::server::{KeepMarks, ServerMarks};
pub use crate::store::marks::{MarkBegin, Marked};

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::handler::{Begin, Job, JobResource, Requirements};
use crate::model::outcome::JobError;

/// Where marks are kept.
///
/// Its functions have the job for their argument, whose state and client lead to the place.
pub trait Marks: Send + 'static {
    /// Marks the work of a job as begun, unless it is done, or a job of another entry is at it.
    ///
    /// # Errors
    ///
    /// The attempt fails with the error. [`JobError::later`] where the place cannot be reached:
    /// that is no fault of the job's.
    fn begin(
        job: &Job,
        key: &str,
        begin: MarkBegin<'_>,
    ) -> impl Future<Output = Result<Marked, JobError>> + Send;

    /// Marks the work of a job as done, whoever has begun it; the mark is kept for this long.
    ///
    /// # Errors
    ///
    /// It is asked again a few times, and then the attempt fails with the error.
    fn done(
        job: &Job,
        key: &str,
        keep: Duration,
    ) -> impl Future<Output = Result<(), JobError>> + Send;

    /// Removes the mark of work that failed, if this owner has begun it and nobody has finished it.
    ///
    /// # Errors
    ///
    /// They are logged: a mark that stays is taken over.
    fn undo(job: &Job, key: &str, owner: &str)
    -> impl Future<Output = Result<(), JobError>> + Send;

    /// How long marks are kept: seven days unless the place says otherwise.
    ///
    /// Shorter than the longest time after which an event can come again (retention, dead letters
    /// that are redriven, publishers that repeat), and what came later is done twice.
    fn keep(job: &Job) -> Duration {
        let _ = job;
        KEPT
    }

    /// Names what the place needs from the runtime, so that a start without it is refused.
    fn require(requirements: &mut Requirements) {
        let _ = requirements;
    }
}

/// Lets a handler do its work once for each event: see the [module](self).
///
/// It is begun before the handler runs, and marked as done when the handler returns `Ok`, before the
/// job is acknowledged. After an error, a panic or a time-out the mark is removed, so that the next
/// attempt begins anew: what the failed one did by then is done again. An attempt that is dropped, or
/// whose process dies, leaves its mark as it is, and the job's next attempt takes it over.
#[must_use]
pub struct OnceMark<M: Marks = ServerMarks> {
    job: Job,
    owner: String,
    takeover: bool,
    marks: PhantomData<fn() -> M>,
}

impl<M: Marks> OnceMark<M> {
    /// The event id: the idempotency key for other systems.
    #[must_use]
    pub fn key(&self) -> &str {
        key(&self.job)
    }

    /// Whether this work was begun before, and neither finished nor given up: it may have been done.
    #[must_use]
    pub fn is_takeover(&self) -> bool {
        self.takeover
    }
}

impl<M: Marks> JobResource for OnceMark<M> {
    async fn begin(job: &Job) -> Result<Begin<Self>, JobError> {
        let owner = owner(job);
        let origin = job.origin().unwrap_or(job.entry_id());
        let begin = MarkBegin::new(&owner, origin, expiry(job), M::keep(job));
        match M::begin(job, key(job), begin).await? {
            Marked::Begun { takeover } => {
                Ok(Begin::Run(Self { job: job.clone(), owner, takeover, marks: PhantomData }))
            }
            Marked::Done => Ok(Begin::AlreadyDone),
            Marked::Running { rest } => Err(JobError::later(
                pause(rest, fastrand::f64()),
                "another job of the same event is at this work",
            )),
        }
    }

    async fn commit(self) -> Result<(), JobError> {
        let mut failures = 0;
        // The work is done: forgetting that is worse than a moment's patience.
        while let Err(error) = M::done(&self.job, self.key(), M::keep(&self.job)).await {
            let Some(bound) = DONE_PAUSES.get(failures) else { return Err(error) };
            failures += 1;
            sleep(bound.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
        Ok(())
    }

    async fn rollback(self) {
        if let Err(error) = M::undo(&self.job, self.key(), &self.owner).await {
            warn!(
                stream = %self.job.stream(), group = %self.job.group(),
                entry_id = %self.job.entry_id(), event_id = %self.job.event_id(),
                error = %error.text(),
                "a mark of work that failed could not be removed; the next attempt takes it over"
            );
        }
    }

    fn require(requirements: &mut Requirements) {
        M::require(requirements);
    }
}

impl<M: Marks> fmt::Debug for OnceMark<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceMark")
            .field("key", &self.key())
            .field("takeover", &self.takeover)
            .finish_non_exhaustive()
    }
}

fn key(job: &Job) -> &str {
    job.event_id().as_str()
}

/// What no other attempt is called.
fn owner(job: &Job) -> String {
    format!("{}/{}/{}", job.consumer(), job.entry_id(), job.delivery_count())
}

/// How long the work of an attempt may take until it counts as abandoned.
fn expiry(job: &Job) -> Duration {
    match job.deadline() {
        Some(deadline) => {
            deadline.saturating_duration_since(Instant::now().into_std()) + EXPIRY_MARGIN
        }
        None => EXPIRY,
    }
}

/// How long a job waits until it looks again; `random` is drawn evenly from 0 to 1, so that jobs of
/// one event do not come back together.
fn pause(rest: Duration, random: f64) -> Duration {
    rest.clamp(PAUSE_MIN, PAUSE_MAX).mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const EXPIRY: Duration = Duration::from_secs(15 * 60);
const EXPIRY_MARGIN: Duration = Duration::from_secs(30);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// At most so long before each further attempt to say that work is done.
const DONE_PAUSES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(1_600),
    Duration::from_millis(3_200),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_waits_for_another_looks_again_within_five_seconds() {
        assert_eq!(pause(Duration::from_secs(900), 1.0), PAUSE_MAX);
        assert_eq!(pause(Duration::from_secs(900), 0.0), PAUSE_MAX / 2);
        assert_eq!(pause(Duration::from_secs(2), 1.0), Duration::from_secs(2));
        assert_eq!(pause(Duration::ZERO, 0.0), PAUSE_MIN / 2);
    }
}
