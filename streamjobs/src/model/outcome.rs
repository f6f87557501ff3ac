//! How an attempt ended: the outcome, and a handler's error.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::model::cause::{BoxError, chain, drop_caught};
use crate::model::event::DecodeError;
use crate::model::run_failure::RunFailure;

/// Why a job failed, and what that means for it.
///
/// `?` turns any error into a `JobError` that means: retry with back-off. [`JobError::dead`],
/// [`JobError::retry_after`], [`JobError::later`] and the methods of [`ResultExt`](crate::ResultExt) give another
/// meaning.
///
/// An error whose `Display` fails or panics fails the attempt like any other; its text then says
/// so. At most 32 of its causes are shown.
///
/// ```
/// use streamjobs::{JobError, ResultExt};
///
/// fn charge(amount: &str) -> Result<u32, JobError> {
///     let cents = amount.parse::<u32>().dead()?;   // a retry cannot make this a number
///     Ok(cents)
/// }
/// # assert!(charge("x").is_err());
/// ```
pub struct JobError {
    retry: Retry,
    /// Whether an operator has to repair something before the job can run.
    blocked: bool,
    /// Whether all jobs of the group have to wait as long as this job.
    limited: bool,
    cause: BoxError,
}

/// What a failure means for the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Retry after the handler's back-off.
    Backoff,
    /// Retry after this delay.
    After(Duration),
    /// Retry after this delay, without counting a failure.
    Later(Duration),
    /// Do not retry.
    Never,
}

impl JobError {
    /// A temporary failure: the job is retried after its back-off.
    #[must_use]
    pub fn retry(cause: impl Into<BoxError>) -> Self {
        Self::new(Retry::Backoff, cause)
    }

    /// A temporary failure: the job is retried after this delay.
    ///
    /// A delay of more than a year is cut to a year.
    #[must_use]
    pub fn retry_after(delay: Duration, cause: impl Into<BoxError>) -> Self {
        Self::new(Retry::After(delay.min(DELAY_MAX)), cause)
    }

    /// Snoozes the job: it is retried after this delay, and the attempt does not count as a failure,
    /// so that even the last allowed attempt does not make it a dead letter.
    ///
    /// Use it for temporary conditions outside the job: a deadlock, an exhausted pool, another job at work on the
    /// same resource. The number of snoozes is unlimited, so do not use it for a condition that the job itself
    /// causes: the job would never end. Each snooze is counted as [`snoozed`](crate::runtime::Counters::snoozed).
    ///
    /// A delay of more than a year is cut to a year; even a very short delay takes some
    /// milliseconds. Jobs that are snoozed together come back together: spread the delays where
    /// that matters.
    ///
    /// An entry of more than 1,000 fields cannot be retried and becomes a dead letter.
    ///
    /// # Delivery
    ///
    /// The next attempt repeats what this one has done, as after any failure.
    #[must_use]
    pub fn later(delay: Duration, cause: impl Into<BoxError>) -> Self {
        Self::new(Retry::Later(delay.min(DELAY_MAX)), cause)
    }

    /// Snoozes the job as [`later`](Self::later) does, and raises the alert
    /// [`JobsBlocked`](crate::stream::Condition::JobsBlocked), whose text has this cause.
    ///
    /// Use it for a fault that no retry repairs and no job causes: a right that the program lacks, a table that does
    /// not exist, a password that was changed. The jobs wait until an operator has repaired the fault, and then run
    /// by themselves. The cause is shown to the people who receive alerts, so it must not contain payloads or
    /// secrets.
    ///
    /// # Delivery
    ///
    /// As [`later`](Self::later).
    #[must_use]
    pub fn blocked(delay: Duration, cause: impl Into<BoxError>) -> Self {
        Self { blocked: true, ..Self::later(delay, cause) }
    }

    /// The other side has a limit, as with a status 429: the job is snoozed as by [`later`](Self::later), and **no
    /// job of its group starts** until then, in any process.
    ///
    /// Jobs that are running go on. This process starts none from now on. The others learn of it with their next
    /// request for a start if the group has a [`rate`](crate::config::GroupOptions::rate); otherwise within half a
    /// second, or within three seconds in an idle group. If several jobs have asked for a time, the longest applies, at
    /// most a day. It applies to this job, too. [`Group::set_rate`](crate::stream::Group::set_rate) ends the wait. See
    /// `docs/rate.md`.
    ///
    /// # Delivery
    ///
    /// As [`later`](Self::later).
    #[must_use]
    pub fn limited(delay: Duration, cause: impl Into<BoxError>) -> Self {
        Self { limited: true, ..Self::later(delay.min(LIMITED_MAX), cause) }
    }

