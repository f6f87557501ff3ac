//! Random lists of operations: what one store answers, so that two can be compared.
//!
//! Both stores get the same list, made from a seed. Ids that a server makes are replaced by the
//! order in which they were first seen, and times are left out: where something has to be old, the
//! test's [`Hands`](super::Hands) age it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use fastrand::Rng;

use super::{Stage, fields};
use crate::config::{Retention, Start};
use crate::entry::{Delivery, EntryId, Hold, Source};
use crate::name::ConsumerName;
use crate::store::inspect::PendingLook;
use crate::store::operate::{Cut, Destination, Selected, Trim, Unfinished};
use crate::store::{Checked, ReadRequest, StoreError, StoredDeadLetter, Sweep, Swept, append};

/// Where an id was given out; none is among the dead letters. Two streams may give out the same.
type Space = Option<Source>;

/// Carries a random list of operations out, step by step.
#[derive(Debug)]
pub struct Replay {
    stage: Stage,
    rng: Rng,
    /// Ids in the order in which they were seen first, and the other way.
    ids: Vec<EntryId>,
    order: BTreeMap<(Space, EntryId), usize>,
    /// Entries that may be held: a source, the order of an id, a delivery count.
    holds: Vec<(Source, usize, u64)>,
    letters: Vec<usize>,
    published: u64,
}

impl Replay {
    /// A list that the seed decides, on a stage of its own.
    #[must_use]
    pub fn new(stage: Stage, seed: u64) -> Self {
        Self {
            stage,
            rng: Rng::with_seed(seed),
            ids: Vec::new(),
            order: BTreeMap::new(),
            holds: Vec::new(),
            letters: Vec::new(),
            published: 0,
        }
    }

    /// Carries the next operation out: what it was, and what came of it.
    pub async fn step(&mut self) -> String {
        match self.rng.u32(0..100) {
            0..=16 => self.append().await,
            17..=36 => self.read().await,
            37..=44 => self.acknowledge().await,
            45..=50 => self.renew().await,
            51..=55 => self.release().await,
            56..=61 => self.set_aside().await,
            62..=65 => self.bury().await,
            66..=73 => self.sweep().await,
            74..=76 => self.recover().await,
            77..=81 => self.promote().await,
            82..=84 => self.letters().await,
            85..=87 => self.redrive().await,
            88 => self.pause().await,
            89..=90 => self.beat().await,
            91 => self.retire().await,
            92 => self.trim().await,
            93 => self.delete(),
            94 => self.lose_group().await,
            95..=96 => self.move_pending().await,
            _ => self.inspect().await,
        }
    }

    /// Everything that both stores have to agree on at the end.
    pub async fn state(&mut self) -> String {
        let mut state = String::new();
        for source in [Source::Stream, Source::Lane] {
            let rows = self.stage.pending(source);
            for row in rows {
                let (id, consumer) = (self.seen(Some(source), row.id), row.consumer);
                let _ = writeln!(state, "{source:?} {id} {consumer} {}", row.delivery_count);
            }
            let key = self.stage.key(source);
            let _ = writeln!(state, "{source:?} {}", self.stage.hands.length(&key));
        }
        let letters = self.stage.store.dead_letters(&self.stage.queue, EntryId::ZERO, 10_000).await;
        let letters = letters.unwrap_or_default();
        for letter in &letters {
            let letter = self.letter(letter);
            let _ = writeln!(state, "{letter}");
        }
        state + &self.facts().await
    }

    fn seen(&mut self, space: Space, id: EntryId) -> usize {
        *self.order.entry((space, id)).or_insert_with(|| {
            self.ids.push(id);
            self.ids.len() - 1
        })
    }

    fn id(&self, order: usize) -> EntryId {
        self.ids.get(order).copied().unwrap_or(JUNK)
    }

    fn consumer(&mut self) -> ConsumerName {
        if self.rng.bool() { self.stage.me.clone() } else { self.stage.other.clone() }
    }

