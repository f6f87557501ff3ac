//! What groups did: two hashes beside the stream.

use async_trait::async_trait;
use redis::Cmd;

use super::script::scripts;
use super::{RedisStore, milliseconds, reply};
use crate::model::trend::shown;
use crate::store::trends::{TrendNote, TrendRange, TrendStep};
use crate::store::types::Result;
use crate::store::{Queue, Trends};

scripts! {
    NOTE_TREND = "note_trend";
    READ_TREND = "read_trend";
}

#[async_trait]
impl Trends for RedisStore {
    async fn note_trend(&self, queue: &Queue, note: &TrendNote) -> Result<()> {
        let keys = TrendRange::ALL.map(|range| queue.trend_key(range));
        let add = |command: &mut Cmd| {
            for word in note.words() {
                command.arg(word);
            }
            for range in TrendRange::ALL {
                command.arg(milliseconds(range.step())).arg(range.points());
            }
        };
        let value = self.script(&NOTE_TREND, &keys.each_ref().map(String::as_str), add).await?;
        reply::number(value, NOTE_TREND.name).map(drop)
    }

    async fn trend(&self, queue: &Queue, range: TrendRange) -> Result<(u64, Vec<TrendStep>)> {
        let name = READ_TREND.name;
        let value = self.script(&READ_TREND, &[&queue.trend_key(range)], |_| {}).await?;
        let mut items = reply::items(value, name)?.into_iter();
        let now = reply::number(reply::next(&mut items, name)?, name)?;
        let mut steps = Vec::new();
        for text in items {
            // Another client can have written anything.
            steps.extend(TrendStep::read(&reply::lossy(text, name)?));
        }
        shown(range, now, &mut steps);
        Ok((now, steps))
    }
}
