//! What keeps a group running in memory.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;

use super::MemoryStore;
use super::state::{MemoryState, milliseconds};
use super::stream::Stream;
use crate::model::config::Start;
use crate::model::entry::EntryId;
use crate::model::name::ConsumerName;
use crate::store::types::Result;
use crate::store::{GroupUpkeep, Inlet, Promoted, Queue, Recorded, ServerTime};

#[async_trait]
impl GroupUpkeep for MemoryStore {
    async fn prepare(&self, queue: &Queue, start: Start) -> Result<bool> {
        self.step("prepare", |state| Ok(state.ensure_groups(queue, start).0)).await
    }

    async fn recreate(&self, queue: &Queue) -> Result<bool> {
        self.step("recreate", |state| {
            let (stream, lane) = state.ensure_groups(queue, Start::Beginning);
            Ok(stream || lane)
        })
        .await
    }

    async fn promote(&self, queue: &Queue, limit: usize) -> Result<Promoted> {
        self.step("promote", |state| {
            let now = state.now();
            state.ensure_group(queue, Inlet::LANE, EntryId::ZERO);
            let paused = state.record(queue).paused.is_some();
            let limit = if paused { 0 } else { limit };
            let due = state.retries(queue).range(..=(now, u64::MAX)).take(limit);
            let due = due.map(|(key, _)| *key).collect::<Vec<_>>();
            for key in &due {
                if let Some(job) = state.retries(queue).remove(key) {
                    state.lane(queue).append(now, job.fields);
                }
            }
            let next_due = state.retries(queue).keys().next();
            let next_due = next_due.map(|(due, _)| Duration::from_millis(due.saturating_sub(now)));
            let lane_pending = state.group(queue, Inlet::LANE)?.pending.len();
            Ok(Promoted {
                promoted: due.len(),
                waiting: state.lane(queue).entries.len().saturating_sub(lane_pending),
                pending: state.groups(queue).map(|group| group.pending.len()).sum(),
                next_due: next_due.filter(|_| !paused),
                released: state.record(queue).released,
                left: 0,
                paused,
                now: ServerTime(now),
            })
        })
        .await
    }

    async fn heartbeat(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        about: &str,
    ) -> Result<Recorded> {
        self.step("heartbeat", |state| {
            let now = state.now();
            state.group(queue, Inlet::STREAM)?;
            let trimmed_unread = count_trimmed(state.stream(queue.stream.as_str()), queue);
            let group = state.group(queue, Inlet::STREAM)?;
            let floor = match group.pending.keys().next() {
                Some(id) => id.previous().unwrap_or(EntryId::ZERO),
                None => group.delivered,
            };
            let record = state.record(queue);
            record.floor = Some(floor);
            record.trimmed_unread += trimmed_unread;
            record.heartbeats.insert(consumer.as_str().to_owned(), now);
            record.about.insert(consumer.as_str().to_owned(), about.to_owned());
            Ok(Recorded { floor, trimmed_unread })
        })
        .await
    }

    async fn retire(&self, queue: &Queue, consumer: &ConsumerName) -> Result<bool> {
        self.step("retire", |state| Ok(retire(state, queue, consumer.as_str()))).await
    }

    async fn retire_dead(&self, queue: &Queue, silence: Duration) -> Result<usize> {
        self.step("retire_dead", |state| {
            let now = state.now();
            let consumers = state.groups(queue).flat_map(|group| &group.consumers);
            let consumers = consumers.cloned().collect::<BTreeSet<_>>();
            let mut retired = 0;
            for consumer in consumers {
                let heartbeats = &mut state.record(queue).heartbeats;
                let heartbeat = *heartbeats.entry(consumer.clone()).or_insert(now);
                let is_silent = now.saturating_sub(heartbeat) > milliseconds(silence);
                if is_silent && retire(state, queue, &consumer) {
                    retired += 1;
                }
            }
            Ok(retired)
        })
        .await
    }
}

impl MemoryState {
    /// Creates the group in every inlet unless it exists: whether it was created in the stream, and in
    /// the lane.
    fn ensure_groups(&mut self, queue: &Queue, start: Start) -> (bool, bool) {
        let last = self.stream(queue.stream.as_str()).last;
        let from = match (self.record(queue).floor, start) {
            // A floor beyond the end belongs to a stream that was deleted.
            (Some(floor), _) if floor > last => EntryId::ZERO,
            (Some(floor), _) => floor,
            (None, Start::Beginning) => EntryId::ZERO,
            (None, Start::End) => last,
            (None, Start::After(id)) => id,
        };
        let created = self.ensure_group(queue, Inlet::STREAM, from);
        if created {
            self.record(queue).floor = Some(from);
        }
        (created, self.ensure_group(queue, Inlet::LANE, EntryId::ZERO))
    }
}

/// Entries that were removed before their delivery, each counted once.
fn count_trimmed(stream: &mut Stream, queue: &Queue) -> u64 {
    let removed = stream.removed();
    let Some(group) = stream.groups.get_mut(queue.group.as_str()) else { return 0 };
    match group.read {
        Some(read) if removed > read => {
            group.read = Some(removed);
            removed - read
        }
        _ => 0,
    }
}

fn retire(state: &mut MemoryState, queue: &Queue, consumer: &str) -> bool {
    let rows = || state.groups(queue).flat_map(|group| group.pending.values());
    if rows().any(|row| row.consumer == consumer) {
        return false;
    }
    for inlet in Inlet::ALL {
        if let Ok(group) = state.group(queue, inlet) {
            group.consumers.remove(consumer);
        }
    }
    state.record(queue).heartbeats.remove(consumer);
    state.record(queue).about.remove(consumer);
    true
}
