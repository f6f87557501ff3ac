//! What an operator does to streams in memory.

use async_trait::async_trait;

use super::MemoryStore;
use super::state::{MemoryState, milliseconds};
use super::stream::{Pending, count};
use crate::model::entry::EntryId;
use crate::model::name::{GroupName, StreamName};
use crate::model::trend::TrendRange;
use crate::store::admin::{
    ALIVE, Cut, Destination, MovedPage, Obstacle, Permitted, Selected, Trim, Trimmed, Unfinished,
};
use crate::store::types::{RELEASED, Result};
use crate::store::{Admin, Inlet, Queue};

#[async_trait]
impl Admin for MemoryStore {
    async fn trim(&self, stream: &StreamName, trim: Trim) -> Result<Trimmed> {
        self.step("trim", |state| Ok(trimmed(state, stream, trim, true))).await
    }

    async fn check_trim(&self, stream: &StreamName, trim: Trim) -> Result<Trimmed> {
        self.step("check_trim", |state| Ok(trimmed(state, stream, trim, false))).await
    }

    async fn move_pending(
        &self,
        queue: &Queue,
        inlet: Inlet,
        selected: Selected<'_>,
        destination: Destination<'_>,
    ) -> Result<MovedPage> {
        self.step("move_pending", |state| {
            let now = state.now();
            let mut page = MovedPage::default();
            let rows = state.group(queue, inlet)?.pending.iter();
            let ids = match selected {
                Selected::Ids(ids) => ids.to_vec(),
                Selected::Of(consumer, after) => {
                    let own =
                        rows.filter(|(id, row)| **id > after && row.consumer == consumer.as_str());
                    own.map(|(id, _)| *id).collect()
                }
            };
            for id in ids {
                if !state.group(queue, inlet)?.pending.contains_key(&id) {
                    page.missing.push(id);
                    continue;
                }
                if state.payload(queue, inlet, id)?.is_err() {
                    page.trimmed.push(id);
                    continue;
                }
                let new_owner = state.new_owner(queue, destination);
                let group = state.group(queue, inlet)?;
                if let Some(row) = group.pending.get_mut(&id) {
                    row.pass_to(new_owner(row), now);
                    group.consumers.insert(row.consumer.clone());
                }
                page.moved.push(id);
            }
            if !page.moved.is_empty() {
                state.record(queue).released += 1;
                state.record(queue).moves += 1;
            }
            Ok(page)
        })
        .await
    }

    async fn request_claim(&self, queue: &Queue) -> Result<()> {
        self.step("request_claim", |state| {
            state.record(queue).released += 1;
            Ok(())
        })
        .await
    }

    async fn run_now(&self, queue: &Queue, names: &[&str]) -> Result<usize> {
        self.step("run_now", |state| {
            let retries = state.retries(queue);
            let named = retries.iter().filter(|((due, _), _)| *due > 0);
            let named = named.filter(|(_, job)| names.contains(&job.name.as_str()));
            let named = named.map(|(key, _)| *key).collect::<Vec<_>>();
            for key in &named {
                if let Some(job) = retries.remove(key) {
                    retries.insert((0, key.1), job);
                }
            }
            Ok(named.len())
        })
        .await
    }

    async fn set_paused(&self, queue: &Queue, paused: bool) -> Result<bool> {
        self.step("set_paused", |state| {
            let now = state.now();
            let record = state.record(queue);
            let changes = record.paused.is_some() != paused;
            if changes && !paused {
                record.resumed = Some(now);
            }
            record.paused = if paused { record.paused.or(Some(now)) } else { None };
            Ok(changes)
        })
        .await
    }

    async fn move_group(
        &self,
        queue: &Queue,
        after: Option<EntryId>,
        unfinished: Unfinished,
    ) -> Result<Permitted> {
        self.step("move_group", |state| move_group(state, queue, after, unfinished, true)).await
    }

    async fn check_move_group(
        &self,
        queue: &Queue,
        after: Option<EntryId>,
        unfinished: Unfinished,
    ) -> Result<Permitted> {
        let name = "check_move_group";
        self.step(name, |state| move_group(state, queue, after, unfinished, false)).await
    }

    async fn destroy_group(&self, queue: &Queue, unfinished: Unfinished) -> Result<Permitted> {
        self.step("destroy_group", |state| destroy_group(state, queue, unfinished, true)).await
    }

    async fn check_destroy_group(
        &self,
        queue: &Queue,
        unfinished: Unfinished,
    ) -> Result<Permitted> {
        let name = "check_destroy_group";
        self.step(name, |state| destroy_group(state, queue, unfinished, false)).await
    }

    async fn delete_stream(
        &self,
        stream: &StreamName,
        dead_letters_of: &[GroupName],
    ) -> Result<bool> {
        self.step("delete_stream", |state| {
            for group in dead_letters_of {
                state.streams.remove(&stream.dead_key(group));
            }
            Ok(state.streams.remove(stream.as_str()).is_some())
        })
        .await
    }

    async fn forget_partitions(&self, stream: &StreamName) -> Result<()> {
        self.step("forget_partitions", |state| {
            state.partitions.remove(stream.as_str());
            Ok(())
        })
        .await
    }
}

