//! Results of jobs in memory.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::MemoryStore;
use super::state::{Kept, MemoryState, milliseconds};
use crate::model::name::{EventId, GroupName, StreamName};
use crate::store::results::{DEAD, DeadSign, ResultFacts, ResultKept, StoredResult};
use crate::store::types::Result;
use crate::store::{Queue, Results};

impl MemoryState {
    fn kept(&self, key: &str) -> Option<&Kept> {
        let now = self.now();
        self.results.get(key).filter(|kept| kept.expires > now)
    }

    fn is_dead(&self, key: &str) -> bool {
        self.kept(key).is_some_and(|kept| kept.json.starts_with(DEAD.as_bytes()))
    }

    /// Stores a text unless a result is stored. Returns whether it stored the text.
    fn keep(&mut self, key: String, json: Bytes, keep: Duration) -> bool {
        if self.kept(&key).is_some() && !self.is_dead(&key) {
            return false;
        }
        let expires = self.now().saturating_add(milliseconds(keep).max(1));
        self.results.insert(key, Kept { json, expires });
        true
    }
}

#[async_trait]
impl Results for MemoryStore {
    async fn keep_result(
        &self,
        queue: &Queue,
        event_id: &EventId,
        json: &Bytes,
        keep: Duration,
    ) -> Result<ResultKept> {
        self.step("keep_result", |state| {
            match state.keep(queue.result_key(event_id), json.clone(), keep) {
                true => Ok(ResultKept::Kept),
                false => Ok(ResultKept::Present),
            }
        })
        .await
    }

    async fn sign_dead(
        &self,
        queue: &Queue,
        event_id: &EventId,
        sign: &DeadSign<'_>,
        keep: Duration,
    ) -> Result<()> {
        self.step("sign_dead", |state| {
            state.keep(queue.result_key(event_id), sign.text().into(), keep);
            Ok(())
        })
        .await
    }

    async fn unsign_dead(&self, queue: &Queue, event_id: &EventId) -> Result<()> {
        self.step("unsign_dead", |state| {
            let key = queue.result_key(event_id);
            if state.is_dead(&key) {
                state.results.remove(&key);
            }
            Ok(())
        })
        .await
    }

    async fn result(&self, queue: &Queue, event_id: &EventId) -> Result<Option<StoredResult>> {
        self.step("result", |state| {
            let kept = state.kept(&queue.result_key(event_id));
            Ok(kept.map(|kept| StoredResult::of(kept.json.clone())))
        })
        .await
    }

    async fn result_facts(
        &self,
        stream: &StreamName,
        groups: &[GroupName],
        event_id: &EventId,
    ) -> Result<Vec<Option<ResultFacts>>> {
        self.step("result_facts", |state| {
            let now = state.now();
            let facts = |group: &GroupName| {
                let key = stream.result_key(group, event_id);
                let kept = state.kept(&key).filter(|_| !state.is_dead(&key))?;
                let rest = Duration::from_millis(kept.expires.saturating_sub(now));
                Some(ResultFacts { bytes: Some(kept.json.len() as u64), rest })
            };
            Ok(groups.iter().map(facts).collect())
        })
        .await
    }
}
