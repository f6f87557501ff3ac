//! Results: what the handlers of a group returned, kept for a while beside the stream.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::types::{Queue, Result};
use crate::model::name::{EventId, GroupName, StreamName};

/// What a step that keeps a result found. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultKept {
    /// It is kept.
    Kept,
    /// One of an earlier run is kept, and stays.
    Present,
    /// The server is out of memory: a sign is kept in its place.
    NoMemory,
}

/// What is kept of a job. `Debug` shows no result.
#[derive(Clone, PartialEq, Eq)]
pub enum StoredResult {
    /// The result, as JSON.
    Json(Bytes),
    /// A sign that the job is done, and that its result could not be kept.
    NotKept,
}

/// How large a result is, and for how long it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResultFacts {
    /// Its length; `None` of a sign that it could not be kept.
    pub bytes: Option<u64>,
    /// For how long, by the server's clock.
    pub rest: Duration,
}

/// Results of jobs, each by the group and the event id.
#[async_trait]
pub trait Results: Send + Sync {
    /// Keeps the result of a job that is done, unless one is kept already: the first one stays. A sign that
    /// one could not be kept gives way to a result. A repetition changes nothing.
    async fn keep_result(
        &self,
        queue: &Queue,
        event_id: &EventId,
        json: &Bytes,
        keep: Duration,
    ) -> Result<ResultKept>;

    /// What is kept of a job; `None` if nothing is, or not any more.
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
    /// What a stored text means. No JSON begins as the sign does.
    pub(crate) fn of(text: Bytes) -> Self {
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
        }
    }
}
