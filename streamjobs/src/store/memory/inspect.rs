//! Reading the state of streams in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};

use super::MemoryStore;
use super::state::{MemoryState, milliseconds};
use super::stream::{Pending, count};
use crate::model::attempts::{AttemptHistory, HISTORY};
use crate::model::entry::{Entry, EntryId, Fields};
use crate::model::name::StreamName;
use crate::model::preview::EntryPreview;
use crate::model::record::LAST_ATTEMPT;
use crate::store::inspect::{
    ConsumerFacts, Consumers, Counted, GroupFacts, JobPlace, NEW_FOR, OldestUnfinished,
    PendingEntry, PendingFilter, PreviewOf, Previews, Retries, RetriesFrom, RetryFacts, Span,
    StreamEnds, StreamInfo, StreamSizes, TailReader,
};
use crate::store::types::{Result, released_for};
use crate::store::{Inlet, Inspect, Queue, ServerTime, StoreError};

#[async_trait]
impl Inspect for MemoryStore {
    async fn stream_info(&self, stream: &StreamName) -> Result<Option<StreamInfo>> {
        self.step("stream_info", |state| {
            Ok(state.streams.get(stream.as_str()).map(|stream| StreamInfo {
                length: count(stream.entries.len()),
                first: stream.entries.keys().next().copied(),
                last: stream.entries.keys().next_back().copied(),
                last_id: stream.last,
                added: stream.added,
                bytes: None,
                groups: count(stream.groups.len()),
            }))
        })
        .await
    }

    async fn stream_sizes(&self, stream: &StreamName) -> Result<Option<StreamSizes>> {
        self.step("stream_sizes", |state| {
            Ok(state.streams.get(stream.as_str()).map(|stream| StreamSizes {
                length: count(stream.entries.len()),
                added: stream.added,
                bytes: None,
                groups: count(stream.groups.len()),
            }))
        })
        .await
    }

    async fn group_names(&self, stream: &StreamName) -> Result<Vec<String>> {
        self.step("group_names", |state| {
            let streams = state.streams.get(stream.as_str()).into_iter();
            let mut names =
                streams.flat_map(|stream| stream.groups.keys().cloned()).collect::<Vec<_>>();
            names.sort_unstable();
            Ok(names)
        })
        .await
    }

    async fn group_facts(&self, queue: &Queue) -> Result<GroupFacts> {
        self.step("group_facts", |state| group_facts(state, queue)).await
    }

    async fn oldest_unfinished(&self, queue: &Queue) -> Result<OldestUnfinished> {
        self.step("oldest_unfinished", |state| {
            let group = state.group(queue, Inlet::STREAM)?;
            let (pending, cursor) = (group.pending.keys().next().copied(), group.delivered);
            let next = state.stream(queue.stream.as_str()).after(cursor).next();
            let origin = |id: EntryId, fields: &Fields| {
                let origin = Entry::new(id, fields.clone()).text("sj-origin")?.parse().ok();
                Some(origin.unwrap_or(id))
            };
            let lane = state.lane(queue).entries.iter();
            let lane = lane.map(|(id, fields)| origin(*id, fields).unwrap_or(*id)).min();
            let retries = state.retries(queue).values();
            let retries = retries.filter_map(|job| origin(EntryId::MAX, &job.fields)).min();
            let lines = state.limit(queue).lines.values().flatten();
            let lines = lines.filter_map(|job| origin(EntryId::MAX, job)).min();
            let published = [pending, next, lane, retries, lines].into_iter().flatten().min();
            Ok(OldestUnfinished { published, complete: true })
        })
        .await
    }

    async fn count_after(
        &self,
        stream: &StreamName,
        after: EntryId,
        limit: usize,
    ) -> Result<Counted> {
        self.step("count_after", |state| {
            let stream = state.streams.get(stream.as_str());
            let later = stream.map_or(0, |stream| stream.after(after).take(limit + 1).count());
            Ok(Counted { entries: count(later.min(limit)), complete: later <= limit })
        })
        .await
    }

    async fn consumers(&self, queue: &Queue) -> Result<Consumers> {
        self.step("consumers", |state| {
            let now = state.now();
            state.group(queue, Inlet::STREAM)?;
            let mut pending = BTreeMap::<String, usize>::new();
            for group in state.groups(queue) {
                for name in group.consumers.iter().filter(|name| released_for(name).is_none()) {
                    let own = group.pending.values().filter(|row| row.consumer == *name);
                    *pending.entry(name.clone()).or_default() += own.count();
                }
            }
            let record = state.record(queue);
            // A process sends heartbeats before its first read.
            for name in record.about.keys().filter(|name| record.heartbeats.contains_key(*name)) {
                pending.entry(name.clone()).or_default();
            }
            let consumers = pending.into_iter().map(|(name, pending)| {
                let beat = record.heartbeats.get(&name).copied();
                ConsumerFacts {
                    pending: count(pending),
                    idle: Duration::from_millis(now.saturating_sub(beat.unwrap_or(now))),
                    inactive: None,
                    beat,
                    about: record.about.get(&name).cloned(),
                    name,
                }
            });
            Ok(Consumers { now: ServerTime(now), consumers: consumers.collect() })
        })
        .await
    }

