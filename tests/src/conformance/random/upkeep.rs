//! What operators and the slow loops do to streams and groups.

use std::fmt::Write as _;
use std::time::Duration;

use streamjobs::__store::Inlet;
use streamjobs::__store::admin::{Cut, Destination, Selected, Trim, Unfinished};
use streamjobs::__store::inspect::PendingFilter;
use streamjobs::EntryId;
use streamjobs::config::Start;

use super::Replay;
use crate::conformance::{LEASE, fields};

impl Replay {
    pub(super) async fn letters(&mut self) -> String {
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

    pub(super) async fn redrive(&mut self) -> String {
        let id = self.some_letter();
        let (store, queue) = (self.stage.store.clone(), self.stage.queue.clone());
        if self.rng.bool() {
            let answer = store.purge(&queue, &[id]).await;
            return format!("purge: {}", self.answer(answer, |_, count| count.to_string()));
        }
        let answer = store.redrive(&queue, id, &fields("redriven")).await;
        let show = |replay: &mut Self, id: Option<EntryId>| {
            format!("{:?}", id.map(|id| replay.seen(Some(Inlet::LANE), id)))
        };
        format!("redrive: {}", self.answer(answer, show))
    }

    pub(super) async fn pause(&mut self) -> String {
        let paused = self.rng.u32(0..4) == 0;
        let answer = self.stage.store.set_paused(&self.stage.queue, paused).await;
        format!("pause {paused}: {}", self.answer(answer, |_, news| news.to_string()))
    }

    pub(super) async fn heartbeat(&mut self) -> String {
        let consumer = self.consumer();
        let answer = self.stage.store.heartbeat(&self.stage.queue, &consumer, "{}").await;
        let answer = self.answer(answer, |replay, recorded| {
            // The floor may be just before an id, and not an id that was seen itself.
            let behind = replay.seen_before(recorded.floor.next().unwrap_or(EntryId::MAX));
            behind.to_string()
        });
        format!("heartbeat of {consumer}: {answer}")
    }

    pub(super) async fn retire(&mut self) -> String {
        let consumer = self.consumer();
        let answer = self.stage.store.retire(&self.stage.queue, &consumer).await;
        format!("retire {consumer}: {}", self.answer(answer, |_, gone| gone.to_string()))
    }

    pub(super) async fn trim(&mut self) -> String {
        let unfinished = if self.rng.bool() { Unfinished::Keep } else { Unfinished::Lose };
        let cut = Cut::Length(self.rng.u64(20..60));
        let trim = Trim { cut, exact: true, unfinished };
        let answer = self.stage.store.trim(&self.stage.queue.stream, trim).await;
        let answer = self.answer(answer, |replay, trimmed| {
            // The first id that is needed may have no entry yet.
            let held = trimmed.blocked_by.map(|(group, id)| (group, replay.seen_before(id)));
            format!("{} {} {held:?}", trimmed.removed, trimmed.length)
        });
        format!("{trim:?}: {answer}")
    }

    pub(super) fn delete(&mut self) -> String {
        let hold = self.hold();
        let key = self.stage.key(hold.inlet);
        self.stage.raw.delete(&key, hold.id);
        "delete".to_owned()
    }

    pub(super) async fn lose_group(&mut self) -> String {
        if self.rng.u32(0..3) == 0 {
            let key = self.stage.key(Inlet::STREAM);
            self.stage.raw.destroy_group(&key, self.stage.queue.group.as_str());
        }
        let (store, queue) = (self.stage.store.clone(), self.stage.queue.clone());
        let answer = match self.rng.bool() {
            true => store.prepare(&queue, Start::End).await.map(|made| format!("{made:?}")),
            false => store.recreate(&queue).await.map(|made| made.to_string()),
        };
        format!("make the group: {}", self.answer(answer, |_, made| made))
    }

    pub(super) async fn move_pending(&mut self) -> String {
        let (consumer, hold) = (self.consumer(), self.hold());
        let ids = [hold.id];
        let destination = match (self.rng.bool(), self.rng.bool()) {
            (true, true) => Destination::Released,
            _ => Destination::Consumer(&consumer),
        };
        let (store, queue) = (self.stage.store.clone(), self.stage.queue.clone());
        let selected = Selected::Ids(&ids);
        let answer = store.move_pending(&queue, hold.inlet, selected, destination).await;
        let answer = self.answer(answer, |_, page| {
            let counts = [&page.moved, &page.trimmed, &page.missing, &page.unstored].map(Vec::len);
            format!("{counts:?}")
        });
        format!("move: {answer}")
    }

    pub(super) async fn inspect(&mut self) -> String {
        let (inlet, consumer) = (self.inlet(), self.consumer());
        let filter = PendingFilter {
            inlet,
            after: EntryId::ZERO,
            idle: Duration::ZERO,
            consumer: self.rng.bool().then_some(consumer.as_str()),
            limit: 5,
        };
        let answer = self.stage.store.pending(&self.stage.queue, filter).await;
        let rows = self.answer(answer, |replay, rows| {
            let mut text = String::new();
            for row in rows {
                let order = replay.seen(Some(inlet), row.id);
                let _ = write!(text, "[{order} {} {}]", row.consumer, row.delivery_count);
            }
            text
        });
        let (store, stream) = (self.stage.store.clone(), self.stage.queue.stream.clone());
        let has_idle = store.has_idle(&self.stage.queue, inlet, LEASE, Duration::ZERO).await;
        let has_idle = self.answer(has_idle, |_, idle| format!("{idle:?}"));
        let info = store.stream_info(&stream).await;
        let info = self.answer(info, |replay, info| {
            let info = info.map(|info| {
                let ends = [info.first, info.last]
                    .map(|id| id.map(|id| replay.seen(Some(Inlet::STREAM), id)));
                (info.length, ends, info.added, info.groups)
            });
            format!("{info:?}")
        });
        let sizes = store.stream_sizes(&stream).await;
        let sizes = self.answer(sizes, |_, sizes| {
            format!("{:?}", sizes.map(|sizes| (sizes.length, sizes.added, sizes.groups)))
        });
        format!("inspect {inlet:?}: {rows} {has_idle} {info} {sizes} {}", self.facts().await)
    }

    pub(super) async fn facts(&mut self) -> String {
        let answer = self.stage.store.group_facts(&self.stage.queue).await;
        self.answer(answer, |_, facts| {
            let numbers = (facts.length, facts.pending, facts.lane_pending);
            let rest = (facts.lane_waiting, facts.retrying, facts.dead_letters);
            format!("{numbers:?} {rest:?} {}", facts.paused.is_some())
        })
    }
}