    fn source(&mut self) -> Source {
        if self.rng.u32(0..4) == 0 { Source::Lane } else { Source::Stream }
    }

    fn index(&mut self, length: usize) -> usize {
        self.rng.usize(0..length.max(1))
    }

    /// Something that was delivered, that was, with another count, or that never was.
    fn hold(&mut self) -> Hold {
        let index = self.index(self.holds.len());
        // Mostly something recent: what is old is settled.
        let index = if self.rng.u32(0..4) > 0 {
            self.holds.len().saturating_sub(1 + index % 20)
        } else {
            index
        };
        let known = self.holds.get(index).copied();
        let (source, order, count) = known.unwrap_or((Source::Stream, usize::MAX, 1));
        let (id, count) = match self.rng.u32(0..20) {
            0 => (JUNK, count),
            1 => (self.id(order), count + 1),
            _ => (self.id(order), count),
        };
        Hold { source, id, delivery_count: count }
    }

    /// One or more, all of one source as the loops ask for them.
    fn some_holds(&mut self) -> Vec<Hold> {
        let first = self.hold();
        let more = (0..self.rng.usize(0..3)).map(|_| self.hold()).collect::<Vec<_>>();
        let mut holds = vec![first];
        holds.extend(more.into_iter().filter(|hold| hold.source == first.source));
        holds.dedup_by_key(|hold| hold.id);
        holds
    }

    fn answer<T>(
        &mut self,
        answer: Result<T, StoreError>,
        show: impl FnOnce(&mut Self, T) -> String,
    ) -> String {
        match answer {
            Ok(value) => show(self, value),
            Err(error) => error.kind().to_owned(),
        }
    }

    fn checked(&mut self, checked: Checked) -> String {
        match checked {
            Checked::Trimmed(letter) => format!("trimmed {}", self.seen(None, letter)),
            other => format!("{other:?}"),
        }
    }

    fn delivered(&mut self, deliveries: Vec<Delivery>) -> String {
        let mut text = String::new();
        for delivery in deliveries {
            let order = self.seen(Some(delivery.source), delivery.entry.id());
            self.holds.push((delivery.source, order, delivery.delivery_count));
            let (fields, count) = (delivery.entry.fields(), delivery.delivery_count);
            let _ = write!(text, "[{:?} {order} {count} {fields:?}]", delivery.source);
        }
        text
    }

    fn letter(&mut self, letter: &StoredDeadLetter) -> String {
        let order = self.seen(None, letter.id());
        let lane = letter.text("sj-dead-source") == Some("lane");
        let source = if lane { Source::Lane } else { Source::Stream };
        let mut text = format!("letter {order}");
        for (name, value) in letter.fields() {
            let id = std::str::from_utf8(value).ok().and_then(|text| text.parse::<EntryId>().ok());
            let _ = match id {
                Some(id) => write!(text, " {name:?}={}", self.seen(Some(source), id)),
                None => write!(text, " {name:?}={value:?}"),
            };
        }
        text
    }

    async fn append(&mut self) -> String {
        let count = self.rng.usize(1..4);
        let entries = (0..count).map(|_| {
            self.published += 1;
            fields(&self.published.to_string())
        });
        let entries = entries.collect::<Vec<_>>();
        let (store, stream) = (self.stage.store.clone(), self.stage.queue.stream.clone());
        let mut text = "append".to_owned();
        for answer in append(store.as_ref(), &stream, Retention::Unlimited, entries).await {
            let answer =
                self.answer(answer, |replay, id| replay.seen(Some(Source::Stream), id).to_string());
            let _ = write!(text, " {answer}");
        }
        text
    }