    async fn pending(&self, queue: &Queue, filter: PendingFilter<'_>) -> Result<Vec<PendingEntry>> {
        self.step("pending", |state| {
            let now = state.now();
            let rows = state.group(queue, filter.inlet)?.pending.iter();
            let rows = rows.filter(|(id, row)| {
                **id > filter.after
                    && row.idle(now) >= milliseconds(filter.idle)
                    && filter.consumer.is_none_or(|consumer| row.consumer == consumer)
            });
            let entries = rows.map(|(id, row)| PendingEntry {
                id: *id,
                consumer: row.consumer.clone(),
                idle: Some(Duration::from_millis(row.idle(now))),
                delivery_count: row.delivery_count,
                partition: None,
                progress: None,
            });
            Ok(entries.take(filter.limit).collect())
        })
        .await
    }

    async fn retries(&self, queue: &Queue, from: RetriesFrom<'_>, limit: usize) -> Result<Retries> {
        self.step("retries", |state| {
            let now = ServerTime(state.now());
            state.group(queue, Inlet::STREAM)?;
            let jobs = state.retries(queue).iter().map(|((due, _), job)| {
                let entry = Entry::new(EntryId::ZERO, job.fields.clone());
                let text = |name: &str| entry.text(name).map(str::to_owned);
                RetryFacts {
                    name: job.name.clone(),
                    due: *due,
                    event_type: text("type"),
                    event_id: text("sj-id"),
                    failures: text("sj-attempt").and_then(|failures| failures.parse().ok()),
                    origin: text("sj-origin").and_then(|origin| origin.parse().ok()),
                    error: text("sj-error"),
                }
            });
            let mut jobs = jobs.collect::<Vec<_>>();
            let first_due = |due| jobs.iter().take_while(|job| job.due < due).count();
            let place = match from {
                RetriesFrom::First => 0,
                RetriesFrom::Due(due) => first_due(due),
                RetriesFrom::After { name, due } => {
                    let place = jobs.iter().position(|job| job.name == name);
                    place.map_or_else(|| first_due(due), |place| place + 1)
                }
            };
            jobs.drain(..place);
            let has_more = jobs.len() >= limit;
            jobs.truncate(limit);
            Ok(Retries { now, jobs, has_more })
        })
        .await
    }

    async fn past_attempts(&self, queue: &Queue, of: JobPlace<'_>) -> Result<AttemptHistory> {
        self.step("past_attempts", |state| {
            let entry = |key: String, id| {
                let stream = state.streams.get(&key);
                stream.and_then(|stream| stream.entries.get(&id)).cloned()
            };
            let fields = match of {
                JobPlace::Retry(name) => {
                    let mut jobs = state.retries(queue).values();
                    jobs.find(|job| job.name == name).map(|job| job.fields.clone())
                }
                JobPlace::Lane(id) => entry(queue.key(Inlet::LANE), id),
                JobPlace::Dead(id) => entry(queue.dead_key(), id),
            };
            let entry = Entry::new(EntryId::ZERO, fields.unwrap_or_default());
            Ok(AttemptHistory::of(entry.text(HISTORY), entry.text(LAST_ATTEMPT)))
        })
        .await
    }

    async fn has_retry(&self, queue: &Queue, name: &str) -> Result<bool> {
        self.step("has_retry", |state| {
            Ok(state.retries(queue).values().any(|retry| retry.name == name))
        })
        .await
    }

    async fn range(
        &self,
        stream: &StreamName,
        span: Span,
        newest_first: bool,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        self.step("range", |state| {
            state.expire_notes();
            Ok(range(state, stream, span, newest_first, limit))
        })
        .await
    }

    async fn previews(
        &self,
        stream: &StreamName,
        span: Span,
        newest_first: bool,
        limit: usize,
        of: PreviewOf,
    ) -> Result<Previews> {
        self.step("previews", |state| {
            let entries = range(state, stream, span, newest_first, limit);
            let has_more = limit > 0 && entries.len() == limit;
            let preview = |entry: &Entry| match of {
                PreviewOf::Entries { value } => EntryPreview::of_entry(entry, value),
                PreviewOf::Letters => EntryPreview::of_letter(entry),
            };
            Ok(Previews { entries: entries.iter().map(preview).collect(), has_more })
        })
        .await
    }

    async fn tail(&self, stream: &StreamName) -> Result<Box<dyn TailReader>> {
        self.step_now("tail", None, |_| Ok(()))?;
        Ok(Box::new(MemoryTail { store: self.clone(), stream: stream.clone() }))
    }
}

