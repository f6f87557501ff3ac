//! Methods of a result that say what its error means for the job.

use std::time::Duration;

use crate::model::cause::BoxError;
use crate::model::outcome::JobError;

/// Gives the error of a result its meaning for the job.
///
/// An `Option` has no error: first say what is missing, as in `.ok_or("no address")`.
///
/// ```
/// use std::time::Duration;
/// use streamjobs::{JobError, ResultExt};
///
/// fn address(of: Option<&str>) -> Result<u32, JobError> {
///     let text = of.ok_or("no address").dead()?;                              // no retry
///     let number = text.parse::<u32>().retry_after(Duration::from_secs(60))?; // in a minute
///     Ok(number)
/// }
/// # assert!(address(None).is_err_and(|error| error.is_dead()));
/// ```
pub trait ResultExt<T> {
    /// Makes the error permanent: the job becomes a dead letter at once.
    ///
    /// # Errors
    ///
    /// The error of the result, with this meaning.
    fn dead(self) -> Result<T, JobError>;

    /// Sets the delay after which the job is retried.
    ///
    /// # Errors
    ///
    /// The error of the result, with this meaning.
    fn retry_after(self, delay: Duration) -> Result<T, JobError>;

    /// Snoozes the job for this delay; see [`JobError::later`].
    ///
    /// # Errors
    ///
    /// The error of the result, with this meaning.
    fn later(self, delay: Duration) -> Result<T, JobError>;

    /// Snoozes the job for this delay, and lets its whole group wait as long; see [`JobError::limited`].
    ///
    /// # Errors
    ///
    /// The error of the result, with this meaning.
    fn limited(self, delay: Duration) -> Result<T, JobError>;
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

    fn limited(self, delay: Duration) -> Result<T, JobError> {
        self.map_err(|cause| JobError::limited(delay, cause))
    }
}

/// Makes the compiler say what to write instead of `option.dead()`. No type implements [`ResultAfterOkOr`].
#[doc(hidden)]
impl<T> ResultExt<T> for Option<T>
where
    Self: ResultAfterOkOr<T>,
{
    fn dead(self) -> Result<T, JobError> {
        self.into_result().dead()
    }

    fn retry_after(self, delay: Duration) -> Result<T, JobError> {
        self.into_result().retry_after(delay)
    }

    fn later(self, delay: Duration) -> Result<T, JobError> {
        self.into_result().later(delay)
    }

    fn limited(self, delay: Duration) -> Result<T, JobError> {
        self.into_result().limited(delay)
    }
}

/// A value with an error that can be given a meaning, which an `Option` is not. Where the compiler does not show the
/// message, it shows the name of this trait.
#[diagnostic::on_unimplemented(
    message = "an `Option` has no error that could be given a meaning",
    label = "write `.ok_or(\"what is missing\")` before this",
    note = "`dead`, `retry_after`, `later` and `limited` say what the error of a `Result` means for the job"
)]
pub trait ResultAfterOkOr<T> {
    /// The value, or the error.
    ///
    /// # Errors
    ///
    /// The error.
    fn into_result(self) -> Result<T, BoxError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::outcome::{DELAY_MAX, Retry};

    #[test]
    fn extensions_give_dead_retry_after_and_later() {
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
}
