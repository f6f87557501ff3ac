//! What a consumer does with entries in memory.

use std::time::Duration;

use async_trait::async_trait;

use super::MemoryStore;
use super::reader::MemoryReader;
use super::state::{MemoryState, milliseconds};
use super::stream::Pending;
use crate::model::entry::EntryId;
use crate::model::name::ConsumerName;
use crate::store::types::{RELEASED, Result, released_for};
use crate::store::{
    ClaimedPage, Consume, Delivery, FenceResult, Hold, Idle, IdleClaim, Inlet, NewRetry, Queue,
    ReaderSetup, Renewed, ServerTime, StandIn, StreamReader,
};

#[async_trait]
impl Consume for MemoryStore {
    async fn reader(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        setup: ReaderSetup,
    ) -> Result<Box<dyn StreamReader>> {
        let number = self.step_now("reader", None, |state| {
            state.readers += 1;
            Ok(state.readers)
        })?;
        let (store, queue, consumer) = (self.clone(), queue.clone(), consumer.clone());
        Ok(Box::new(MemoryReader { store, queue, consumer, number, margin: setup.margin }))
    }

    async fn wake(&self, reader: u64) -> Result<()> {
        self.step("wake", |state| {
            state.woken.insert(reader);
            Ok(())
        })
        .await
    }

    async fn acknowledge(&self, queue: &Queue, acks: &[(Inlet, EntryId)]) -> Result<usize> {
        self.step("acknowledge", |state| Ok(state.acknowledge_all(queue, acks))).await
    }

    async fn acknowledge_late(
        &self,
        queue: &Queue,
        consumer: Option<&ConsumerName>,
        acks: &[(Inlet, EntryId)],
    ) -> Result<usize> {
        self.step("acknowledge_late", |state| Ok(state.acknowledge_late(queue, consumer, acks)))
            .await
    }

    async fn renew(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        holds: &[Hold],
    ) -> Result<Renewed> {
        self.step("renew", |state| {
            let now = state.now();
            let answers = state.change_owned(queue, consumer, holds, |row| row.since = now)?;
            state.note_runs(queue, consumer.as_str(), holds, &answers);
            let moves = state.record(queue).moves;
            Ok(Renewed { now: ServerTime(now), moves, answers })
        })
        .await
    }

    async fn release(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        holds: &[Hold],
    ) -> Result<Vec<FenceResult>> {
        self.step("release", |state| {
            let now = state.now();
            let answers = state.change_owned(queue, consumer, holds, |row| {
                row.pass_to(RELEASED.to_owned(), now);
            })?;
            let released = answers.iter().filter(|answer| **answer == FenceResult::Owned).count();
            state.record(queue).released += u64::try_from(released).unwrap_or(u64::MAX);
            Ok(answers)
        })
        .await
    }

    async fn schedule_retries(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        retries: &[NewRetry],
    ) -> Vec<Result<FenceResult>> {
        let answers = self.step("schedule_retries", |state| {
            let mut jobs = retries.iter().enumerate().collect::<Vec<_>>();
            jobs.sort_by_key(|(_, retry)| retry.hold.id);
            // A fault of this name affects a single job.
            let one = |(place, retry)| {
                let schedule = || state.settle_with_retry(queue, consumer, retry);
                (place, self.faults.apply("schedule_retry", None, schedule))
            };
            let mut answers = jobs.into_iter().map(one).collect::<Vec<_>>();
            answers.sort_by_key(|(place, _)| *place);
            Ok(answers.into_iter().map(|(_, answer)| answer).collect())
        });
        match answers.await {
            Ok(answers) => answers,
            Err(error) => retries.iter().map(|_| Err(error.copy())).collect(),
        }
    }

    async fn has_idle(
        &self,
        queue: &Queue,
        inlet: Inlet,
        lease: Duration,
        valid: Duration,
    ) -> Result<Idle> {
        self.step("has_idle", |state| {
            let (now, lease) = (state.now(), milliseconds(lease));
            let scan = state.record(queue).scans.get(&inlet).filter(|(_, of)| *of <= lease);
            let ago = scan.and_then(|(at, _)| now.checked_sub(*at)).map(Duration::from_millis);
            if let Some(ago) = ago.filter(|ago| *ago < valid) {
                return Ok(Idle::NotFound { ago });
            }
            let lease_of = state.leases(queue, lease, None);
            let mut rows = state.group(queue, inlet)?.pending.values();
            if rows.any(|row| row.idle(now) >= lease_of(&row.consumer)) {
                return Ok(Idle::Found);
            }
            state.record(queue).scans.insert(inlet, (now, lease));
            Ok(Idle::NotFound { ago: Duration::ZERO })
        })
        .await
    }