    async fn read(&mut self) -> String {
        let (consumer, source, count) = (self.consumer(), self.source(), self.rng.usize(0..6));
        let acks = (0..self.rng.usize(0..2)).map(|_| self.hold()).collect::<Vec<_>>();
        let acks = acks.into_iter().map(|hold| (hold.source, hold.id)).collect::<Vec<_>>();
        let request = ReadRequest { acks: &acks, source, count, block: None };
        let reply = match self.stage.reader(&consumer).await {
            Ok(mut reader) => reader.read(request).await,
            Err(error) => Err(error),
        };
        let answer = self.answer(reply, |replay, reply| {
            let acknowledged = replay.answer(reply.acknowledged, |_, count| count.to_string());
            let delivered = replay.answer(reply.deliveries, Self::delivered);
            format!("{acknowledged} acknowledged, {delivered}")
        });
        format!("read {count} of {source:?} for {consumer}: {answer}")
    }

    async fn acknowledge(&mut self) -> String {
        let acks = self.some_holds().iter().map(|hold| (hold.source, hold.id)).collect::<Vec<_>>();
        let answer = self.stage.store.acknowledge(&self.stage.queue, &acks).await;
        format!("acknowledge: {}", self.answer(answer, |_, count| count.to_string()))
    }

    async fn renew(&mut self) -> String {
        let (consumer, holds) = (self.consumer(), self.some_holds());
        let answer = self.stage.store.renew(&self.stage.queue, &consumer, &holds).await;
        let answers = answer.map(|renewed| renewed.answers);
        format!("renew for {consumer}: {}", self.answer(answers, Self::all_checked))
    }

    fn all_checked(&mut self, answers: Vec<Checked>) -> String {
        answers.into_iter().map(|one| self.checked(one)).collect::<Vec<_>>().join(", ")
    }

    async fn release(&mut self) -> String {
        let (consumer, holds) = (self.consumer(), self.some_holds());
        let store = &self.stage.store;
        let answers = store.release(&self.stage.queue, &consumer, super::LEASE, &holds).await;
        format!("release for {consumer}: {}", self.answer(answers, Self::all_checked))
    }

    /// What stands for the entry that is to be settled: mostly nothing.
    fn stand_in(&mut self) -> Option<EntryId> {
        let index = self.index(self.letters.len());
        let letter = self.letters.get(index).copied().filter(|_| self.rng.u32(0..4) == 0);
        letter.map(|order| self.id(order))
    }

    async fn set_aside(&mut self) -> String {
        let (consumer, hold, stand_in) = (self.consumer(), self.hold(), self.stand_in());
        // Due at once, or not at all while this runs.
        let delay = Duration::from_secs(if self.rng.bool() { 0 } else { 1_000_000 });
        let (store, queue) = (&self.stage.store, &self.stage.queue);
        self.published += 1;
        let job = fields(&self.published.to_string());
        let answer = store.set_aside(queue, &consumer, hold, stand_in, delay, &job).await;
        format!("set aside for {consumer}: {}", self.answer(answer, Self::checked))
    }

    async fn bury(&mut self) -> String {
        let (consumer, hold, stand_in) = (self.consumer(), self.hold(), self.stand_in());
        let (store, queue) = (&self.stage.store, &self.stage.queue);
        let letter = fields("dead");
        let answer = store.bury(queue, &consumer, hold, stand_in, &letter).await;
        format!("bury for {consumer}: {}", self.answer(answer, Self::checked))
    }

    async fn sweep(&mut self) -> String {
        let (consumer, source) = (self.consumer(), self.source());
        for hold in [self.hold(), self.hold()] {
            self.stage.abandon(hold);
        }
        let (skip, limit) = ([self.hold().id], self.rng.usize(1..4));
        let (cursor, lease) = (EntryId::ZERO, super::LEASE);
        let sweep = Sweep { source, lease, cursor, limit, expected: None, skip: &skip };
        let answer = self.stage.store.sweep(&self.stage.queue, &consumer, sweep).await;
        let answer = self.answer(answer, |replay, swept| match swept {
            Swept::Page { cursor, claimed, trimmed, left } => {
                let cursor = (cursor != EntryId::ZERO).then(|| replay.seen(Some(source), cursor));
                format!("{cursor:?} {trimmed} {left} {}", replay.delivered(claimed))
            }
            Swept::ClockOff { .. } => "clock off".to_owned(),
        });
        format!("sweep {limit} of {source:?} for {consumer}: {answer}")
    }

