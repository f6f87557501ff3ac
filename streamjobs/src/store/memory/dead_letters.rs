//! Dead letters in memory.

use std::time::Duration;

use async_trait::async_trait;

use super::MemoryStore;
use super::state::{MemoryState, milliseconds};
use super::stream::Pending;
use crate::model::entry::{Entry, EntryId, Fields};
use crate::model::name::ConsumerName;
use crate::store::admin::ALIVE;
use crate::store::dead_letters::{RedriveRequest, Redriven, TakenLetters, Taker, WITHHELD};
use crate::store::types::Result;
use crate::store::unique::UniqueLock;
use crate::store::{DeadLetters, FenceResult, Hold, Inlet, Queue, StandIn, StoredDeadLetter};

#[async_trait]
impl DeadLetters for MemoryStore {
    async fn store_dead_letter(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        hold: Hold,
        stand_in: Option<StandIn>,
        letter: &Fields,
    ) -> Result<FenceResult> {
        self.step("store_dead_letter", |state| {
            state.settle(queue, consumer.as_str(), hold, stand_in, |state, _| {
                let now = state.now();
                state.count_letter(queue, hold, letter);
                state.dead(queue).append(now, letter.clone());
                if let Some(lock) = UniqueLock::of_letter(letter, &queue.group) {
                    state.free_lock(&queue.stream, &lock);
                }
            })
        })
        .await
    }

    #[cfg(feature = "testing")]
    async fn dead_letters(
        &self,
        queue: &Queue,
        after: EntryId,
        limit: usize,
    ) -> Result<Vec<StoredDeadLetter>> {
        self.step("dead_letters", |state| {
            let letters = state.dead(queue).entries.iter();
            let later = letters.filter(|(id, _)| **id > after).take(limit);
            Ok(later.map(|(id, fields)| Entry::new(*id, fields.clone())).collect())
        })
        .await
    }

    async fn dead_letter(&self, queue: &Queue, id: EntryId) -> Result<Option<StoredDeadLetter>> {
        self.step("dead_letter", |state| {
            let fields = state.dead(queue).entries.get(&id).cloned();
            Ok(fields.map(|fields| Entry::new(id, fields)))
        })
        .await
    }

    async fn redrive(&self, queue: &Queue, id: EntryId, job: &Fields) -> Result<Option<EntryId>> {
        self.step("redrive", |state| {
            if !state.dead(queue).entries.contains_key(&id) {
                return Ok(None);
            }
            state.group(queue, Inlet::STREAM)?;
            state.dead(queue).entries.remove(&id);
            Ok(Some(state.append_to_lane(queue, job)))
        })
        .await
    }

    async fn purge(&self, queue: &Queue, ids: &[EntryId]) -> Result<usize> {
        self.step("purge", |state| {
            let dead = state.dead(queue);
            Ok(ids.iter().filter(|id| dead.entries.remove(id).is_some()).count())
        })
        .await
    }

    async fn trim_dead_letters(&self, queue: &Queue, keep: u64) -> Result<u64> {
        self.step("trim_dead_letters", |state| Ok(state.dead(queue).trim_to(keep))).await
    }

    async fn take_letters(&self, queue: &Queue, by: &Taker, limit: usize) -> Result<TakenLetters> {
        self.step("take_letters", |state| Ok(take(state, queue, by, limit))).await
    }

    async fn still_taken(
        &self,
        queue: &Queue,
        by: &Taker,
        ids: &[EntryId],
    ) -> Result<Vec<EntryId>> {
        self.step("still_taken", |state| {
            let dead = state.dead(queue);
            let Some(group) = dead.groups.get(by.group_name()) else { return Ok(Vec::new()) };
            let own = |id: &EntryId| {
                let row = group.pending.get(id);
                row.is_some_and(|row| row.consumer == by.consumer().as_str())
            };
            let found = ids.iter().filter(|id| own(id) && dead.entries.contains_key(id));
            Ok(found.copied().collect())
        })
        .await
    }