    async fn claim_idle(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        claim: IdleClaim<'_>,
    ) -> Result<ClaimedPage> {
        self.step("claim_idle", |state| {
            let (now, inlet) = (state.now(), claim.inlet);
            if let Some((ServerTime(expected), tolerance)) = claim.expected
                && now.abs_diff(expected) > milliseconds(tolerance)
            {
                return Ok(ClaimedPage::ClockOff { now: ServerTime(now) });
            }
            let lease_of = state.leases(queue, milliseconds(claim.lease), Some(consumer));
            let rows = state.group(queue, inlet)?.pending.iter();
            let rows = rows.filter(|(id, _)| **id > claim.cursor).take(ROWS_MAX);
            let rows = rows.map(|(id, row)| (*id, row.clone())).collect::<Vec<_>>();
            let (mut claimed, mut trimmed, mut released) = (Vec::<Delivery>::new(), 0, 0);
            let (mut cursor, mut ended) = (EntryId::ZERO, rows.len() < ROWS_MAX);
            let mut chosen = Vec::new();
            for (id, row) in rows {
                if chosen.len() >= claim.limit {
                    ended = false;
                    break;
                }
                cursor = id;
                if row.idle(now) >= lease_of(&row.consumer) && !claim.skip.contains(&id) {
                    chosen.push((id, row));
                }
            }
            for (id, row) in in_commands(chosen) {
                match state.payload(queue, inlet, id)? {
                    Ok(fields) => {
                        let hold = Hold { inlet, id, delivery_count: row.delivery_count };
                        released += usize::from(released_for(&row.consumer).is_some());
                        claimed.push(state.redeliver(queue, hold, fields, |row| {
                            row.since = now;
                            row.delivery_count += 1;
                            consumer.as_str().clone_into(&mut row.consumer);
                        })?);
                    }
                    Err(_letter) => trimmed += 1,
                }
            }
            claimed.sort_by_key(|delivery| delivery.entry.id());
            let group = state.group(queue, inlet)?;
            group.consumers.retain(|name| {
                released_for(name).is_none()
                    || group.pending.values().any(|row| row.consumer == *name)
            });
            let cursor = if ended { EntryId::ZERO } else { cursor.max(claim.cursor) };
            Ok(ClaimedPage::Page { cursor, claimed, trimmed, left: 0, released })
        })
        .await
    }

    async fn own_pending(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        inlet: Inlet,
        cursor: EntryId,
        limit: usize,
    ) -> Result<Vec<Hold>> {
        self.step("own_pending", |state| {
            let rows = state.group(queue, inlet)?.pending.iter();
            let own = rows.filter(|(id, row)| **id > cursor && row.consumer == consumer.as_str());
            let holds = own.map(|(id, row)| {
                let delivery_count = row.delivery_count;
                Hold { inlet, id: *id, delivery_count }
            });
            Ok(holds.take(limit).collect())
        })
        .await
    }

    async fn recover(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        holds: &[Hold],
    ) -> Result<Vec<Delivery>> {
        self.step("recover", |state| {
            let now = state.now();
            let mut deliveries = Vec::new();
            for hold in holds {
                if state.check(queue, consumer.as_str(), *hold)? != FenceResult::Owned {
                    continue;
                }
                if let Ok(fields) = state.payload(queue, hold.inlet, hold.id)? {
                    deliveries.push(state.redeliver(queue, *hold, fields, |row| row.since = now)?);
                }
            }
            Ok(deliveries)
        })
        .await
    }
}

impl MemoryState {
    fn settle_with_retry(
        &mut self,
        queue: &Queue,
        consumer: &ConsumerName,
        retry: &NewRetry,
    ) -> Result<FenceResult> {
        let NewRetry { hold, stand_in, delay, job } = retry;
        self.settle(queue, consumer.as_str(), *hold, *stand_in, |state, checked| {
            let due = state.now().saturating_add(milliseconds(*delay));
            let of = if hold.inlet.is_lane() { 'l' } else { 's' };
            let mut name = format!("{of}:{}", hold.id);
            let removed = checked == FenceResult::NotPending && *stand_in == Some(StandIn::Removed);
            if removed && state.has_retry(queue, &name) {
                return;
            }
            state.count_retry(queue, retry);
            while state.has_retry(queue, &name) {
                name.push('+');
            }
            state.schedule_retry(queue, due, &name, job.clone());
        })
    }
}

/// Rows in the order of a server's commands: one for all entries that had the same owner and count, in the order of the
/// first entry of each.
fn in_commands(mut chosen: Vec<(EntryId, Pending)>) -> Vec<(EntryId, Pending)> {
    let of = |row: &Pending| (row.consumer.clone(), row.delivery_count);
    let firsts = chosen.iter().map(|(_, row)| of(row)).collect::<Vec<_>>();
    chosen.sort_by_cached_key(|(_, row)| firsts.iter().position(|first| *first == of(row)));
    chosen
}

/// How many rows of the pending list one claim scans.
const ROWS_MAX: usize = 1_000;
