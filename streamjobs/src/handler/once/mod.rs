//! Marks for work outside a database that should be done once: mail, calls to other systems.
//!
//! A handler that takes `&mut OnceMark` runs only when its group has not done the event before and no
//! other job of the group is doing it:
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
//!     // An earlier attempt began and did not finish: the mail may be sent already.
//!     if mark.is_takeover() && was_sent(mark.key()).await? {
//!         return Ok(());
//!     }
//!     send(&order.order_id, mark.key()).await
//! }
//! ```
//!
//! # What is guaranteed
//!
//! The work is done at least once. It is repeated in one case: a process dies, or an attempt is cut
//! off, **between the work and the mark that it is done**. (Setting the mark is retried for some
//! seconds before the attempt fails.) A mark cannot close this window, because a mail server and a
//! mark have no common transaction. The next attempt recognizes the case by
//! [`is_takeover`](OnceMark::is_takeover). A system that takes an idempotency key closes the
//! window: give it [`key`](OnceMark::key). Outside the window, a group does each event once,
//! whether it is redelivered, published twice, or redriven.
//!
//! What survives a failure depends on where the marks are:
//!
//! - [`ServerMarks`], the default: as durable as the server of the streams. Marks that the server loses (in a crash
//!   without an append-only file, in a failover, by eviction or by a flush) count as never set: the work may be
//!   repeated, and is never skipped. Each stream has marks of its own.
//! - The marks of `streamjobs-postgres`: as durable as the database, independent of the server. The
//!   window is the same.
//! - `Once` of `streamjobs-postgres`: the effects are in the same database and are committed with the
//!   guard row. There is no window: such effects happen exactly once.
//! - Streams in memory, in tests: as [`ServerMarks`], and lost with the process.
//! - Without a guard: at least once.
//!
//! # States
//!
//! A mark is *running*, with its owner and the time after which it counts as abandoned, or *done*:
//!
//! - No mark: the work begins, and the mark is running.
//! - Running for the same job (the entry was delivered again, so the owner is dead or has lost its
//!   lease): taken over at once.
//! - Running for another job of the same event (the event was published twice): the job is
//!   [snoozed](crate::JobError::later), for at most 5 seconds at a time.
//! - Running and abandoned: taken over by the next attempt.
//! - Done: the job is acknowledged without running.
//!
//! A mark counts as abandoned 30 seconds after the attempt's deadline, or 15 minutes after its start if the handler
//! has no timeout: **set a timeout**. Without a timeout, a handler that runs for longer may run twice at the same
//! time.
#![cfg_attr(
    feature = "testing",
    doc = "\n[`conformance::check`] tries whether marks of your own keep all of this."
)]

#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
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

/// A store of marks.
///
/// Its functions take the job, which gives access to the store through its state and its client.
pub trait Marks: Send + 'static {
    /// Marks the work of a job as begun, unless it is done or a job of another entry is doing it.
    ///
    /// # Errors
    ///
    /// The attempt fails with the error. Return [`JobError::later`] where the store cannot be reached,
    /// which is not the job's fault.
    fn begin(
        job: &Job,
        key: &str,
        begin: MarkBegin<'_>,
    ) -> impl Future<Output = Result<Marked, JobError>> + Send;

    /// Marks the work of a job as done, whichever owner began it; the mark is kept for this long.
    ///
    /// # Errors
    ///
    /// The call is repeated a few times, and then the attempt fails with the error.
    fn done(
        job: &Job,
        key: &str,
        keep: Duration,
    ) -> impl Future<Output = Result<(), JobError>> + Send;

    /// Removes the mark of failed work, if this owner began it and it is not done.
    ///
    /// # Errors
    ///
    /// An error is logged; the next attempt takes the mark over.
    fn undo(job: &Job, key: &str, owner: &str)
    -> impl Future<Output = Result<(), JobError>> + Send;

    /// How long marks are kept: seven days by default.
    ///
    /// Keep marks for longer than the time after which an event can come again (through retention,
    /// redriven dead letters, or publishers that repeat): an event that comes later is done twice.
    fn keep(job: &Job) -> Duration {
        let _ = job;
        KEPT
    }

    /// Adds what the store needs from the runtime, so that a start without it is refused.
    fn require(requirements: &mut Requirements) {
        let _ = requirements;
    }
}

/// Lets a handler do its work once for each event: see the [module](self).
///
/// The mark is begun before the handler runs, and done when the handler returns `Ok`, before the job is acknowledged.
/// After an error, a panic or a timeout the mark is removed, and the next attempt begins again: it repeats what the
/// failed attempt did. An attempt leaves its mark if it is [cancelled](Job::cancelled) (by a shutdown, by the loss of
/// its lease, or because its job is cancelled), if it is dropped, or if its process dies. The job's next attempt
/// takes this mark over, whatever the handler returned.
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

    /// Whether an earlier attempt began this work and left its mark as running: the work may already be done.
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
                "another job of the same event is doing this work",
            )),
        }
    }

    async fn commit(self) -> Result<(), JobError> {
        let mut failures = 0;
        // The work is done: without the mark it would be repeated, which is worse than a short wait.
        while let Err(error) = M::done(&self.job, self.key(), M::keep(&self.job)).await {
            let Some(bound) = DONE_PAUSES.get(failures) else { return Err(error) };
            failures += 1;
            sleep(bound.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
        Ok(())
    }

    async fn rollback(self) {
        // The attempt's work may be done: the attempt was dropped at one of its awaits, or returned when its lease
        // was already lost. The next attempt takes the mark over, and is told so.
        if self.job.cancel_reason().is_some() {
            return;
        }
        if let Err(error) = M::undo(&self.job, self.key(), &self.owner).await {
            warn!(
                stream = %self.job.stream(), group = %self.job.group(),
                entry_id = %self.job.entry_id(), event_id = %self.job.event_id(),
                error = %error.text(),
                "cannot remove the mark of failed work, so the next attempt takes over the mark"
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

/// A name that no other attempt has.
fn owner(job: &Job) -> String {
    format!("{}/{}/{}", job.consumer(), job.entry_id(), job.delivery_count())
}

/// How long until the work of an attempt counts as abandoned.
fn expiry(job: &Job) -> Duration {
    match job.deadline() {
        Some(deadline) => {
            deadline.saturating_duration_since(Instant::now().into_std()) + EXPIRY_MARGIN
        }
        None => EXPIRY,
    }
}

/// How long a job waits until its next attempt; `random` is drawn evenly from 0 to 1, so that jobs of
/// one event do not come back together.
fn pause(rest: Duration, random: f64) -> Duration {
    rest.clamp(PAUSE_MIN, PAUSE_MAX).mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const EXPIRY: Duration = Duration::from_secs(15 * 60);
const EXPIRY_MARGIN: Duration = Duration::from_secs(30);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The longest pause before each further try to mark work as done.
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
    fn a_job_that_waits_for_another_is_retried_within_five_seconds() {
        assert_eq!(pause(Duration::from_secs(900), 1.0), PAUSE_MAX);
        assert_eq!(pause(Duration::from_secs(900), 0.0), PAUSE_MAX / 2);
        assert_eq!(pause(Duration::from_secs(2), 1.0), Duration::from_secs(2));
        assert_eq!(pause(Duration::ZERO, 0.0), PAUSE_MIN / 2);
    }
}
