//! What an operator does to streams in memory.

use super::world::{World, milliseconds};
use super::{MemoryStore, steps};
use crate::model::entry::{EntryId, Inlet};
use crate::model::name::{GroupName, StreamName};
use crate::store::operate::{
    ALIVE, Cut, Destination, MovedPage, Obstacle, Operate, Permitted, Selected, Trim, Trimmed,
    Unfinished,
};
use crate::store::{Queue, Reply, StoreError};

impl Operate for MemoryStore {
    fn trim<'a>(&'a self, stream: &'a StreamName, trim: Trim) -> Reply<'a, Trimmed> {
        self.reply("trim", move |world| Ok(shorten(world, stream, trim)))
    }

    fn move_pending<'a>(
        &'a self,
        queue: &'a Queue,
        inlet: Inlet,
        selected: Selected<'a>,
        destination: Destination<'a>,
    ) -> Reply<'a, MovedPage> {
        self.reply("move_pending", move |world| {
            move_pending(world, queue, inlet, selected, destination)
        })
    }

    fn call_sweep<'a>(&'a self, queue: &'a Queue) -> Reply<'a, ()> {
        self.reply("call_sweep", move |world| {
            world.memory(queue).released += 1;
            Ok(())
        })
    }

    fn run_now<'a>(&'a self, queue: &'a Queue, names: &'a [&'a str]) -> Reply<'a, usize> {
        self.reply("run_now", move |world| {
            let waiting = world.waiting(queue);
            let named = waiting
                .iter()
                .filter(|((due, _), job)| *due > 0 && names.contains(&job.name.as_str()));
            let named = named.map(|(key, _)| *key).collect::<Vec<_>>();
            for key in &named {
                if let Some(job) = waiting.remove(key) {
                    waiting.insert((0, key.1), job);
                }
            }
            Ok(named.len())
        })
    }

    fn move_group<'a>(
        &'a self,
        queue: &'a Queue,
        after: Option<EntryId>,
        unfinished: Unfinished,
    ) -> Reply<'a, Permitted> {
        self.reply("move_group", move |world| move_group(world, queue, after, unfinished))
    }

    fn destroy_group<'a>(
        &'a self,
        queue: &'a Queue,
        unfinished: Unfinished,
    ) -> Reply<'a, Permitted> {
        self.reply("destroy_group", move |world| destroy_group(world, queue, unfinished))
    }

    fn trim_dead_letters<'a>(&'a self, queue: &'a Queue, keep: u64) -> Reply<'a, u64> {
        self.reply("trim_dead_letters", move |world| {
            let letters = world.dead(queue);
            let kept = usize::try_from(keep).unwrap_or(usize::MAX);
            Ok(letters.trim(letters.entries.len().saturating_sub(kept), |_| true))
        })
    }

    fn delete_stream<'a>(
        &'a self,
        stream: &'a StreamName,
        dead_letters_of: &'a [GroupName],
    ) -> Reply<'a, bool> {
        self.reply("delete_stream", move |world| {
            for group in dead_letters_of {
                world.streams.remove(&stream.dead_key(group));
            }
            Ok(world.streams.remove(stream.as_str()).is_some())
        })
    }
}

fn shorten(world: &mut World, stream: &StreamName, trim: Trim) -> Trimmed {
    let now = world.now();
    let Some(stream) = world.streams.get_mut(stream.as_str()) else { return Trimmed::default() };
    let holder = match trim.unfinished {
        Unfinished::Keep => stream.needed(),
        Unfinished::Lose => None,
    };
    let needed = holder.as_ref().map_or(EntryId::MAX, |(_, id)| *id);
    let (excess, before) = match trim.cut {
        Cut::Length(entries) => {
            let kept = usize::try_from(entries).unwrap_or(usize::MAX);
            (stream.entries.len().saturating_sub(kept), EntryId::MAX)
        }
        Cut::Age(age) => (usize::MAX, EntryId::new(now.saturating_sub(milliseconds(age)), 0)),
        Cut::Before(id) => (usize::MAX, id),
    };
    let wanted = stream.entries.keys().take(excess).take_while(|id| **id < before).count();
    let removed = stream.trim(excess, |id| id < before && id < needed);
    let held = u64::try_from(wanted).unwrap_or(u64::MAX) > removed;
    Trimmed {
        removed,
        length: u64::try_from(stream.entries.len()).unwrap_or(u64::MAX),
        blocked_by: holder.filter(|_| held),
        more: false,
    }
}