fn group_facts(state: &mut MemoryState, queue: &Queue) -> Result<GroupFacts> {
    let now = state.now();
    let lane_pending = state.group(queue, Inlet::LANE).map_or(0, |group| group.pending.len());
    let lane = state.lane(queue).entries.len();
    let is_released = |row: &&Pending| released_for(&row.consumer).is_some();
    let rows = state.groups(queue).flat_map(|group| group.pending.values());
    let released = rows.filter(is_released).count();
    let oldest = state
        .groups(queue)
        .filter_map(|group| group.pending.values().find(|row| !is_released(row)));
    let oldest = oldest.map(|row| Duration::from_millis(row.idle(now))).max();
    let retrying = state.retries(queue).len();
    let (parked, longest_line) = (state.parked(queue), state.longest_line(queue));
    let retry_error = retry_error(state, queue);
    let dead_letters = state.dead(queue).entries.len();
    let new_from = EntryId::new(now.saturating_sub(milliseconds(NEW_FOR)), 0);
    let new = state.dead(queue).entries.range(new_from..).take(COUNTED_MAX);
    let new = new.map(|(_, fields)| letter_error(fields)).collect::<Vec<_>>();
    let (rate, limit) = (state.rate_facts(queue), state.record(queue).limit.clone());
    let record = state.record(queue);
    let (paused, resumed, trimmed_unread) = (record.paused, record.resumed, record.trimmed_unread);
    let valid = |name: &str| record.types.get(name).is_some_and(|valid| *valid > now);
    let waits = |(name, (_, last)): &(&String, &(u64, u64))| {
        now.saturating_sub(*last) <= 60_000 && !valid(name) && !valid("*")
    };
    let waiting = record.unhandled.iter().filter(waits).take(20);
    let unhandled = waiting.map(|(event_type, _)| event_type.clone()).collect();
    let stream = state.streams.get(queue.stream.as_str()).ok_or(StoreError::GroupMissing)?;
    let group = stream.groups.get(queue.group.as_str()).ok_or(StoreError::GroupMissing)?;
    Ok(GroupFacts {
        now: ServerTime(now),
        counts_lag_right: true,
        length: count(stream.entries.len()),
        ends: Some(StreamEnds {
            first: stream.entries.keys().next().copied(),
            last_id: stream.last,
            added: stream.added,
        }),
        cursor: group.delivered,
        read: group.read,
        lag: i64::try_from(stream.after(group.delivered).count()).ok(),
        next: stream.after(group.delivered).next(),
        pending: count(group.pending.len()),
        lane_pending: count(lane_pending),
        lane_waiting: count(lane.saturating_sub(lane_pending)),
        released: count(released),
        oldest_pending: oldest,
        retrying: count(retrying),
        dead_letters: Some(count(dead_letters)),
        paused,
        resumed,
        trimmed_unread,
        unhandled,
        new_dead_letters: count(new.len()),
        dead_letter_error: new.into_iter().next_back(),
        retry_error,
        parked: Some(parked),
        longest_line,
        rate,
        limit,
    })
}

/// The error of a job that has failed and waits for retry.
fn retry_error(state: &mut MemoryState, queue: &Queue) -> Option<String> {
    let jobs = state.retries(queue).values().collect::<Vec<_>>();
    let ends = jobs.iter().take(5).chain(jobs.iter().skip(jobs.len().saturating_sub(5)));
    let entries = ends.map(|job| Entry::new(EntryId::ZERO, job.fields.clone()));
    let mut failed = entries.filter(|entry| {
        entry.text("sj-attempt").and_then(|failures| failures.parse::<u64>().ok()) > Some(0)
    });
    failed.next().map(|entry| shortened(entry.text("sj-error").unwrap_or("unknown")))
}

fn letter_error(fields: &Fields) -> String {
    let letter = Entry::new(EntryId::ZERO, fields.clone());
    let error = letter.text("sj-dead-error").or_else(|| letter.text("sj-dead-reason"));
    shortened(error.unwrap_or("unknown"))
}

fn shortened(error: &str) -> String {
    String::from_utf8_lossy(error.as_bytes().get(..300).unwrap_or(error.as_bytes())).into_owned()
}

fn range(
    state: &MemoryState,
    stream: &StreamName,
    span: Span,
    newest_first: bool,
    limit: usize,
) -> Vec<Entry> {
    let Some(stream) = state.streams.get(stream.as_str()).filter(|_| span.from <= span.to) else {
        return Vec::new();
    };
    let entries = stream.entries.range(span.from..=span.to);
    let entry = |(id, fields): (&EntryId, &Fields)| Entry::new(*id, fields.clone());
    match newest_first {
        true => entries.rev().take(limit).map(entry).collect(),
        false => entries.take(limit).map(entry).collect(),
    }
}

/// How many new dead letters are counted at most.
const COUNTED_MAX: usize = 100;

/// Follows one stream.
struct MemoryTail {
    store: MemoryStore,
    stream: StreamName,
}

#[async_trait]
impl TailReader for MemoryTail {
    async fn read(&mut self, after: EntryId, limit: usize, block: Duration) -> Result<Vec<Entry>> {
        let until = Instant::now() + block;
        let Some(from) = after.next() else { return Ok(Vec::new()) };
        let span = Span { from, to: EntryId::MAX };
        loop {
            // Registered before the read, so that no later change is missed.
            let changed = self.store.changed.notified();
            let entries = self.store.step_now("tail_read", None, |state| {
                Ok(range(state, &self.stream, span, false, limit))
            })?;
            if !entries.is_empty() || timeout_at(until, changed).await.is_err() {
                return Ok(entries);
            }
        }
    }
}