    async fn recover(&mut self) -> String {
        let (consumer, source) = (self.consumer(), self.source());
        let (store, queue) = (self.stage.store.clone(), self.stage.queue.clone());
        let own = store.own_pending(&queue, &consumer, source, EntryId::ZERO, 3).await;
        let Ok(holds) = own else {
            return format!("own pending: {}", self.answer(own, |_, _| String::new()));
        };
        let answer = store.recover(&queue, &consumer, &holds).await;
        format!("recover for {consumer}: {}", self.answer(answer, Self::delivered))
    }

    async fn promote(&mut self) -> String {
        let limit = self.rng.usize(0..4);
        let answer = self.stage.store.promote(&self.stage.queue, limit).await;
        let answer = self.answer(answer, |_, look| {
            let due = look.next_due.map(|due| due.is_zero());
            let (promoted, waiting, paused) = (look.promoted, look.waiting, look.paused);
            format!("{promoted} {waiting} {due:?} {paused} {}", look.left)
        });
        format!("promote {limit}: {answer}")
    }

    async fn letters(&mut self) -> String {
        let (store, queue) = (self.stage.store.clone(), self.stage.queue.clone());
        let index = self.index(self.letters.len() * 2);
        let after = self.letters.get(index).map_or(EntryId::ZERO, |order| self.id(*order));
        let answer = store.dead_letters(&queue, after, 5).await;
        let answer = self.answer(answer, |replay, letters| {
            let mut text = String::new();
            for letter in &letters {
                let order = replay.seen(None, letter.id());
                replay.letters.push(order);
                text += &replay.letter(letter);
            }
            text
        });
        format!("dead letters: {answer}")
    }

    async fn redrive(&mut self) -> String {
        let index = self.index(self.letters.len());
        let id = self.letters.get(index).map_or(JUNK, |order| self.id(*order));
        let (store, queue) = (self.stage.store.clone(), self.stage.queue.clone());
        if self.rng.bool() {
            let answer = store.purge(&queue, &[id]).await;
            return format!("purge: {}", self.answer(answer, |_, count| count.to_string()));
        }
        let answer = store.redrive(&queue, id, &fields("redriven")).await;
        let show = |replay: &mut Self, id: Option<EntryId>| {
            format!("{:?}", id.map(|id| replay.seen(Some(Source::Lane), id)))
        };
        format!("redrive: {}", self.answer(answer, show))
    }

    async fn pause(&mut self) -> String {
        let paused = self.rng.u32(0..4) == 0;
        let answer = self.stage.store.set_paused(&self.stage.queue, paused).await;
        format!("pause {paused}: {}", self.answer(answer, |_, news| news.to_string()))
    }

    async fn beat(&mut self) -> String {
        let consumer = self.consumer();
        let answer = self.stage.store.beat(&self.stage.queue, &consumer, "{}").await;
        let answer = self.answer(answer, |replay, beat| {
            // The floor may stand before an id, which is no id that was seen.
            let ids = replay.order.keys().filter(|(space, _)| *space == Some(Source::Stream));
            let behind = ids.filter(|(_, id)| *id <= beat.floor).count();
            format!("{behind} {}", beat.trimmed_unread)
        });
        format!("beat of {consumer}: {answer}")
    }

    async fn retire(&mut self) -> String {
        let consumer = self.consumer();
        let answer = self.stage.store.retire(&self.stage.queue, &consumer).await;
        format!("retire {consumer}: {}", self.answer(answer, |_, gone| gone.to_string()))
    }