    /// A permanent failure: the job becomes a dead letter at once.
    #[must_use]
    pub fn dead(cause: impl Into<BoxError>) -> Self {
        Self::new(Retry::Never, cause)
    }

    /// The same cause as a snooze; see [`later`](Self::later).
    #[must_use]
    pub fn into_later(self, delay: Duration) -> Self {
        Self::later(delay, self.cause)
    }

    /// The same cause as a fault that an operator has to repair; see [`blocked`](Self::blocked).
    #[must_use]
    pub fn into_blocked(self, delay: Duration) -> Self {
        Self::blocked(delay, self.cause)
    }

    /// The same cause as a permanent failure; see [`dead`](Self::dead).
    #[must_use]
    pub fn into_dead(self) -> Self {
        Self::dead(self.cause)
    }

    /// The same cause as a limit of the other side; see [`limited`](Self::limited).
    #[must_use]
    pub fn into_limited(self, delay: Duration) -> Self {
        Self::limited(delay, self.cause)
    }

    /// Whether the job is retried after its ordinary back-off: the error has no other meaning.
    #[must_use]
    pub fn is_retry(&self) -> bool {
        self.retry == Retry::Backoff
    }

    /// Whether the job is snoozed, so that the attempt does not count as a failure.
    #[must_use]
    pub fn is_later(&self) -> bool {
        matches!(self.retry, Retry::Later(_))
    }

    /// Whether the job is snoozed until an operator has repaired something: see
    /// [`blocked`](Self::blocked).
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether all jobs of the group wait as long as this job: see [`limited`](Self::limited).
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.limited
    }

    /// Whether the job becomes a dead letter without a retry.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.retry == Retry::Never
    }

    /// The underlying error. `downcast_ref` finds the error that a handler passed on with `?`.
    #[must_use]
    pub fn cause(&self) -> &(dyn Error + 'static) {
        self.cause.as_ref()
    }

    /// Why the run failed, if not by an error of its handler, as [middleware](crate::middleware) sees it.
    #[must_use]
    pub fn run_failure(&self) -> Option<&RunFailure> {
        self.cause.downcast_ref()
    }

    fn new(retry: Retry, cause: impl Into<BoxError>) -> Self {
        Self { retry, blocked: false, limited: false, cause: cause.into() }
    }

    pub(crate) fn asks_for(&self) -> Retry {
        self.retry
    }

    /// The error and its causes in one line, as a dead letter keeps it.
    pub(crate) fn text(&self) -> String {
        chain(self.cause.as_ref())
    }

    /// A copy with the text of its cause in place of the cause.
    pub(crate) fn copied(&self) -> Self {
        let Self { retry, blocked, limited, .. } = *self;
        Self { retry, blocked, limited, cause: self.text().into() }
    }

    /// The same failure with the text of its cause in place of the cause.
    fn shown(self) -> Self {
        let Self { retry, blocked, limited, .. } = self;
        let mut text = self.text();
        if drop_caught(self.cause).is_err() {
            text.push_str(" (the error cannot be dropped: its Drop panicked)");
        }
        Self { retry, blocked, limited, cause: text.into() }
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

/// How one attempt ended. Exhaustive: adding a variant is a breaking change.
#[derive(Debug)]
pub enum Outcome {
    /// The handler returned, and its resources were committed.
    Done,
    /// A resource found that this group has done this event before.
    AlreadyDone,
    /// The handler returned an error.
    Failed(JobError),
    /// The entry could not be decoded as the handler's event.
    Undecodable(DecodeError),
    /// The handler panicked with this message.
    Panicked(String),
    /// The handler exceeded its timeout.
    TimedOut(Duration),
    /// The lease was lost: another attempt may be running.
    LeaseLost,
    /// A shutdown ended the attempt.
    CutOff,
    /// The job was cancelled, and the attempt did not end by itself.
    Cancelled,
}

impl Outcome {
    /// What an operator has to repair before the job can run, in words.
    pub(crate) fn blocked(&self) -> Option<String> {
        match self {
            Self::Failed(error) if error.is_blocked() => Some(error.text()),
            _ => None,
        }
    }

    /// The outcome as middleware sees it.
    pub(crate) fn into_result(self) -> Result<(), JobError> {
        let failure = match self {
            Self::Done | Self::AlreadyDone => return Ok(()),
            Self::Failed(error) => return Err(error),
            Self::Undecodable(error) => return Err(JobError::dead(RunFailure::Undecodable(error))),
            Self::Panicked(text) => RunFailure::Panicked(text),
            Self::TimedOut(timeout) => RunFailure::TimedOut(timeout),
            Self::LeaseLost => RunFailure::LeaseLost,
            Self::CutOff => RunFailure::Shutdown,
            Self::Cancelled => RunFailure::Cancelled,
        };
        Err(JobError::retry(failure))
    }

    /// The same outcome, with the text of the application's error in place of the error.
    pub(crate) fn copied(&self) -> Self {
        match self {
            Self::Done => Self::Done,
            Self::AlreadyDone => Self::AlreadyDone,
            Self::Failed(error) => Self::Failed(error.copied()),
            Self::Undecodable(error) => Self::Undecodable(DecodeError::new(error.to_string())),
            Self::Panicked(text) => Self::Panicked(text.clone()),
            Self::TimedOut(timeout) => Self::TimedOut(*timeout),
            Self::LeaseLost => Self::LeaseLost,
            Self::CutOff => Self::CutOff,
            Self::Cancelled => Self::Cancelled,
        }
    }

    /// What becomes of this outcome of a run when middleware around it returns `result`.
    ///
    /// An error replaces the outcome, unless it is the run's own failure passed on. Success never replaces a failure,
    /// and outcomes that the application may not decide are never replaced.
    pub(crate) fn replaced_by(self, result: Result<(), JobError>) -> Self {
        match (self, result) {
            (fixed @ (Self::LeaseLost | Self::CutOff | Self::Cancelled), _) => fixed,
            (outcome, Ok(())) => outcome,
            (outcome @ (Self::Panicked(_) | Self::TimedOut(_)), Err(error))
                if error.run_failure().is_some() && error.is_retry() =>
            {
                outcome
            }
            (outcome @ Self::Undecodable(_), Err(error))
                if error.run_failure().is_some() && error.is_dead() =>
            {
                outcome
            }
            (_, Err(error)) => Self::Failed(error),
        }
    }

    /// For how long no job of the group may start, because of the other side's limit.
    pub(crate) fn limits(&self) -> Option<Duration> {
        match self {
            Self::Failed(error) if error.is_limited() => match error.asks_for() {
                Retry::Later(delay) => Some(delay),
                _ => None,
            },
            _ => None,
        }
    }

    /// The outcome with the text of the application's error in place of the error. The error's own
    /// code, which may fail or panic, does not run after this.
    pub(crate) fn with_shown_error(self) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(error.shown()),
            other => other,
        }
    }
}

