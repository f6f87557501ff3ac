//! What groups did, in memory.

use async_trait::async_trait;

use super::MemoryStore;
use super::state::milliseconds;
use crate::model::trend::shown;
use crate::store::trends::{TrendNote, TrendRange, TrendStep};
use crate::store::types::Result;
use crate::store::{Queue, Trends};

#[async_trait]
impl Trends for MemoryStore {
    async fn note_trend(&self, queue: &Queue, note: &TrendNote) -> Result<()> {
        self.step("note_trend", |state| {
            let now = state.now();
            for range in TrendRange::ALL {
                let ring = state.trends.entry(queue.trend_key(range)).or_default();
                if ring.expires <= now {
                    ring.places.clear();
                }
                ring.expires = now + milliseconds(range.span() + range.step());
                let number = range.number(now);
                let fresh = || TrendStep { number, note: TrendNote::default() };
                let step = ring.places.entry(number % range.points()).or_insert_with(fresh);
                if step.number != number {
                    *step = fresh();
                }
                step.note.add(note);
            }
            Ok(())
        })
        .await
    }

    async fn trend(&self, queue: &Queue, range: TrendRange) -> Result<(u64, Vec<TrendStep>)> {
        self.step("trend", |state| {
            let (now, ring) = (state.now(), state.trends.get(&queue.trend_key(range)));
            let ring = ring.filter(|ring| ring.expires > now);
            let mut steps =
                ring.map_or_else(Vec::new, |ring| ring.places.values().cloned().collect());
            shown(range, now, &mut steps);
            Ok((now, steps))
        })
        .await
    }
}
