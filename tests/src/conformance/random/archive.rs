//! What an archive does to dead letters, and what handlers do to marks.

use std::time::Duration;

use streamjobs::__store::Inlet;
use streamjobs::__store::dead_letters::{RedriveRequest, RedriveToken, Taker};
use streamjobs::__store::marks::{MarkBegin, Marked};
use streamjobs::{ConsumerName, EntryId};

use super::{JUNK, Replay};
use crate::conformance::{BoxError, LEASE, fields};

impl Replay {
    pub(super) async fn take_letters(&mut self) -> String {
        let limit = self.rng.usize(1..4);
        let Ok(taker) = self.taker() else { return "no taker".to_owned() };
        let (store, queue) = (self.stage.store.clone(), self.stage.queue.clone());
        let answer = store.take_letters(&queue, &taker, limit).await;
        let answer = self.answer(answer, |replay, taken| {
            let mut text = format!("{} gone, more: {}", taken.missing, taken.has_more);
            for letter in &taken.letters {
                let order = replay.seen(None, letter.id());
                replay.letters.push(order);
                text += &replay.letter(letter);
            }
            text
        });
        format!("take {limit} letters: {answer}")
    }

    pub(super) async fn settle_letters(&mut self) -> String {
        let Ok(taker) = self.taker() else { return "no taker".to_owned() };
        let mut ids = vec![self.some_letter(), self.some_letter()];
        ids.dedup();
        let answer = self.stage.store.settle_letters(&self.stage.queue, &taker, &ids).await;
        format!("settle letters: {}", self.answer(answer, |_, count| count.to_string()))
    }

    pub(super) async fn still_taken(&mut self) -> String {
        let Ok(taker) = self.taker() else { return "no taker".to_owned() };
        let mut ids = vec![self.some_letter(), self.some_letter()];
        ids.dedup();
        let answer = self.stage.store.still_taken(&self.stage.queue, &taker, &ids).await;
        format!("still taken: {}", self.answer(answer, |_, found| found.len().to_string()))
    }

    /// One of two takers; sometimes one whose letters have been taken for too long.
    fn taker(&mut self) -> Result<Taker, BoxError> {
        let letter = self.some_letter();
        let key = self.stage.dead_key();
        let is_pending = self.stage.raw.pending(&key, GROUP).iter().any(|row| row.id == letter);
        if is_pending && self.stage.raw.has(&key, letter) && self.rng.u32(0..3) == 0 {
            self.stage.raw.age(&key, GROUP, letter, LEASE * 2);
        }
        let name = if self.rng.bool() { "one" } else { "two" };
        Ok(Taker::new(ConsumerName::new(name)?).lease(LEASE))
    }

    pub(super) fn some_letter(&mut self) -> EntryId {
        let index = self.index(self.letters.len());
        self.letters.get(index).map_or(JUNK, |order| self.id(*order))
    }

    pub(super) async fn redrive_archived(&mut self) -> String {
        let mut jobs = Vec::new();
        for _ in 0..self.rng.usize(1..4) {
            // There are few tokens, so that some were used before.
            let Ok(token) = RedriveToken::new(format!("token-{}", self.rng.u32(0..40))) else {
                return "no token".to_owned();
            };
            self.published += 1;
            jobs.push(RedriveRequest { fields: fields(&self.published.to_string()), token });
        }
        let (store, queue) = (self.stage.store.clone(), self.stage.queue.clone());
        let mut text = "redrive archived".to_owned();
        for answer in store.redrive_archived(&queue, &jobs, LEASE).await {
            text += " ";
            text += &self.answer(answer, |replay, id| {
                let order = id.map(|id| replay.seen(Some(Inlet::LANE), id));
                format!("{order:?}")
            });
        }
        text
    }

    pub(super) async fn mark(&mut self) -> String {
        let key = format!("key-{}", self.rng.u32(0..4));
        let owner = format!("owner-{}", self.rng.u32(0..3));
        let (store, queue) = (self.stage.store.clone(), self.stage.queue.clone());
        match self.rng.u32(0..4) {
            0 => {
                let answer = store.finish_mark(&queue, &key, LEASE).await;
                format!("finish {key}: {}", self.answer(answer, |_, ()| "done".to_owned()))
            }
            1 => {
                let answer = store.undo_mark(&queue, &key, &owner).await;
                format!("undo {key} of {owner}: {}", self.answer(answer, |_, it| it.to_string()))
            }
            _ => {
                let origin = EntryId::new(self.rng.u64(1..3), 0);
                // The mark's time is over at once, or not while this test runs.
                let expiry = if self.rng.u32(0..4) == 0 { Duration::ZERO } else { LEASE };
                let begin = MarkBegin::new(&owner, origin, expiry, LEASE);
                let answer = store.begin_mark(&queue, &key, begin).await;
                let answer = self.answer(answer, |_, marked| match marked {
                    Marked::Running { .. } => "running".to_owned(),
                    marked => format!("{marked:?}"),
                });
                format!("begin {key} by {owner} for {origin}: {answer}")
            }
        }
    }
}

/// The group of takers that do not name one.
pub(super) const GROUP: &str = "archive";