impl MemoryState {
    /// The owner that a moved entry has from now on.
    fn new_owner(
        &mut self,
        queue: &Queue,
        destination: Destination<'_>,
    ) -> impl Fn(&Pending) -> String + use<> {
        let (now, lease_of) = (self.now(), self.leases(queue, 0, None));
        let heir = match destination {
            Destination::Consumer(heir) => Some(heir.to_string()),
            Destination::Released => None,
        };
        let record = self.record(queue);
        let alive = heir.as_ref().is_some_and(|heir| record.is_alive(heir, now));
        move |row| {
            let Some(heir) = &heir else { return RELEASED.to_owned() };
            let runs_there = row.consumer == *heir && row.idle(now) < lease_of(heir);
            if alive && !runs_there { format!("{RELEASED}:{heir}") } else { heir.clone() }
        }
    }
}

/// Trims a stream, or counts what a trim would remove.
fn trimmed(state: &mut MemoryState, stream: &StreamName, trim: Trim, apply: bool) -> Trimmed {
    let now = state.now();
    let Some(stream) = state.streams.get_mut(stream.as_str()) else {
        return Trimmed::default();
    };
    let holder = match trim.unfinished {
        Unfinished::Keep => stream.needed(),
        Unfinished::Lose => None,
    };
    let needed = holder.as_ref().map_or(EntryId::MAX, |(_, id)| *id);
    let (excess, before) = match trim.cut {
        Cut::Length(entries) => (stream.excess(entries), EntryId::MAX),
        Cut::Age(age) => (usize::MAX, EntryId::new(now.saturating_sub(milliseconds(age)), 0)),
        Cut::Before(id) => (usize::MAX, id),
    };
    let wanted = stream.entries.keys().take(excess).take_while(|id| **id < before).count();
    let goes = |id: EntryId| id < before && id < needed;
    let going = stream.entries.keys().take(excess).take_while(|id| goes(**id)).count();
    let removed = if apply { stream.trim(excess, goes) } else { count(going) };
    let stays = if apply { 0 } else { going };
    Trimmed {
        removed,
        length: count(stream.entries.len() - stays),
        blocked_by: holder.filter(|_| count(wanted) > removed),
        more: false,
    }
}

/// Moves a group, or only checks whether moving is permitted.
fn move_group(
    state: &mut MemoryState,
    queue: &Queue,
    after: Option<EntryId>,
    unfinished: Unfinished,
    apply: bool,
) -> Result<Permitted> {
    let cursor = state.group(queue, Inlet::STREAM)?.delivered;
    let stream = state.stream(queue.stream.as_str());
    let (last, added, removed) = (stream.last, stream.added, stream.removed());
    let first = stream.entries.keys().next().copied();
    // Entries that do not exist yet are not skipped.
    let to = after.map_or(last, |after| after.min(last));
    let skips = stream.after(cursor).next().is_some_and(|next| next <= to);
    if skips && unfinished == Unfinished::Keep {
        return Ok(Permitted::Refused(Obstacle::undelivered(queue)));
    }
    if !apply {
        return Ok(Permitted::Done);
    }
    let group = state.group(queue, Inlet::STREAM)?;
    group.delivered = to;
    group.read = match to {
        to if to == last => Some(added),
        to if first.is_none_or(|first| to < first) => Some(removed),
        _ => None,
    };
    let pending = group.pending.keys().next().and_then(|id| id.previous());
    state.record(queue).floor = Some(pending.map_or(to, |pending| pending.min(to)));
    Ok(Permitted::Done)
}

/// Removes a group, or only checks whether removing is permitted.
fn destroy_group(
    state: &mut MemoryState,
    queue: &Queue,
    unfinished: Unfinished,
    apply: bool,
) -> Result<Permitted> {
    let now = state.now();
    let cursor = state.group(queue, Inlet::STREAM)?.delivered;
    let record = state.record(queue);
    let alive = record.heartbeats.keys().find(|consumer| !record.is_gone(consumer, now, ALIVE));
    let group = queue.group.to_string();
    if let Some(consumer) = alive {
        let consumer = consumer.clone();
        return Ok(Permitted::Refused(Obstacle::Alive { group, consumer }));
    }
    let pending = state.groups(queue).map(|group| group.pending.len()).sum::<usize>();
    let lane_pending = state.group(queue, Inlet::LANE).map_or(0, |on| on.pending.len());
    let waiting = state.lane(queue).entries.len().saturating_sub(lane_pending);
    let parked = state.limit(queue).parked();
    let retrying = state.retries(queue).len() + waiting + parked;
    let stream = state.stream(queue.stream.as_str());
    let undelivered = stream.after(cursor).next().is_some();
    if unfinished == Unfinished::Keep && (undelivered || pending + retrying > 0) {
        return Ok(Permitted::Refused(Obstacle::Unfinished {
            group,
            pending: count(pending),
            undelivered,
            retrying: count(retrying),
            dead_letters: 0,
        }));
    }
    if !apply {
        return Ok(Permitted::Done);
    }
    stream.groups.remove(queue.group.as_str());
    state.streams.remove(&queue.key(Inlet::LANE));
    state.retries(queue).clear();
    state.limits.remove(&queue.group_key());
    state.turns.remove(&queue.group_key());
    state.records.remove(&queue.group_key());
    state.rates.remove(&queue.rate_key());
    state.streams.remove(&queue.done_key());
    state.notes_expire.remove(&queue.done_key());
    for range in TrendRange::ALL {
        state.trends.remove(&queue.trend_key(range));
    }
    Ok(Permitted::Done)
}