/// What a handler may return: `()`, or a result whose error means a retry unless it says otherwise.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "return `()` or `Result<(), E>`",
    note = "`E` is `streamjobs::JobError`, or anything that turns into a boxed error",
    note = "to keep what the handler returns for those who wait for it, add `result = \"10m\"` to `#[handler]`"
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

impl<E: HandlerError> IntoOutcome for Result<(), E> {
    fn into_outcome(self) -> Outcome {
        match self {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::Failed(error.into()),
        }
    }
}

/// What may be the error of a handler: any type that converts into a [`JobError`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a handler",
    label = "expected `JobError`, or an error that turns into one",
    note = "an error type of your own has to be a `std::error::Error + Send + Sync`: derive \
            `thiserror::Error`, or implement it by hand",
    note = "a boxed error has to be `Box<dyn std::error::Error + Send + Sync>`; `String` and `&str` are \
            errors as they are"
)]
pub trait HandlerError: Into<JobError> {}

#[diagnostic::do_not_recommend]
impl<E: Into<JobError>> HandlerError for E {}

/// The longest delay a handler can ask for.
pub(crate) const DELAY_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The longest time for which a handler can let its group wait.
pub(crate) const LIMITED_MAX: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::result_ext::ResultExt;

    fn outcome<T: IntoOutcome>(value: T) -> Outcome {
        value.into_outcome()
    }

    #[test]
    fn any_error_means_a_retry_with_backoff() {
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
    fn a_limit_of_the_other_side_is_a_snooze_of_at_most_a_day_for_the_whole_group() {
        let limited = "x".parse::<u32>().limited(Duration::MAX).unwrap_err();
        assert!(limited.is_limited() && limited.is_later() && !limited.is_blocked());
        assert_eq!(limited.asks_for(), Retry::Later(LIMITED_MAX));
        let shown = Outcome::Failed(limited).with_shown_error();
        assert_eq!(shown.limits(), Some(LIMITED_MAX));
        let later = JobError::later(Duration::from_secs(3), "x");
        assert_eq!(Outcome::Failed(later).limits(), None);
        let limited = JobError::from("x").into_limited(Duration::from_secs(3));
        assert_eq!(Outcome::Failed(limited).limits(), Some(Duration::from_secs(3)));
    }

    #[test]
    fn a_snoozed_failure_keeps_its_cause() {
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