fn move_pending(
    world: &mut World,
    queue: &Queue,
    inlet: Inlet,
    selected: Selected<'_>,
    destination: Destination<'_>,
) -> Result<MovedPage, StoreError> {
    let now = world.now();
    let mut page = MovedPage::default();
    let pending = &world.group(queue, inlet)?.pending;
    let ids = match selected {
        Selected::Ids(ids) => ids.to_vec(),
        Selected::Of(consumer, after) => {
            let own = pending
                .iter()
                .filter(|(id, row)| **id > after && row.consumer == consumer.as_str());
            own.map(|(id, _)| *id).collect()
        }
    };
    for id in ids {
        if !world.group(queue, inlet)?.pending.contains_key(&id) {
            page.missing.push(id);
        } else if world.payload(queue, inlet, id)?.is_err() {
            page.trimmed.push(id);
        } else {
            let group = world.group(queue, inlet)?;
            if let Some(row) = group.pending.get_mut(&id) {
                if destination.abandoned {
                    row.since = now.saturating_sub(steps::DAY * 2);
                }
                if let Some(consumer) = destination.consumer {
                    consumer.as_str().clone_into(&mut row.consumer);
                    group.consumers.insert(consumer.as_str().to_owned());
                }
            }
            page.moved.push(id);
        }
    }
    if !page.moved.is_empty() {
        world.memory(queue).released += 1;
    }
    Ok(page)
}

fn move_group(
    world: &mut World,
    queue: &Queue,
    after: Option<EntryId>,
    unfinished: Unfinished,
) -> Result<Permitted, StoreError> {
    world.group(queue, Inlet::STREAM)?;
    let stream = world.stream(queue.stream.as_str());
    let (last, added, gone) = (stream.last, stream.added, stream.gone());
    let first = stream.entries.keys().next().copied();
    let to = after.unwrap_or(last);
    let cursor = world.group(queue, Inlet::STREAM)?.delivered;
    let from = cursor.next().unwrap_or(EntryId::MAX);
    let entries = &world.stream(queue.stream.as_str()).entries;
    let skips = from <= to && entries.range(from..=to).next().is_some();
    if skips && unfinished == Unfinished::Keep {
        return Ok(Permitted::Refused(Obstacle::Unfinished {
            group: queue.group.to_string(),
            pending: 0,
            undelivered: true,
            retrying: 0,
            dead_letters: 0,
        }));
    }
    let group = world.group(queue, Inlet::STREAM)?;
    group.delivered = to;
    group.read = match to {
        to if to == last => Some(added),
        to if first.is_none_or(|first| to < first) => Some(gone),
        _ => None,
    };
    let pending = group.pending.keys().next().and_then(|id| id.previous());
    world.memory(queue).floor = Some(pending.map_or(to, |pending| pending.min(to)));
    Ok(Permitted::Done)
}

fn destroy_group(
    world: &mut World,
    queue: &Queue,
    unfinished: Unfinished,
) -> Result<Permitted, StoreError> {
    let now = world.now();
    let group = world.group(queue, Inlet::STREAM)?;
    let (cursor, pending) = (group.delivered, group.pending.len());
    let lane_pending = world.group(queue, Inlet::LANE).map_or(0, |group| group.pending.len());
    let beats = &world.memory(queue).beats;
    let alive = beats.iter().find(|(_, beat)| now.saturating_sub(**beat) <= milliseconds(ALIVE));
    if let Some((consumer, _)) = alive {
        let (group, consumer) = (queue.group.to_string(), consumer.clone());
        return Ok(Permitted::Refused(Obstacle::Alive { group, consumer }));
    }
    let lane = world.stream(&queue.key(Inlet::LANE)).entries.len();
    let retrying = world.waiting(queue).len() + lane.saturating_sub(lane_pending);
    let stream = world.stream(queue.stream.as_str());
    let undelivered = stream.entries.keys().next_back().is_some_and(|last| *last > cursor);
    let left = pending + lane_pending + retrying;
    if unfinished == Unfinished::Keep && (undelivered || left > 0) {
        return Ok(Permitted::Refused(Obstacle::Unfinished {
            group: queue.group.to_string(),
            pending: u64::try_from(pending + lane_pending).unwrap_or(u64::MAX),
            undelivered,
            retrying: u64::try_from(retrying).unwrap_or(u64::MAX),
            dead_letters: 0,
        }));
    }
    stream.groups.remove(queue.group.as_str());
    world.streams.remove(&queue.key(Inlet::LANE));
    world.waiting(queue).clear();
    world.groups.remove(&queue.stream.group_key(&queue.group));
    Ok(Permitted::Done)
}
