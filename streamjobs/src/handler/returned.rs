//! What a handler with the option `result` returns, until its attempt is over.

use std::fmt;
use std::sync::OnceLock;

use bytes::Bytes;
use serde::Serialize;

use crate::model::event::encode_result;
use crate::model::outcome::{HandlerError, JobError, Outcome};

/// What a handler with the option `result` may return: a result whose value serde can serialize.
#[diagnostic::on_unimplemented(
    message = "a handler with the option `result` cannot return `{Self}`",
    label = "return `Result<T, E>`, where `T` is the result",
    note = "`E` is `streamjobs::JobError`, or anything that turns into a boxed error; `T` is any type with \
            serde's `Serialize`"
)]
pub trait IntoResult {
    /// The result as JSON.
    ///
    /// # Errors
    ///
    /// The outcome of an attempt without a result: its handler failed, or the value cannot be encoded or is larger
    /// than `bytes_max`, which a retry would not change.
    fn into_result(self, bytes_max: usize) -> Result<Bytes, Outcome>;
}

impl<T: Serialize, E: HandlerError> IntoResult for Result<T, E> {
    fn into_result(self, bytes_max: usize) -> Result<Bytes, Outcome> {
        let value = self.map_err(|error| Outcome::Failed(error.into()))?;
        let dead = |cause: String| Outcome::Failed(JobError::dead(cause));
        let json = encode_result(&value).map_err(|error| {
            dead(format!("the result of the handler cannot be encoded: {}", error.source))
        })?;
        match json.len() > bytes_max {
            true => Err(dead(format!(
                "the result of the handler has {} bytes, more than the limit of {bytes_max}",
                json.len()
            ))),
            false => Ok(json),
        }
    }
}

/// Where the run of a job leaves what its handler returned. `Debug` does not show it.
#[derive(Default)]
pub(crate) struct Returned(OnceLock<Bytes>);

impl Returned {
    /// Leaves the result. An attempt has one run, so nothing was left before.
    pub(super) fn leave(&self, json: Bytes) {
        let _full = self.0.set(json).is_err();
    }

    /// What was returned, if a run has got that far.
    pub(crate) fn json(&self) -> Option<&Bytes> {
        self.0.get()
    }
}

impl fmt::Debug for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Returned").field("bytes", &self.0.get().map(Bytes::len)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(returned: Result<Bytes, Outcome>) -> JobError {
        match returned {
            Err(Outcome::Failed(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_cannot_be_kept_makes_a_dead_letter_that_says_why() {
        let kept = Ok::<_, JobError>("a price").into_result(9);
        assert_eq!(kept.unwrap(), "\"a price\"");
        let large = failure(Ok::<_, JobError>("a price").into_result(8));
        assert!(large.is_dead());
        let text = "the result of the handler has 9 bytes, more than the limit of 8";
        assert_eq!(large.to_string(), text);
        let infinite = failure(Ok::<_, JobError>(f64::INFINITY).into_result(100));
        assert!(infinite.is_dead() && infinite.to_string().contains("cannot be encoded"));
        let error = failure(Err::<u8, _>("busy").into_result(100));
        assert!(error.is_retry(), "an error of the handler keeps its meaning");
    }
}
