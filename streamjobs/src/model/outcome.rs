//! What running a handler gave.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::model::cause::{BoxError, chain};
use crate::model::event::DecodeError;

/// Why a job failed, and what that means for it.
///
/// Anything that is an error turns into one with `?`, and means: try again with back-off. Say
/// otherwise with [`JobError::dead`], [`JobError::retry_after`] and [`JobError::later`], or with the
/// methods of [`ResultExt`].
///
/// ```
/// use streamjobs::{JobError, ResultExt};
///
/// fn charge(amount: &str) -> Result<u32, JobError> {
///     let cents = amount.parse::<u32>().dead()?;   // no retry makes this a number
///     Ok(cents)
/// }
/// # assert!(charge("x").is_err());
/// ```
pub struct JobError {
    retry: Retry,
    cause: BoxError,
}

/// What a failure asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Again after the handler's back-off.
    Backoff,
    /// Again after this delay.
    After(Duration),
    /// Again after this delay, and not charged as a failure.
    Later(Duration),
    /// Not again.
    Never,
}

impl JobError {
    /// A failure that may pass: the job is tried again after its back-off.
    #[must_use]
    pub fn retry(cause: impl Into<BoxError>) -> Self {
        Self { retry: Retry::Backoff, cause: cause.into() }
    }

    /// A failure that may pass: the job is tried again after the given delay.
    ///
    /// The delay is at most a year; a longer one is cut to that.
    #[must_use]
    pub fn retry_after(delay: Duration, cause: impl Into<BoxError>) -> Self {
        Self { retry: Retry::After(delay.min(DELAY_MAX)), cause: cause.into() }
    }

    /// Not the job's doing: it is tried again after the given delay, and this attempt is not charged
    /// as a failure, so not even the last allowed one makes it a dead letter.
    ///
    /// It is for what is wrong around a job, and will pass: a deadlock, an exhausted pool, somebody
    /// else at work on the same thing. Nothing bounds how often a job is put off, so what the job
    /// itself brings about must not be answered this way: it would come back for ever. Each time is
    /// counted as [`snoozed`](crate::runtime::Counters::snoozed).
    ///
    /// The delay is at most a year; a longer one is cut to that, and a short one takes some
    /// milliseconds. Jobs that are put off together come back together: spread the delays where that
    /// matters.
    ///
    /// An entry of more than 1,000 fields cannot wait, and becomes a dead letter all the same.
    ///
    /// # Delivery
    ///
    /// What the attempt has done already is done again by the next, as after any failure.
    #[must_use]
    pub fn later(delay: Duration, cause: impl Into<BoxError>) -> Self {
        Self { retry: Retry::Later(delay.min(DELAY_MAX)), cause: cause.into() }
    }

    /// A failure that no retry mends: the job becomes a dead letter at once.
    #[must_use]
    pub fn dead(cause: impl Into<BoxError>) -> Self {
        Self { retry: Retry::Never, cause: cause.into() }
    }

    /// The same failure, as one that is not the job's doing; see [`later`](Self::later).
    #[must_use]
    pub fn into_later(self, delay: Duration) -> Self {
        Self::later(delay, self.cause)
    }

    /// Whether the job is tried again after its ordinary back-off: nobody has said what the failure
    /// means.
    #[must_use]
    pub fn is_retry(&self) -> bool {
        self.retry == Retry::Backoff
    }

    /// Whether the attempt is not charged as a failure.
    #[must_use]
    pub fn is_later(&self) -> bool {
        matches!(self.retry, Retry::Later(_))
    }

    /// Whether the job will not be tried again.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.retry == Retry::Never
    }

    /// What went wrong, to be looked at: `downcast_ref` finds the error that a handler passed on
    /// with `?`.
    #[must_use]
    pub fn cause(&self) -> &(dyn Error + 'static) {
        self.cause.as_ref()
    }

    pub(crate) fn asks_for(&self) -> Retry {
        self.retry
    }

    /// The error and its causes in one line, as a dead letter keeps it.
    pub(crate) fn text(&self) -> String {
        chain(self.cause.as_ref())
    }
}

impl fmt::Debug for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobError").field("retry", &self.retry).field("cause", &self.cause).finish()
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.cause, f)
    }
}

impl<E> From<E> for JobError
where
    E: Into<BoxError>,
{
    fn from(cause: E) -> Self {
        Self::retry(cause)
    }
}

