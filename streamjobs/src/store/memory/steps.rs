//! The steps of the store's contract, each as one change of the world.

use std::time::Duration;

use super::stream::Stream;
use super::world::{World, milliseconds};
use crate::model::config::{Retention, Start};
use crate::model::entry::{Delivery, EntryId, Fields, Hold, Inlet};
use crate::model::name::StreamName;
use crate::store::{
    ClaimedPage, FenceResult, Idle, IdleClaim, Promoted, Queue, Recorded, Renewed, ServerTime,
    StoreError, StoredDeadLetter,
};

type Step<T> = Result<T, StoreError>;

pub(super) fn append(
    world: &mut World,
    stream: &StreamName,
    retention: Retention,
    fields: Fields,
) -> EntryId {
    let now = world.now();
    let stream = world.stream(stream.as_str());
    let id = stream.append(now, fields);
    if let Retention::MaxLen(entries) | Retention::MaxLenExact(entries) = retention {
        let kept = usize::try_from(entries.get()).unwrap_or(usize::MAX);
        stream.trim(stream.entries.len().saturating_sub(kept), |_| true);
    }
    id
}

/// Makes the group on the stream and on the lane: where it was made.
pub(super) fn prepare(world: &mut World, queue: &Queue, start: Start) -> (bool, bool) {
    let last = world.stream(queue.stream.as_str()).last;
    let floor = world.memory(queue).floor;
    let from = match (floor, start) {
        // A floor past the end belongs to a stream that is gone.
        (Some(floor), _) => {
            if floor > last {
                EntryId::ZERO
            } else {
                floor
            }
        }
        (None, Start::Beginning) => EntryId::ZERO,
        (None, Start::End) => last,
        (None, Start::After(id)) => id,
    };
    let made = world.ensure_group(queue, Inlet::STREAM, from);
    if made {
        world.memory(queue).floor = Some(from);
    }
    (made, world.ensure_group(queue, Inlet::LANE, EntryId::ZERO))
}

pub(super) fn acknowledge(world: &mut World, queue: &Queue, acks: &[(Inlet, EntryId)]) -> usize {
    acks.iter().filter(|(inlet, id)| world.acknowledge(queue, *inlet, *id)).count()
}

pub(super) fn renew(
    world: &mut World,
    queue: &Queue,
    consumer: &str,
    holds: &[Hold],
) -> Step<Renewed> {
    let now = world.now();
    let mut answers = Vec::with_capacity(holds.len());
    for hold in holds {
        let mut checked = world.check(queue, consumer, *hold)?;
        if checked == FenceResult::Owned {
            match world.payload(queue, hold.inlet, hold.id)? {
                Ok(fields) => drop(world.redeliver(queue, *hold, fields, |row| row.since = now)?),
                Err(letter) => checked = FenceResult::Trimmed(letter),
            }
        }
        answers.push(checked);
    }
    Ok(Renewed { now: ServerTime(now), answers })
}

pub(super) fn release(
    world: &mut World,
    queue: &Queue,
    consumer: &str,
    lease: u64,
    holds: &[Hold],
) -> Step<Vec<FenceResult>> {
    let since = world.now().saturating_sub(lease).saturating_sub(DAY);
    let mut answers = Vec::with_capacity(holds.len());
    for hold in holds {
        let mut checked = world.check(queue, consumer, *hold)?;
        if checked == FenceResult::Owned {
            match world.payload(queue, hold.inlet, hold.id)? {
                Ok(fields) => {
                    world.redeliver(queue, *hold, fields, |row| {
                        row.since = since;
                        row.delivery_count = row.delivery_count.saturating_sub(1);
                    })?;
                    world.memory(queue).released += 1;
                }
                Err(letter) => checked = FenceResult::Trimmed(letter),
            }
        }
        answers.push(checked);
    }
    Ok(answers)
}

/// What a job's next form takes the place of.
#[derive(Clone, Copy)]
pub(super) struct Settling<'a> {
    pub(super) consumer: &'a str,
    pub(super) hold: Hold,
    pub(super) trimmed: Option<EntryId>,
}

impl Settling<'_> {
    /// Stores the next form if the attempt has the entry, or a dead letter stands for it.
    fn settle(
        self,
        world: &mut World,
        queue: &Queue,
        store: impl FnOnce(&mut World),
    ) -> Step<FenceResult> {
        let checked = world.check(queue, self.consumer, self.hold)?;
        let stands = |letter: &EntryId| world.dead(queue).entries.contains_key(letter);
        let letter = match checked {
            FenceResult::NotPending => self.trimmed.filter(stands),
            _ => None,
        };
        if checked != FenceResult::Owned && letter.is_none() {
            return Ok(checked);
        }
        store(world);
        if let Some(letter) = letter {
            world.dead(queue).entries.remove(&letter);
        }
        world.acknowledge(queue, self.hold.inlet, self.hold.id);
        Ok(FenceResult::Owned)
    }
}

