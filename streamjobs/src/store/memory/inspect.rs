//! Looking at streams in memory.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::ready;
use tokio::time::{Instant, timeout_at};

use super::stream::Stream;
use super::world::{World, milliseconds};
use super::{MemoryStore, steps};
use crate::model::entry::{Entry, EntryId, Fields, Inlet};
use crate::model::name::StreamName;
use crate::store::inspect::{
    ConsumerFacts, Consumers, Counted, GroupFacts, Inspect, OldestUnfinished, PendingEntry,
    PendingLook, Retries, RetryFacts, Span, StreamInfo, TailReader,
};
use crate::store::{Queue, Reply, ServerTime, StoreError};

impl Inspect for MemoryStore {
    fn stream_info<'a>(&'a self, stream: &'a StreamName) -> Reply<'a, Option<StreamInfo>> {
        self.reply("stream_info", move |world| {
            Ok(world.streams.get(stream.as_str()).map(|stream| StreamInfo {
                length: count(stream.entries.len()),
                first: stream.entries.keys().next().copied(),
                last: stream.entries.keys().next_back().copied(),
                last_id: stream.last,
                added: stream.added,
                bytes: None,
                groups: count(stream.groups.len()),
            }))
        })
    }

    fn group_names<'a>(&'a self, stream: &'a StreamName) -> Reply<'a, Vec<String>> {
        self.reply("group_names", move |world| {
            let groups = world.streams.get(stream.as_str()).map(|stream| &stream.groups);
            let mut names =
                groups.into_iter().flat_map(|groups| groups.keys().cloned()).collect::<Vec<_>>();
            names.sort_unstable();
            Ok(names)
        })
    }

    fn group_facts<'a>(&'a self, queue: &'a Queue) -> Reply<'a, GroupFacts> {
        self.reply("group_facts", move |world| group_facts(world, queue))
    }

    fn oldest_unfinished<'a>(&'a self, queue: &'a Queue) -> Reply<'a, OldestUnfinished> {
        self.reply("oldest_unfinished", move |world| oldest_unfinished(world, queue))
    }

    fn count_after<'a>(
        &'a self,
        stream: &'a StreamName,
        after: EntryId,
        limit: usize,
    ) -> Reply<'a, Counted> {
        self.reply("count_after", move |world| {
            let stream = world.streams.get(stream.as_str());
            let behind = stream.map_or(0, |stream| behind(stream, after).take(limit + 1).count());
            Ok(Counted { entries: count(behind.min(limit)), complete: behind <= limit })
        })
    }

    fn consumers<'a>(&'a self, queue: &'a Queue) -> Reply<'a, Consumers> {
        self.reply("consumers", move |world| consumers(world, queue))
    }

    fn pending<'a>(
        &'a self,
        queue: &'a Queue,
        look: PendingLook<'a>,
    ) -> Reply<'a, Vec<PendingEntry>> {
        self.reply("pending", move |world| {
            let now = world.now();
            let rows = world.group(queue, look.inlet)?.pending.iter();
            let rows = rows.filter(|(id, row)| {
                **id > look.after
                    && row.idle(now) >= milliseconds(look.idle)
                    && look.consumer.is_none_or(|consumer| row.consumer == consumer)
            });
            let facts = |(id, row): (&EntryId, &super::stream::Pending)| PendingEntry {
                id: *id,
                consumer: row.consumer.clone(),
                idle: Some(Duration::from_millis(row.idle(now))),
                delivery_count: row.delivery_count,
            };
            Ok(rows.take(look.limit).map(facts).collect())
        })
    }

    fn retries<'a>(
        &'a self,
        queue: &'a Queue,
        after: Option<&'a str>,
        limit: usize,
    ) -> Reply<'a, Retries> {
        self.reply("retries", move |world| retries(world, queue, after, limit))
    }

    fn range<'a>(
        &'a self,
        stream: &'a StreamName,
        span: Span,
        newest_first: bool,
        limit: usize,
    ) -> Reply<'a, Vec<Entry>> {
        self.reply("range", move |world| Ok(range(world, stream, span, newest_first, limit)))
    }

    fn tail<'a>(&'a self, stream: &'a StreamName) -> Reply<'a, Box<dyn TailReader>> {
        let opened = self.step("tail", |_| Ok(()));
        let tail = MemoryTail { store: self.clone(), stream: stream.clone() };
        ready(opened.map(|()| Box::new(tail) as Box<dyn TailReader>)).boxed()
    }
}

fn group_facts(world: &mut World, queue: &Queue) -> Result<GroupFacts, StoreError> {
    let now = world.now();
    let lane_pending = world.group(queue, Inlet::LANE).map_or(0, |group| group.pending.len());
    let lane = world.stream(&queue.key(Inlet::LANE)).entries.len();
    let oldest = steps::SOURCES.iter().filter_map(|inlet| {
        let group = world.group(queue, *inlet).ok()?;
        group.pending.values().next().map(|row| row.idle(now))
    });
    let oldest = oldest.max().map(Duration::from_millis);
    let retrying = world.waiting(queue).len();
    let dead_letters = world.dead(queue).entries.len();
    let memory = world.memory(queue);
    let (paused, trimmed_unread) = (memory.paused, memory.trimmed_unread);
    let stream = world.streams.get(queue.stream.as_str()).ok_or(StoreError::GroupMissing)?;
    let group = stream.groups.get(queue.group.as_str()).ok_or(StoreError::GroupMissing)?;
    Ok(GroupFacts {
        now: ServerTime(now),
        counts_lag_right: true,
        length: count(stream.entries.len()),
        first: stream.entries.keys().next().copied(),
        last_id: stream.last,
        added: stream.added,
        cursor: group.delivered,
        read: group.read,
        lag: i64::try_from(behind(stream, group.delivered).count()).ok(),
        next: behind(stream, group.delivered).next(),
        pending: count(group.pending.len()),
        lane_pending: count(lane_pending),
        lane_waiting: count(lane.saturating_sub(lane_pending)),
        oldest_pending: oldest,
        retrying: count(retrying),
        dead_letters: Some(count(dead_letters)),
        paused,
        trimmed_unread,
    })
}