/// Says in a handler what an error means for the job.
pub trait ResultExt<T> {
    /// Makes the error final: the job becomes a dead letter at once.
    ///
    /// # Errors
    ///
    /// Passes the error on, marked.
    fn dead(self) -> Result<T, JobError>;

    /// Makes the job wait for the given delay before it is tried again.
    ///
    /// # Errors
    ///
    /// Passes the error on, marked.
    fn retry_after(self, delay: Duration) -> Result<T, JobError>;

    /// Says that the error is not the job's doing: it waits for the given delay, and the attempt is
    /// not charged; see [`JobError::later`].
    ///
    /// # Errors
    ///
    /// Passes the error on, marked.
    fn later(self, delay: Duration) -> Result<T, JobError>;
}

impl<T, E: Into<BoxError>> ResultExt<T> for Result<T, E> {
    fn dead(self) -> Result<T, JobError> {
        self.map_err(JobError::dead)
    }

    fn retry_after(self, delay: Duration) -> Result<T, JobError> {
        self.map_err(|cause| JobError::retry_after(delay, cause))
    }

    fn later(self, delay: Duration) -> Result<T, JobError> {
        self.map_err(|cause| JobError::later(delay, cause))
    }
}

/// How one attempt ended. Closed on purpose: policy decides about every case.
#[derive(Debug)]
pub enum Outcome {
    /// The handler returned, and its resources were committed.
    Done,
    /// A resource knew that this group has done this event before.
    AlreadyDone,
    /// The handler returned an error.
    Failed(JobError),
    /// The entry could not be read as what the handler takes.
    Undecodable(DecodeError),
    /// The handler panicked, with this text.
    Panicked(String),
    /// The handler ran for longer than it may.
    TimedOut(Duration),
    /// The lease was lost: another attempt may be running.
    LeaseLost,
    /// Shutdown took the attempt's time away.
    CutOff,
}

/// What a handler may return: nothing, or a result whose error means "try again".
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "return `()` or `Result<(), E>`",
    note = "`E` is `streamjobs::JobError`, or anything that turns into a boxed error"
)]
pub trait IntoOutcome {
    /// The outcome that the value stands for.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Done
    }
}

impl<E: Into<JobError>> IntoOutcome for Result<(), E> {
    fn into_outcome(self) -> Outcome {
        match self {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::Failed(error.into()),
        }
    }
}

/// The longest delay a handler can ask for.
const DELAY_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome<T: IntoOutcome>(value: T) -> Outcome {
        value.into_outcome()
    }

    #[test]
    fn any_error_means_again_with_backoff() {
        let parse = || -> Result<(), JobError> {
            "x".parse::<u32>()?;
            Ok(())
        };
        for outcome in [
            outcome(parse()),
            outcome(Err::<(), _>("no")),
            outcome(Err::<(), _>(String::from("no"))),
        ] {
            assert!(
                matches!(outcome, Outcome::Failed(error) if error.asks_for() == Retry::Backoff)
            );
        }
    }

    #[test]
    fn extensions_say_dead_retry_after_and_later() {
        let parse = || "x".parse::<u32>();
        let dead = parse().dead().unwrap_err();
        assert_eq!((dead.is_dead(), dead.is_later(), dead.is_retry()), (true, false, false));
        let after = parse().retry_after(Duration::MAX).unwrap_err();
        assert_eq!(after.asks_for(), Retry::After(DELAY_MAX));
        assert_eq!((after.is_dead(), after.is_later(), after.is_retry()), (false, false, false));
        let later = parse().later(Duration::MAX).unwrap_err();
        assert_eq!(later.asks_for(), Retry::Later(DELAY_MAX));
        assert_eq!((later.is_dead(), later.is_later(), later.is_retry()), (false, true, false));
    }

    #[test]
    fn a_failure_that_is_put_off_keeps_its_cause() {
        let plain = JobError::from("x".parse::<u32>().unwrap_err());
        assert!(plain.is_retry() && plain.cause().is::<std::num::ParseIntError>());
        let text = plain.text();
        let later = plain.into_later(Duration::from_secs(3));
        assert_eq!(later.asks_for(), Retry::Later(Duration::from_secs(3)));
        assert!(later.cause().is::<std::num::ParseIntError>() && later.text() == text);
    }

    #[test]
    fn the_text_keeps_every_cause() {
        #[derive(Debug, thiserror::Error)]
        #[error("could not charge")]
        struct Outer(#[source] std::num::ParseIntError);
        let error = JobError::from(Outer("x".parse::<u32>().unwrap_err()));
        assert_eq!(error.text(), "could not charge: invalid digit found in string");
    }
}
