//! How the memory store keeps a group running.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;

use super::MemoryStore;
use super::state::{DAY, MemoryState, Record, Retry, milliseconds};
use super::stream::Stream;
use crate::model::config::Start;
use crate::model::entry::{Entry, EntryId, Fields};
use crate::model::heartbeat::Heartbeat;
use crate::model::limit::SetLimit;
use crate::model::name::ConsumerName;
use crate::model::record;
use crate::store::types::{Result, released_for};
use crate::store::{
    BeginAt, GroupBirth, GroupMade, GroupUpkeep, Inlet, Prepared, Promoted, Queue, Recorded,
    ServerTime, TypeSight,
};

#[async_trait]
impl GroupUpkeep for MemoryStore {
    async fn prepare_at(&self, queue: &Queue, at: BeginAt, told: Option<u16>) -> Result<Prepared> {
        self.step("prepare", |state| Ok(state.ensure_groups(queue, at, told).0)).await
    }

    async fn group_made(&self, first: &Queue) -> Result<GroupMade> {
        self.step("group_made", |state| {
            let (made, existed) = (state.record(first).made, state.record(first).floor.is_some());
            Ok(match made {
                Some(birth) => GroupMade::With(birth),
                None if existed || state.group(first, Inlet::STREAM).is_ok() => GroupMade::Unknown,
                None => GroupMade::New,
            })
        })
        .await
    }

    async fn recreate(&self, queue: &Queue) -> Result<bool> {
        self.step("recreate", |state| {
            let (stream, lane) = state.ensure_groups(queue, BeginAt::Start(Start::Beginning), None);
            Ok(stream != Prepared::Found || lane)
        })
        .await
    }