    async fn trim(&mut self) -> String {
        let unfinished = if self.rng.bool() { Unfinished::Keep } else { Unfinished::Lose };
        let cut = Cut::Length(self.rng.u64(20..60));
        let trim = Trim { cut, exact: true, unfinished };
        let answer = self.stage.store.trim(&self.stage.queue.stream, trim).await;
        let answer = self.answer(answer, |replay, trimmed| {
            let held = trimmed
                .held_by
                .map(|(group, id)| (group, replay.order.get(&(Some(Source::Stream), id)).copied()));
            format!("{} {} {held:?}", trimmed.removed, trimmed.length)
        });
        format!("{trim:?}: {answer}")
    }

    fn delete(&mut self) -> String {
        let hold = self.hold();
        let key = self.stage.key(Source::Stream);
        self.stage.hands.delete(&key, hold.id);
        "delete".to_owned()
    }

    async fn lose_group(&mut self) -> String {
        if self.rng.u32(0..3) == 0 {
            let key = self.stage.key(Source::Stream);
            self.stage.hands.destroy_group(&key, self.stage.queue.group.as_str());
        }
        let (store, queue) = (self.stage.store.clone(), self.stage.queue.clone());
        let answer = match self.rng.bool() {
            true => store.prepare(&queue, Start::End).await,
            false => store.restore(&queue).await,
        };
        format!("make the group: {}", self.answer(answer, |_, made| made.to_string()))
    }

    async fn move_pending(&mut self) -> String {
        let (consumer, hold) = (self.consumer(), self.hold());
        let to = self.rng.bool().then_some(&consumer);
        let (ids, abandoned) = ([hold.id], self.rng.bool());
        let destination = Destination { consumer: to, abandoned };
        let (store, queue) = (self.stage.store.clone(), self.stage.queue.clone());
        let selected = Selected::Ids(&ids);
        let answer = store.move_pending(&queue, hold.source, selected, destination).await;
        let answer = self.answer(answer, |_, page| {
            let counts = [&page.moved, &page.trimmed, &page.missing, &page.left].map(Vec::len);
            format!("{counts:?}")
        });
        format!("move: {answer}")
    }

    async fn inspect(&mut self) -> String {
        let (source, consumer) = (self.source(), self.consumer());
        let look = PendingLook {
            source,
            after: EntryId::ZERO,
            idle: Duration::ZERO,
            consumer: self.rng.bool().then_some(consumer.as_str()),
            limit: 5,
        };
        let answer = self.stage.store.pending(&self.stage.queue, look).await;
        let rows = self.answer(answer, |replay, rows| {
            let mut text = String::new();
            for row in rows {
                let order = replay.seen(Some(source), row.id);
                let _ = write!(text, "[{order} {} {}]", row.consumer, row.delivery_count);
            }
            text
        });
        let (store, stream) = (self.stage.store.clone(), self.stage.queue.stream.clone());
        let has_idle = store.has_idle(&self.stage.queue, source, super::LEASE).await;
        let has_idle = self.answer(has_idle, |_, idle| idle.to_string());
        let info = store.stream_info(&stream).await;
        let info = self.answer(info, |replay, info| {
            let info = info.map(|info| {
                let ends = [info.first, info.last]
                    .map(|id| id.map(|id| replay.seen(Some(Source::Stream), id)));
                (info.length, ends, info.added, info.groups)
            });
            format!("{info:?}")
        });
        format!("look at {source:?}: {rows} {has_idle} {info} {}", self.facts().await)
    }

    async fn facts(&mut self) -> String {
        let answer = self.stage.store.group_facts(&self.stage.queue).await;
        self.answer(answer, |_, facts| {
            let numbers = (facts.length, facts.added, facts.pending, facts.lane_pending);
            let rest = (facts.lane_waiting, facts.set_aside, facts.dead_letters);
            format!("{numbers:?} {rest:?} {} {}", facts.paused.is_some(), facts.trimmed_unread)
        })
    }
}

/// An id that no store gives out.
const JUNK: EntryId = EntryId::new(1, 1);