pub(super) fn schedule_retry(
    world: &mut World,
    queue: &Queue,
    settling: Settling<'_>,
    delay: u64,
    job: &Fields,
) -> Step<FenceResult> {
    settling.settle(world, queue, |world| {
        let due = world.now().saturating_add(delay);
        world.put_aside(queue, due, None, job.clone());
    })
}

pub(super) fn store_dead_letter(
    world: &mut World,
    queue: &Queue,
    settling: Settling<'_>,
    letter: &Fields,
) -> Step<FenceResult> {
    settling.settle(world, queue, |world| {
        let now = world.now();
        world.dead(queue).append(now, letter.clone());
    })
}

pub(super) fn claim_idle(
    world: &mut World,
    queue: &Queue,
    consumer: &str,
    sweep: IdleClaim<'_>,
) -> Step<ClaimedPage> {
    let now = world.now();
    if let Some((ServerTime(expected), tolerance)) = sweep.expected
        && now.abs_diff(expected) > milliseconds(tolerance)
    {
        return Ok(ClaimedPage::ClockOff { now: ServerTime(now) });
    }
    let inlet = sweep.inlet;
    let rows = world.group(queue, inlet)?.pending.iter().filter(|(id, _)| **id > sweep.cursor);
    let rows = rows.take(ROWS_MAX).map(|(id, row)| (*id, row.clone())).collect::<Vec<_>>();
    let (mut claimed, mut trimmed, mut cursor) = (Vec::<Delivery>::new(), 0, EntryId::ZERO);
    let mut ended = rows.len() < ROWS_MAX;
    for (id, row) in rows {
        if claimed.len() + trimmed >= sweep.limit {
            ended = false;
            break;
        }
        cursor = id;
        if row.idle(now) < milliseconds(sweep.lease) || sweep.skip.contains(&id) {
            continue;
        }
        match world.payload(queue, inlet, id)? {
            Ok(fields) => {
                let hold = Hold { inlet, id, delivery_count: row.delivery_count };
                claimed.push(world.redeliver(queue, hold, fields, |row| {
                    row.since = now;
                    row.delivery_count += 1;
                    consumer.clone_into(&mut row.consumer);
                })?);
            }
            Err(_letter) => trimmed += 1,
        }
    }
    let cursor = if ended { EntryId::ZERO } else { cursor.max(sweep.cursor) };
    Ok(ClaimedPage::Page { cursor, claimed, trimmed, left: 0 })
}

pub(super) fn recover(
    world: &mut World,
    queue: &Queue,
    consumer: &str,
    holds: &[Hold],
) -> Step<Vec<Delivery>> {
    let now = world.now();
    let mut deliveries = Vec::new();
    for hold in holds {
        if world.check(queue, consumer, *hold)? != FenceResult::Owned {
            continue;
        }
        if let Ok(fields) = world.payload(queue, hold.inlet, hold.id)? {
            deliveries.push(world.redeliver(queue, *hold, fields, |row| row.since = now)?);
        }
    }
    Ok(deliveries)
}

pub(super) fn promote(world: &mut World, queue: &Queue, limit: usize) -> Step<Promoted> {
    let now = world.now();
    world.ensure_group(queue, Inlet::LANE, EntryId::ZERO);
    let paused = world.memory(queue).paused.is_some();
    let limit = if paused { 0 } else { limit };
    let due = world.waiting(queue).range(..=(now, u64::MAX)).take(limit).map(|(key, _)| *key);
    let due = due.collect::<Vec<_>>();
    let promoted = due.len();
    for key in due {
        if let Some(job) = world.waiting(queue).remove(&key) {
            world.stream(&queue.key(Inlet::LANE)).append(now, job.fields);
        }
    }
    let next_due = world.waiting(queue).keys().next().map(|(due, _)| due.saturating_sub(now));
    let in_lane = world.group(queue, Inlet::LANE)?.pending.len();
    let waiting = world.stream(&queue.key(Inlet::LANE)).entries.len().saturating_sub(in_lane);
    let pending = in_lane + world.group(queue, Inlet::STREAM).map_or(0, |on| on.pending.len());
    let released = world.memory(queue).released;
    let next_due = next_due.filter(|_| !paused).map(Duration::from_millis);
    let now = ServerTime(now);
    Ok(Promoted { promoted, waiting, pending, next_due, released, left: 0, paused, now })
}