fn oldest_unfinished(world: &mut World, queue: &Queue) -> Result<OldestUnfinished, StoreError> {
    let group = world.group(queue, Inlet::STREAM)?;
    let (pending, cursor) = (group.pending.keys().next().copied(), group.delivered);
    let next = behind(world.stream(queue.stream.as_str()), cursor).next();
    let origin = |id: EntryId, fields: &Fields| {
        let origin = Entry::new(id, fields.clone()).text("sj-origin")?.parse().ok();
        Some(origin.unwrap_or(id))
    };
    let lane = &world.stream(&queue.key(Inlet::LANE)).entries;
    let lane = lane.iter().map(|(id, fields)| origin(*id, fields).unwrap_or(*id)).min();
    let waiting = world.waiting(queue).values();
    let waiting = waiting.filter_map(|job| origin(EntryId::MAX, &job.fields)).min();
    let published = [pending, next, lane, waiting].into_iter().flatten().min();
    Ok(OldestUnfinished { published, complete: true })
}

fn consumers(world: &mut World, queue: &Queue) -> Result<Consumers, StoreError> {
    let now = world.now();
    world.group(queue, Inlet::STREAM)?;
    let mut facts = std::collections::BTreeMap::<String, ConsumerFacts>::new();
    for inlet in steps::SOURCES {
        let Ok(group) = world.group(queue, inlet) else { continue };
        for name in &group.consumers {
            let own = group.pending.values().filter(|row| row.consumer == *name);
            let pending = count(own.count());
            facts
                .entry(name.clone())
                .or_insert_with(|| ConsumerFacts {
                    name: name.clone(),
                    pending: 0,
                    idle: Duration::ZERO,
                    inactive: None,
                    beat: None,
                    about: None,
                })
                .pending += pending;
        }
    }
    let memory = world.memory(queue);
    for (name, facts) in &mut facts {
        facts.beat = memory.beats.get(name).copied();
        facts.about = memory.about.get(name).cloned();
        facts.idle = Duration::from_millis(now.saturating_sub(facts.beat.unwrap_or(now)));
    }
    Ok(Consumers { now: ServerTime(now), consumers: facts.into_values().collect() })
}

fn retries(
    world: &mut World,
    queue: &Queue,
    after: Option<&str>,
    limit: usize,
) -> Result<Retries, StoreError> {
    let now = ServerTime(world.now());
    world.group(queue, Inlet::STREAM)?;
    let jobs = world.waiting(queue).iter().map(|((due, _), job)| {
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
    let jobs = jobs.collect::<Vec<_>>();
    let place = after.and_then(|after| jobs.iter().position(|job| job.name == after));
    let mut jobs = jobs.into_iter().skip(place.map_or(0, |place| place + 1)).collect::<Vec<_>>();
    let more = jobs.len() >= limit;
    jobs.truncate(limit);
    Ok(Retries { now, jobs, more })
}

fn range(
    world: &World,
    stream: &StreamName,
    span: Span,
    newest_first: bool,
    limit: usize,
) -> Vec<Entry> {
    let Some(stream) = world.streams.get(stream.as_str()).filter(|_| span.from <= span.to) else {
        return Vec::new();
    };
    let entries = stream.entries.range(span.from..=span.to);
    let entry = |(id, fields): (&EntryId, &Fields)| Entry::new(*id, fields.clone());
    match newest_first {
        true => entries.rev().take(limit).map(entry).collect(),
        false => entries.take(limit).map(entry).collect(),
    }
}

fn behind(stream: &Stream, after: EntryId) -> impl Iterator<Item = EntryId> + '_ {
    let from = after.next().unwrap_or(EntryId::MAX);
    stream.entries.range(from..).map(|(id, _)| *id)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Follows one stream.
struct MemoryTail {
    store: MemoryStore,
    stream: StreamName,
}

impl MemoryTail {
    async fn read_once(
        &self,
        after: EntryId,
        limit: usize,
        block: Duration,
    ) -> Result<Vec<Entry>, StoreError> {
        let until = Instant::now() + block;
        let Some(from) = after.next() else { return Ok(Vec::new()) };
        let span = Span { from, to: EntryId::MAX };
        loop {
            // Registered before the look, so that nothing that comes after it is missed.
            let changed = self.store.changed.notified();
            let look = |world: &mut World| Ok(range(world, &self.stream, span, false, limit));
            let entries = self.store.step("tail_read", look)?;
            if !entries.is_empty() || timeout_at(until, changed).await.is_err() {
                return Ok(entries);
            }
        }
    }
}

impl TailReader for MemoryTail {
    fn read(&mut self, after: EntryId, limit: usize, block: Duration) -> Reply<'_, Vec<Entry>> {
        Box::pin(self.read_once(after, limit, block))
    }
}