    async fn promote(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        limit: usize,
    ) -> Result<Promoted> {
        self.step("promote", |state| {
            let now = state.now();
            state.ensure_group(queue, Inlet::LANE, EntryId::ZERO);
            let paused = state.record(queue).paused.is_some();
            let limit = if paused { 0 } else { limit };
            let restored = if limit > 0 { state.restore_retries(queue, now) } else { 0 };
            let lost = state.record(queue).lost_retries.len();
            let stays = state.left_to_others(queue, consumer);
            let due = state.retries(queue).range(..=(now, u64::MAX)).take(limit);
            let due = due.map(|(key, job)| (*key, stays(key.0, &job.fields)));
            let (stay, due) = due.partition::<Vec<_>, _>(|(_, stays)| *stays);
            let due = due.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
            for key in &due {
                if let Some(job) = state.retries(queue).remove(key) {
                    state.lane(queue).append(now, job.fields);
                }
            }
            let from = if stay.is_empty() { 0 } else { now + 1 };
            let next_due = state.retries(queue).range((from, 0)..).next();
            let next_due = next_due.map(|(key, _)| *key);
            let next_due = next_due.map(|(due, _)| Duration::from_millis(due.saturating_sub(now)));
            let group = state.group(queue, Inlet::LANE)?;
            let (lane_pending, cursor) = (group.pending.len(), group.delivered);
            let lane = state.lane(queue);
            let first = lane.after(cursor).next().and_then(|id| Some((id, lane.entries.get(&id)?)));
            let held = first.is_some_and(|(id, fields)| stays(id.milliseconds(), fields));
            let waiting = lane.entries.len().saturating_sub(lane_pending);
            Ok(Promoted {
                promoted: due.len(),
                waiting: if held { 0 } else { waiting },
                pending: state.groups(queue).map(|group| group.pending.len()).sum(),
                next_due: next_due.filter(|_| !paused),
                released: state.record(queue).released,
                left: 0,
                restored,
                stranded: 0,
                misplaced: if paused { 0 } else { lost },
                paused,
                scheduled: state.later(&queue.stream).is_used(),
                cancels: state.last_cancel(&queue.stream),
                has_schedules: state.timetable(&queue.stream).is_used(),
                parked: state.parked(queue),
                rate: state.record(queue).rate,
                limited: state.limited(queue),
                limit: state.record(queue).limit.as_ref().map(SetLimit::number),
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
            record.declare(now, about);
            record.heartbeats.insert(consumer.as_str().to_owned(), now);
            record.about.insert(consumer.as_str().to_owned(), about.to_owned());
            Ok(Recorded { floor, trimmed_unread, moves: record.moves })
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
            let recent = |last: u64| now.saturating_sub(last) <= 3 * DAY;
            state.record(queue).types.retain(|_, valid| recent(*valid));
            state.record(queue).unhandled.retain(|_, (_, last)| recent(*last));
            for consumer in consumers {
                if released_for(&consumer).is_some() {
                    retired += usize::from(retire(state, queue, &consumer));
                    continue;
                }
                let record = state.record(queue);
                record.heartbeats.entry(consumer.clone()).or_insert(now);
                if record.is_gone(&consumer, now, silence) && retire(state, queue, &consumer) {
                    retired += 1;
                }
            }
            Ok(retired)
        })
        .await
    }

    async fn sight_type(
        &self,
        queue: &Queue,
        event_type: &str,
        first: ServerTime,
        after: Duration,
    ) -> Result<TypeSight> {
        self.step("sight_type", |state| {
            let now = state.now();
            Ok(state.record(queue).sight_type(event_type, (now, first.0), milliseconds(after)))
        })
        .await
    }
}

impl Record {
    /// Records until when the event types of a heartbeat are declared.
    fn declare(&mut self, now: u64, about: &str) {
        let Some(heartbeat) = Heartbeat::read(about) else { return };
        let valid = now + milliseconds(heartbeat.valid_for());
        let cut = heartbeat.types_cut.then(|| "*".to_owned());
        let declared = heartbeat.types.into_iter().flatten().chain(cut);
        self.types.extend(declared.map(|event_type| (event_type, valid)));
    }

    fn sight_type(&mut self, event_type: &str, (now, first): (u64, u64), after: u64) -> TypeSight {
        let valid = |name: &str| self.types.get(name).copied().unwrap_or(0);
        let declared = valid(event_type).max(valid("*"));
        let since = self.unhandled.get(event_type).map(|(since, _)| *since);
        let has_room = event_type.len() <= 200 && self.unhandled.len() < 4_000;
        if declared > now {
            return TypeSight { declared: true, undeclared_for: Duration::ZERO };
        }
        if since.is_some() || has_room {
            self.unhandled.insert(event_type.to_owned(), (since.unwrap_or(now), now));
        }
        let since = since.unwrap_or(if has_room { now } else { first }).max(declared);
        let undeclared_for = now.saturating_sub(since);
        let unlisted = if undeclared_for >= after { self.unlisted_until() } else { 0 };
        if unlisted > now {
            self.types.insert("*".to_owned(), unlisted);
            return TypeSight { declared: true, undeclared_for: Duration::ZERO };
        }
        TypeSight { declared: false, undeclared_for: Duration::from_millis(undeclared_for) }
    }

    /// Whether a consumer sends heartbeats and its last one is recent.
    pub(super) fn is_alive(&self, consumer: &str, now: u64) -> bool {
        let about = self.about.get(consumer).and_then(|about| Heartbeat::read(about));
        let sent = self.heartbeats.get(consumer).copied().unwrap_or(0);
        let age = Duration::from_millis(now.saturating_sub(sent));
        about.is_some_and(|about| about.is_alive(age))
    }

    /// Whether a consumer's last heartbeat is older than `silence`, and it has missed two of the heartbeats that it
    /// announced. A consumer without a heartbeat is gone.
    pub(super) fn is_gone(&self, consumer: &str, now: u64, silence: Duration) -> bool {
        let Some(sent) = self.heartbeats.get(consumer) else { return true };
        let about = self.about.get(consumer).and_then(|about| Heartbeat::read(about));
        let announced = about.filter(|about| about.interval_millis > 0);
        let valid = announced.map_or(Duration::ZERO, |about| about.valid_for());
        now.saturating_sub(*sent) > milliseconds(silence.max(valid))
    }

    /// Until when at least one consumer that does not list its types counts as alive.
    fn unlisted_until(&self) -> u64 {
        let unlisted = self.about.iter().filter_map(|(consumer, about)| {
            let heartbeat = Heartbeat::read(about).filter(|about| about.types.is_none())?;
            Some(self.heartbeats.get(consumer)? + milliseconds(heartbeat.valid_for()))
        });
        unlisted.max().unwrap_or(0)
    }
}

impl MemoryState {
    /// Gives jobs back their lost places in the retry set. Returns how many.
    fn restore_retries(&mut self, queue: &Queue, now: u64) -> usize {
        let lost = std::mem::take(&mut self.record(queue).lost_retries);
        for Retry { name, fields } in &lost {
            let due = record::due(&Entry::new(EntryId::ZERO, fields.clone())).unwrap_or(now);
            self.schedule_retry(queue, due, name, fields.clone());
        }
        lost.len()
    }

    /// Tells, for a job's due time and fields, whether a consumer leaves the job to consumers that
    /// declare its type.
    fn left_to_others(
        &mut self,
        queue: &Queue,
        consumer: &ConsumerName,
    ) -> impl Fn(u64, &Fields) -> bool + use<> {
        let now = self.now();
        let nothing = self.retries(queue).is_empty() && self.lane(queue).entries.is_empty();
        let record = self.record(queue);
        let about = record.about.get(consumer.as_str()).filter(|_| !nothing);
        let about = about.and_then(|about| Heartbeat::read(about));
        let types = about.filter(|about| !about.types_cut).and_then(|about| about.types);
        let mine = types.filter(|types| !types.iter().any(|name| name == "*"));
        let live = record.types.iter().filter(|(_, valid)| **valid > now);
        let live = live.map(|(name, _)| name.clone()).collect::<BTreeSet<_>>();
        move |due, fields| {
            let Some(mine) = &mine else { return false };
            let entry = Entry::new(EntryId::ZERO, fields.clone());
            let Some(name) = entry.event_type() else { return false };
            let declared = live.contains(name) || live.contains("*");
            due + OVERDUE >= now && declared && !mine.iter().any(|mine| mine == name)
        }
    }

    /// Creates the group in every inlet unless it exists. Returns whether it was created in the stream, and whether in
    /// the lane.
    fn ensure_groups(&mut self, queue: &Queue, at: BeginAt, told: Option<u16>) -> (Prepared, bool) {
        let existed = self.record(queue).floor.is_some();
        let last = self.stream(queue.stream.as_str()).last;
        let from = match (self.record(queue).floor, at) {
            // A floor beyond the end belongs to a stream that was deleted.
            (Some(floor), _) if floor > last => EntryId::ZERO,
            (Some(floor), _) => floor,
            (None, BeginAt::Start(Start::Beginning)) => EntryId::ZERO,
            (None, BeginAt::Start(Start::End)) => last,
            // Entries that do not exist yet are not skipped.
            (None, BeginAt::Start(Start::After(id))) => id.min(last),
            (None, BeginAt::Since(time)) => time.before().min(last),
        };
        let created = self.ensure_group(queue, Inlet::STREAM, from);
        if created {
            let stored = self.partitions.get(queue.stream.as_str()).copied().unwrap_or(1);
            let time = Some(ServerTime(self.now()));
            let told = told.filter(|told| !existed && *told.max(&stored) > 1);
            let record = self.record(queue);
            record.made = told.map(|told| GroupBirth { time, told, stored }).or(record.made);
            record.floor = Some(from);
        }
        let stream = match (created, existed) {
            (false, _) => Prepared::Found,
            (true, false) => Prepared::Created,
            (true, true) => Prepared::Recreated,
        };
        (stream, self.ensure_group(queue, Inlet::LANE, EntryId::ZERO))
    }
}

/// Counts entries that were removed before their delivery, each once.
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

/// A job that has been due for longer than this, in milliseconds, is moved by any consumer.
const OVERDUE: u64 = 5_000;
