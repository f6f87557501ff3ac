//! Locks of unique events in memory.

use std::time::Duration;

use async_trait::async_trait;

use super::MemoryStore;
use super::state::{Lock, MemoryState, milliseconds};
use crate::model::config::Retention;
use crate::model::name::{EventId, StreamName};
use crate::store::Queue;
use crate::store::types::Result;
use crate::store::unique::{
    NewUnique, UniqueAck, UniqueAppend, UniqueDigest, UniqueHolder, UniqueLock, UniqueLocks,
};

impl MemoryState {
    fn holder(&mut self, key: &str) -> Option<UniqueHolder> {
        let now = self.now();
        let lock = self.locks.get(key).filter(|lock| lock.expires > now)?;
        Some(UniqueHolder {
            event_id: lock.event_id.clone(),
            entry_id: lock.entry_id,
            rest: Duration::from_millis(lock.expires - now),
        })
    }

    /// Ends a lock, if it belongs to this event.
    pub(super) fn free_lock(&mut self, stream: &StreamName, lock: &UniqueLock) {
        let key = stream.unique_key(lock.digest.as_str());
        if self.holder(&key).is_some_and(|holder| holder.event_id == lock.event_id) {
            self.locks.remove(&key);
        }
    }
}

#[async_trait]
impl UniqueLocks for MemoryStore {
    async fn publish_unique(
        &self,
        stream: &StreamName,
        retention: Retention,
        event: NewUnique,
    ) -> Result<UniqueAppend> {
        self.step("publish_unique", |state| {
            let key = stream.unique_key(event.digest.as_str());
            if let Some(holder) = state.holder(&key) {
                return Ok(UniqueAppend::Stands(holder));
            }
            let entry_id = state.append(stream.as_str(), retention, event.fields);
            let expires = state.now().saturating_add(milliseconds(event.window).max(1));
            state.locks.insert(key, Lock { event_id: event.id, entry_id, expires });
            Ok(UniqueAppend::Appended(entry_id))
        })
        .await
    }

    async fn acknowledge_unique(&self, queue: &Queue, acks: &[UniqueAck]) -> Vec<Result<bool>> {
        let mut answers = Vec::with_capacity(acks.len());
        for ack in acks {
            let step = |state: &mut MemoryState| {
                let was_pending = state.acknowledge_done(queue, ack.inlet, ack.id);
                let still_pending = state.group(queue, ack.inlet);
                if !still_pending.is_ok_and(|group| group.pending.contains_key(&ack.id)) {
                    state.free_lock(&queue.stream, &ack.lock);
                }
                Ok(was_pending)
            };
            answers.push(self.step("acknowledge_unique", step).await);
        }
        answers
    }

    async fn unique_holder(
        &self,
        stream: &StreamName,
        digest: &UniqueDigest,
    ) -> Result<Option<UniqueHolder>> {
        let key = stream.unique_key(digest.as_str());
        self.step("unique_holder", |state| Ok(state.holder(&key))).await
    }

    async fn release_unique(
        &self,
        stream: &StreamName,
        digest: &UniqueDigest,
        of: Option<&EventId>,
    ) -> Result<Option<UniqueHolder>> {
        let key = stream.unique_key(digest.as_str());
        self.step("release_unique", |state| {
            let holder = state.holder(&key);
            let released = holder.filter(|holder| of.is_none_or(|of| *of == holder.event_id));
            if released.is_some() {
                state.locks.remove(&key);
            }
            Ok(released)
        })
        .await
    }
}