pub(super) fn has_idle(
    world: &mut World,
    queue: &Queue,
    inlet: Inlet,
    lease: Duration,
    valid: Duration,
) -> Step<Idle> {
    let (now, lease) = (world.now(), milliseconds(lease));
    let note = world.memory(queue).looked.get(&inlet).filter(|(_, of)| *of <= lease);
    let ago = note.and_then(|(at, _)| now.checked_sub(*at)).map(Duration::from_millis);
    if let Some(ago) = ago.filter(|ago| *ago < valid) {
        return Ok(Idle::NotFound { ago });
    }
    if world.group(queue, inlet)?.pending.values().any(|row| row.idle(now) >= lease) {
        return Ok(Idle::Found);
    }
    world.memory(queue).looked.insert(inlet, (now, lease));
    Ok(Idle::NotFound { ago: Duration::ZERO })
}

pub(super) fn set_paused(world: &mut World, queue: &Queue, paused: bool) -> bool {
    let now = world.now();
    let memory = world.memory(queue);
    let changes = memory.paused.is_some() != paused;
    memory.paused = if paused { memory.paused.or(Some(now)) } else { None };
    changes
}

pub(super) fn heartbeat(
    world: &mut World,
    queue: &Queue,
    consumer: &str,
    about: &str,
) -> Step<Recorded> {
    let now = world.now();
    world.group(queue, Inlet::STREAM)?;
    let trimmed_unread = count_trimmed(world.stream(queue.stream.as_str()), queue);
    let group = world.group(queue, Inlet::STREAM)?;
    let floor = match group.pending.keys().next() {
        Some(id) => id.previous().unwrap_or(EntryId::ZERO),
        None => group.delivered,
    };
    let memory = world.memory(queue);
    memory.floor = Some(floor);
    memory.trimmed_unread += trimmed_unread;
    memory.beats.insert(consumer.to_owned(), now);
    memory.about.insert(consumer.to_owned(), about.to_owned());
    Ok(Recorded { floor, trimmed_unread })
}

/// Entries that went before the group had got them, each told once.
fn count_trimmed(stream: &mut Stream, queue: &Queue) -> u64 {
    let gone = stream.gone();
    let Some(group) = stream.groups.get_mut(queue.group.as_str()) else { return 0 };
    match group.read {
        Some(read) if gone > read => {
            group.read = Some(gone);
            gone - read
        }
        _ => 0,
    }
}

pub(super) fn retire(world: &mut World, queue: &Queue, consumer: &str) -> bool {
    let busy = SOURCES.iter().any(|inlet| {
        let group = world.group(queue, *inlet);
        group.is_ok_and(|group| group.pending.values().any(|row| row.consumer == consumer))
    });
    if !busy {
        for inlet in SOURCES {
            if let Ok(group) = world.group(queue, inlet) {
                group.consumers.remove(consumer);
            }
        }
        world.memory(queue).beats.remove(consumer);
        world.memory(queue).about.remove(consumer);
    }
    !busy
}

pub(super) fn retire_dead(world: &mut World, queue: &Queue, silence: u64) -> usize {
    let now = world.now();
    let mut consumers = std::collections::BTreeSet::new();
    for inlet in SOURCES {
        if let Ok(group) = world.group(queue, inlet) {
            consumers.extend(group.consumers.iter().cloned());
        }
    }
    let mut retired = 0;
    for consumer in consumers {
        let beat = *world.memory(queue).beats.entry(consumer.clone()).or_insert(now);
        if now.saturating_sub(beat) > silence && retire(world, queue, &consumer) {
            retired += 1;
        }
    }
    retired
}

pub(super) fn dead_letters(
    world: &mut World,
    queue: &Queue,
    after: EntryId,
    limit: usize,
) -> Vec<StoredDeadLetter> {
    let Stream { entries, .. } = world.dead(queue);
    let later = entries.iter().filter(|(id, _)| **id > after).take(limit);
    later.map(|(id, fields)| StoredDeadLetter::new(*id, fields.clone())).collect()
}

pub(super) fn redrive(
    world: &mut World,
    queue: &Queue,
    id: EntryId,
    job: &Fields,
) -> Option<EntryId> {
    world.dead(queue).entries.remove(&id)?;
    world.ensure_group(queue, Inlet::LANE, EntryId::ZERO);
    let now = world.now();
    Some(world.stream(&queue.key(Inlet::LANE)).append(now, job.clone()))
}

pub(super) const SOURCES: [Inlet; 2] = [Inlet::STREAM, Inlet::LANE];
const ROWS_MAX: usize = 1_000;
pub(super) const DAY: u64 = 24 * 60 * 60 * 1_000;
