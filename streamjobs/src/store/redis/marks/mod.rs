//! Marks: each is a hash of its own that expires.

use std::time::Duration;

use async_trait::async_trait;

use super::script::scripts;
use super::{DELAY_MAX, RedisStore, milliseconds, reply};
use crate::store::marks::{MarkBegin, Marked};
use crate::store::types::Result;
use crate::store::{Marks, Queue, StoreError};

scripts! {
    BEGIN_MARK = "begin_mark";
    FINISH_MARK = "finish_mark";
    UNDO_MARK = "undo_mark";
}

#[async_trait]
impl Marks for RedisStore {
    async fn begin_mark(&self, queue: &Queue, key: &str, begin: MarkBegin<'_>) -> Result<Marked> {
        let name = BEGIN_MARK.name;
        // If the mark expired before the work's time is over, others could begin too early.
        let keep = expiry(begin.keep.max(begin.expiry));
        let arguments = (begin.owner, begin.origin.to_string(), expiry(begin.expiry), keep);
        let value = self.run(&BEGIN_MARK, &[&queue.mark_key(key)], arguments).await?;
        let mut items = reply::items(value, name)?.into_iter();
        let mut next = || reply::next(&mut items, name);
        match reply::text(next()?, name)?.as_str() {
            "done" => Ok(Marked::Done),
            "running" => {
                Ok(Marked::Running { rest: Duration::from_millis(reply::number(next()?, name)?) })
            }
            "begun" => Ok(Marked::Begun { takeover: reply::flag(&next()?, name)? }),
            _ => Err(StoreError::Protocol { command: name }),
        }
    }

    async fn finish_mark(&self, queue: &Queue, key: &str, keep: Duration) -> Result<()> {
        self.run(&FINISH_MARK, &[&queue.mark_key(key)], expiry(keep)).await.map(drop)
    }

    async fn undo_mark(&self, queue: &Queue, key: &str, owner: &str) -> Result<bool> {
        reply::flag(&self.run(&UNDO_MARK, &[&queue.mark_key(key)], owner).await?, UNDO_MARK.name)
    }
}

/// The server refuses zero, and times that are too long.
fn expiry(duration: Duration) -> u64 {
    milliseconds(duration).clamp(1, DELAY_MAX)
}
