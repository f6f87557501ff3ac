//! Results of jobs in memory.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::MemoryStore;
use super::state::{Kept, MemoryState, milliseconds};
use crate::model::name::{EventId, GroupName, StreamName};
use crate::store::results::{ResultFacts, ResultKept, StoredResult};
use crate::store::types::Result;
use crate::store::{Queue, Results};

impl MemoryState {
    fn kept(&self, key: &str) -> Option<&Kept> {
        let now = self.now();
        self.results.get(key).filter(|kept| kept.expires > now)
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
            let key = queue.result_key(event_id);
            if state.kept(&key).is_some() {
                return Ok(ResultKept::Present);
            }
            let expires = state.now().saturating_add(milliseconds(keep).max(1));
            state.results.insert(key, Kept { json: json.clone(), expires });
            Ok(ResultKept::Kept)
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
                let kept = state.kept(&stream.result_key(group, event_id))?;
                let rest = Duration::from_millis(kept.expires.saturating_sub(now));
                Some(ResultFacts { bytes: Some(kept.json.len() as u64), rest })
            };
            Ok(groups.iter().map(facts).collect())
        })
        .await
    }
}
