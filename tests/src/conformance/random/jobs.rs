//! What the loops do to jobs.

use std::fmt::Write as _;
use std::time::Duration;

use streamjobs::__store::{
    ClaimedPage, FenceResult, Hold, IdleClaim, Inlet, NewRetry, ReadRequest, StandIn,
};
use streamjobs::EntryId;
use streamjobs::config::Retention;

use super::Replay;
use crate::conformance::{LEASE, append, fields};

impl Replay {
    pub(super) async fn append(&mut self) -> String {
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
                self.answer(answer, |replay, id| replay.seen(Some(Inlet::STREAM), id).to_string());
            let _ = write!(text, " {answer}");
        }
        text
    }

    pub(super) async fn read(&mut self) -> String {
        let (consumer, inlet, count) = (self.consumer(), self.inlet(), self.rng.usize(0..6));
        let acks = (0..self.rng.usize(0..2)).map(|_| self.hold()).collect::<Vec<_>>();
        let acks = acks.into_iter().map(|hold| (hold.inlet, hold.id)).collect::<Vec<_>>();
        let request = ReadRequest { acks: &acks, inlet, count, block: None };
        let reply = match self.stage.reader(&consumer).await {
            Ok(mut reader) => reader.read(request).await,
            Err(error) => Err(error),
        };
        let answer = self.answer(reply, |replay, reply| {
            let acknowledged = replay.answer(reply.acknowledged, |_, count| count.to_string());
            let delivered = replay.answer(reply.deliveries, Self::delivered);
            format!("{acknowledged} acknowledged, {delivered}")
        });
        format!("read {count} of {inlet:?} for {consumer}: {answer}")
    }

    pub(super) async fn acknowledge(&mut self) -> String {
        let acks = self.some_holds().iter().map(|hold| (hold.inlet, hold.id)).collect::<Vec<_>>();
        let answer = self.stage.store.acknowledge(&self.stage.queue, &acks).await;
        format!("acknowledge: {}", self.answer(answer, |_, count| count.to_string()))
    }

    pub(super) async fn renew(&mut self) -> String {
        let (consumer, holds) = (self.consumer(), self.some_holds());
        let answer = self.stage.store.renew(&self.stage.queue, &consumer, &holds).await;
        let answers = answer.map(|renewed| renewed.answers);
        format!("renew for {consumer}: {}", self.answer(answers, Self::all_checked))
    }

    fn all_checked(&mut self, answers: Vec<FenceResult>) -> String {
        answers.into_iter().map(|one| self.checked(one)).collect::<Vec<_>>().join(", ")
    }

    pub(super) async fn release(&mut self) -> String {
        let (consumer, holds) = (self.consumer(), self.some_holds());
        let store = &self.stage.store;
        let answers = store.release(&self.stage.queue, &consumer, &holds).await;
        format!("release for {consumer}: {}", self.answer(answers, Self::all_checked))
    }

    /// What stands for the entry to settle: usually nothing.
    fn stand_in(&mut self) -> Option<StandIn> {
        let index = self.index(self.letters.len());
        let letter = self.letters.get(index).copied();
        match self.rng.u32(0..6) {
            0 => letter.map(|order| StandIn::DeadLetter(self.id(order))),
            1 => Some(StandIn::Removed),
            _ => None,
        }
    }

    pub(super) async fn schedule_retries(&mut self) -> String {
        let consumer = self.consumer();
        let retries = (0..self.rng.u64(1..4)).map(|place| {
            let (hold, stand_in) = (self.hold(), self.stand_in());
            // The first job is due at once or, like the others, not while this test runs.
            let delay = if place == 0 && self.rng.bool() { 0 } else { 1_000_000 + place };
            self.published += 1;
            let job = fields(&self.published.to_string());
            NewRetry { hold, stand_in, delay: Duration::from_secs(delay), job }
        });
        let retries = retries.collect::<Vec<_>>();
        // Jobs that are due in the same millisecond are promoted in any order.
        if let Err(error) = self.stage.pass(0).await {
            return error.kind().to_owned();
        }
        let (store, queue) = (&self.stage.store, &self.stage.queue);
        let answers = store.schedule_retries(queue, &consumer, &retries).await.into_iter();
        let answers = answers.map(|answer| self.answer(answer, Self::checked)).collect::<Vec<_>>();
        format!("schedule retries for {consumer}: {}", answers.join(", "))
    }

    pub(super) async fn store_dead_letter(&mut self) -> String {
        let (consumer, hold, stand_in) = (self.consumer(), self.hold(), self.stand_in());
        let (store, queue) = (&self.stage.store, &self.stage.queue);
        let letter = fields("dead");
        let answer = store.store_dead_letter(queue, &consumer, hold, stand_in, &letter).await;
        format!("dead-letter for {consumer}: {}", self.answer(answer, Self::checked))
    }

    pub(super) async fn claim_idle(&mut self) -> String {
        let (consumer, inlet) = (self.consumer(), self.inlet());
        for hold in [self.hold(), self.hold()] {
            self.abandon(hold);
        }
        // An entry of the other inlet may have the id of another entry here.
        let skip = Some(self.hold()).filter(|hold| hold.inlet == inlet).map(|hold| hold.id);
        let (skip, limit) = (Vec::from_iter(skip), self.rng.usize(1..4));
        let (cursor, lease) = (EntryId::ZERO, LEASE);
        let claim = IdleClaim { inlet, lease, cursor, limit, expected: None, skip: &skip };
        let answer = self.stage.store.claim_idle(&self.stage.queue, &consumer, claim).await;
        let answer = self.answer(answer, |replay, page| match page {
            ClaimedPage::Page { cursor, claimed, trimmed, left, released } => {
                let cursor = (cursor != EntryId::ZERO).then(|| replay.seen(Some(inlet), cursor));
                format!("{cursor:?} {trimmed} {left} {released} {}", replay.delivered(claimed))
            }
            ClaimedPage::ClockOff { .. } => "clock off".to_owned(),
        });
        format!("claim {limit} of {inlet:?} for {consumer}: {answer}")
    }

    /// Makes an entry look abandoned, and sometimes deletes its payload. A server cannot make an entry
    /// without a payload look idle.
    fn abandon(&mut self, hold: Hold) {
        let key = self.stage.key(hold.inlet);
        let is_pending = self.stage.pending(hold.inlet).iter().any(|row| row.id == hold.id);
        if is_pending && self.stage.raw.has(&key, hold.id) {
            self.stage.abandon(hold);
            if self.rng.u32(0..6) == 0 {
                self.stage.raw.delete(&key, hold.id);
            }
        }
    }

    pub(super) async fn recover(&mut self) -> String {
        let (consumer, inlet) = (self.consumer(), self.inlet());
        let (store, queue) = (self.stage.store.clone(), self.stage.queue.clone());
        let own = store.own_pending(&queue, &consumer, inlet, EntryId::ZERO, 3).await;
        let Ok(holds) = own else {
            return format!("own pending: {}", self.answer(own, |_, _| String::new()));
        };
        let answer = store.recover(&queue, &consumer, &holds).await;
        format!("recover for {consumer}: {}", self.answer(answer, Self::delivered))
    }

    pub(super) async fn promote(&mut self) -> String {
        let limit = self.rng.usize(0..4);
        let answer = self.stage.store.promote(&self.stage.queue, &self.stage.me, limit).await;
        let answer = self.answer(answer, |_, found| {
            let due = found.next_due.map(|due| due.is_zero());
            let (promoted, waiting, paused) = (found.promoted, found.waiting, found.paused);
            format!("{promoted} {waiting} {due:?} {paused} {}", found.left)
        });
        format!("promote {limit}: {answer}")
    }
}
