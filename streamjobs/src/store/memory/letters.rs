//! Dead letters in memory, taken for an archive.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::MemoryStore;
use super::stream::Pending;
use super::world::{World, milliseconds};
use crate::model::entry::{Entry, EntryId, Inlet};
use crate::store::letters::{Letters, Returned, ReturningJob, TakenLetters, Taker, WITHHELD};
use crate::store::operate::ALIVE;
use crate::store::{Queue, Reply};

impl Letters for MemoryStore {
    fn take_letters<'a>(
        &'a self,
        queue: &'a Queue,
        by: &'a Taker,
        limit: usize,
    ) -> Reply<'a, TakenLetters> {
        self.reply("take_letters", move |world| Ok(take(world, queue, by, limit)))
    }

    fn settle_letters<'a>(
        &'a self,
        queue: &'a Queue,
        by: &'a Taker,
        ids: &'a [EntryId],
    ) -> Reply<'a, usize> {
        self.reply("settle_letters", move |world| {
            let dead = world.dead(queue);
            let Some(group) = dead.groups.get_mut(by.group_name()) else { return Ok(0) };
            let taken = ids.iter().filter(|id| group.pending.remove(id).is_some());
            Ok(taken.filter(|id| dead.entries.remove(id).is_some()).count())
        })
    }

    fn put_back<'a>(
        &'a self,
        queue: &'a Queue,
        jobs: &'a [ReturningJob],
        keep: Duration,
    ) -> BoxFuture<'a, Vec<Returned>> {
        let answers = jobs
            .iter()
            .map(|job| self.step("put_back", |world| put_back(world, queue, job, keep)))
            .collect();
        self.changed.notify_waiters();
        ready(answers).boxed()
    }
}

fn put_back(world: &mut World, queue: &Queue, job: &ReturningJob, keep: Duration) -> Returned {
    let now = world.now();
    let token = queue.stream.redriven_key(&queue.group, &job.token);
    if world.tokens.get(&token).is_some_and(|until| now < *until) {
        return Ok(None);
    }
    world.group(queue, Inlet::STREAM)?;
    world.ensure_group(queue, Inlet::LANE, EntryId::ZERO);
    let id = world.stream(&queue.key(Inlet::LANE)).append(now, job.fields.clone());
    world.tokens.insert(token, now.saturating_add(milliseconds(keep).max(1)));
    Ok(Some(id))
}

fn take(world: &mut World, queue: &Queue, by: &Taker, limit: usize) -> TakenLetters {
    let (now, lease) = (world.now(), milliseconds(by.lease_time()));
    let beats = world.memory(queue).beats.clone();
    let lives = |consumer: &str| {
        beats.get(consumer).is_some_and(|beat| now.saturating_sub(*beat) <= milliseconds(ALIVE))
    };
    let is_left = |letter: &Entry| {
        let young = now.saturating_sub(letter.id().milliseconds()) <= milliseconds(WITHHELD);
        let loss = letter.text("sj-dead-reason") == Some("trimmed");
        loss && young && letter.text("sj-dead-consumer").is_some_and(lives)
    };
    let dead = world.dead(queue);
    let mut taken = TakenLetters::default();
    if limit == 0 || (dead.entries.is_empty() && !dead.groups.contains_key(by.group_name())) {
        return taken;
    }
    let consumer = by.consumer().as_str();
    let group = dead.groups.entry(by.group_name().to_owned()).or_default();
    let late = group.pending.iter().filter(|(_, row)| row.idle(now) >= lease).take(limit);
    let late = late.map(|(id, _)| *id).collect::<Vec<_>>();
    let (full, mut left) = (late.len() == limit, 0);
    for id in late {
        let Some(fields) = dead.entries.get(&id).cloned() else {
            group.pending.remove(&id);
            taken.gone += 1;
            continue;
        };
        let count = group.pending.get(&id).map_or(0, |row| row.delivery_count);
        let row = Pending { consumer: consumer.to_owned(), since: now, delivery_count: count + 1 };
        group.pending.insert(id, row);
        group.consumers.insert(consumer.to_owned());
        let letter = Entry::new(id, fields);
        if is_left(&letter) {
            left += 1;
        } else {
            taken.letters.push(letter);
        }
    }
    let rest = limit.saturating_sub(taken.letters.len());
    let fresh = dead.deliver(by.group_name(), consumer, rest, now).unwrap_or_default();
    taken.more = full && left < limit || rest > 0 && fresh.len() == rest;
    let fresh = fresh.into_iter().map(|(id, fields)| Entry::new(id, fields));
    taken.letters.extend(fresh.filter(|letter| !is_left(letter)));
    taken
}