    async fn settle_letters(&self, queue: &Queue, by: &Taker, ids: &[EntryId]) -> Result<usize> {
        self.step("settle_letters", |state| {
            let dead = state.dead(queue);
            let Some(group) = dead.groups.get_mut(by.group_name()) else { return Ok(0) };
            let taken = ids.iter().filter(|id| group.pending.remove(id).is_some());
            Ok(taken.filter(|id| dead.entries.remove(id).is_some()).count())
        })
        .await
    }

    async fn redrive_archived(
        &self,
        queue: &Queue,
        jobs: &[RedriveRequest],
        keep: Duration,
    ) -> Vec<Redriven> {
        let redrive = |job: &RedriveRequest| {
            self.step_now("redrive_archived", None, |state| {
                let now = state.now();
                let token = queue.redriven_key(&job.token);
                if state.tokens.get(&token).is_some_and(|until| now < *until) {
                    return Ok(None);
                }
                state.group(queue, Inlet::STREAM)?;
                state.tokens.insert(token, now.saturating_add(milliseconds(keep).max(1)));
                Ok(Some(state.append_to_lane(queue, &job.fields)))
            })
        };
        let answers = jobs.iter().map(redrive).collect();
        self.changed.notify_waiters();
        answers
    }
}

impl MemoryState {
    fn append_to_lane(&mut self, queue: &Queue, job: &Fields) -> EntryId {
        self.ensure_group(queue, Inlet::LANE, EntryId::ZERO);
        let (now, mut job) = (self.now(), job.clone());
        let last = self.last_cancel(&queue.stream);
        if last > 0 {
            job.push(("sj-redriven".into(), last.to_string().into()));
        }
        self.lane(queue).append(now, job)
    }
}

fn take(state: &mut MemoryState, queue: &Queue, by: &Taker, limit: usize) -> TakenLetters {
    let (now, lease) = (state.now(), milliseconds(by.lease_time()));
    let record = state.record(queue).clone();
    let is_alive = |consumer: &str| !record.is_gone(consumer, now, ALIVE);
    let is_withheld = |letter: &Entry| {
        let is_young = now.saturating_sub(letter.id().milliseconds()) <= milliseconds(WITHHELD);
        let is_loss = letter.text("sj-dead-reason") == Some("trimmed");
        is_loss && is_young && letter.text("sj-dead-consumer").is_some_and(is_alive)
    };
    let dead = state.dead(queue);
    let mut taken = TakenLetters::default();
    if limit == 0 || (dead.entries.is_empty() && !dead.groups.contains_key(by.group_name())) {
        return taken;
    }
    let consumer = by.consumer().as_str();
    let group = dead.groups.entry(by.group_name().to_owned()).or_default();
    let late = group.pending.iter().filter(|(_, row)| row.idle(now) >= lease).take(limit);
    let late = late.map(|(id, _)| *id).collect::<Vec<_>>();
    let (full, mut withheld) = (late.len() == limit, 0);
    for id in late {
        let Some(fields) = dead.entries.get(&id).cloned() else {
            group.pending.remove(&id);
            taken.missing += 1;
            continue;
        };
        let count = group.pending.get(&id).map_or(0, |row| row.delivery_count);
        let row = Pending { consumer: consumer.to_owned(), since: now, delivery_count: count + 1 };
        group.pending.insert(id, row);
        group.consumers.insert(consumer.to_owned());
        let letter = Entry::new(id, fields);
        if is_withheld(&letter) {
            withheld += 1;
        } else {
            taken.letters.push(letter);
        }
    }
    let rest = limit.saturating_sub(taken.letters.len());
    let fresh = dead.deliver(by.group_name(), consumer, rest, now).unwrap_or_default();
    taken.has_more = full && withheld < limit || rest > 0 && fresh.len() == rest;
    let fresh = fresh.into_iter().map(|(id, fields)| Entry::new(id, fields));
    taken.letters.extend(fresh.filter(|letter| !is_withheld(letter)));
    taken
}
