//! Results: what the handlers of a group returned, kept for a while beside the stream.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::types::{Queue, Result};
use crate::model::name::{EventId, GroupName, StreamName};

/// What a step that keeps a result has found. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultKept {
    /// The result is kept now.
    Kept,
    /// A result of an earlier run is kept, and stays.
    Present,
    /// The server is out of memory: a sign is kept in place of the result.
    NoMemory,
}

/// What is kept of a job. `Debug` shows no result.
#[derive(Clone, PartialEq, Eq)]
pub enum StoredResult {
    /// The result, as JSON.
    Json(Bytes),
    /// A sign that the job is done, and that its result could not be kept.
    NotKept,
    /// A sign that the job is a dead letter.
    Dead {
        /// The reason, as a word.
        reason: String,
        /// The last error, or the beginning of it.
        error: Option<String>,
    },
}

/// Why a job is a dead letter.
#[derive(Clone, Copy, Debug)]
pub struct DeadSign<'a> {
    /// The reason, as a word.
    pub reason: &'a str,
    /// The last error; its beginning is kept.
    pub error: Option<&'a str>,
}

impl DeadSign<'_> {
    /// The sign as it is stored.
    pub(crate) fn text(&self) -> String {
        let error = self.error.map(|error| {
            let end =
                (0..=ERROR_BYTES_MAX.min(error.len())).rfind(|end| error.is_char_boundary(*end));
            error.get(..end.unwrap_or(0)).unwrap_or_default()
        });
        match error {
            Some(error) => format!("{DEAD}{}\n{error}", self.reason),
            None => format!("{DEAD}{}", self.reason),
        }
    }
}

/// How large a result is, and for how long it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResultFacts {
    /// Its length; `None` if only a sign is kept, which says that the result could not be kept.
    pub bytes: Option<u64>,
    /// For how much longer it is kept, by the server's clock.
    pub rest: Duration,
}

/// Results of jobs, stored by group and event id.
#[async_trait]
pub trait Results: Send + Sync {
    /// Keeps the result of a job that is done, unless one is kept already: the first one stays. A result replaces a
    /// sign which says that an earlier result could not be kept. A repetition changes nothing.
    async fn keep_result(
        &self,
        queue: &Queue,
        event_id: &EventId,
        json: &Bytes,
        keep: Duration,
    ) -> Result<ResultKept>;

    /// Keeps a sign that the job is a dead letter, unless a result is kept. A repetition changes nothing.
    async fn sign_dead(
        &self,
        queue: &Queue,
        event_id: &EventId,
        sign: &DeadSign<'_>,
        keep: Duration,
    ) -> Result<()>;

    /// Removes the sign of a dead letter, because the job runs again.
    async fn unsign_dead(&self, queue: &Queue, event_id: &EventId) -> Result<()>;

    /// What is kept of a job; `None` if nothing is kept, or no longer.
    async fn result(&self, queue: &Queue, event_id: &EventId) -> Result<Option<StoredResult>>;

    /// What is kept for each of these groups, without the results themselves.
    async fn result_facts(
        &self,
        stream: &StreamName,
        groups: &[GroupName],
        event_id: &EventId,
    ) -> Result<Vec<Option<ResultFacts>>>;
}

impl StoredResult {
    /// What a stored text means. No JSON text begins like the sign.
    pub(crate) fn of(text: Bytes) -> Self {
        if let Some(sign) = text.strip_prefix(DEAD.as_bytes()) {
            let sign = String::from_utf8_lossy(sign);
            let (reason, error) = match sign.split_once('\n') {
                Some((reason, error)) => (reason, Some(error.to_owned())),
                None => (&*sign, None),
            };
            return Self::Dead { reason: reason.to_owned(), error };
        }
        match text.starts_with(b"!") {
            true => Self::NotKept,
            false => Self::Json(text),
        }
    }
}

impl std::fmt::Debug for StoredResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Json(json) => write!(f, "Json({} bytes)", json.len()),
            Self::NotKept => f.write_str("NotKept"),
            Self::Dead { reason, .. } => write!(f, "Dead({reason})"),
        }
    }
}

/// What the sign of a dead letter begins with.
pub(crate) const DEAD: &str = "!dead ";
const ERROR_BYTES_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sign_of_a_dead_letter_is_read_as_it_was_written_and_its_error_is_cut() {
        let read = |sign: DeadSign<'_>| StoredResult::of(sign.text().into());
        let dead = |error: Option<String>| StoredResult::Dead { reason: "exhausted".into(), error };
        let sign = |error| DeadSign { reason: "exhausted", error };
        assert_eq!(read(sign(None)), dead(None));
        assert_eq!(read(sign(Some("no\nprice"))), dead(Some("no\nprice".into())));
        let long = "ä".repeat(1_000);
        assert_eq!(read(sign(Some(&long))), dead(Some("ä".repeat(500))));
    }
}
