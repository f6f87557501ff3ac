//! Keeps marks, each in a hash of its own that the server forgets.

use std::time::Duration;

use redis::Cmd;

use super::held::DELAY_MAX;
use super::net::Link;
use super::{RedisStore, milliseconds, reply};
use crate::store::marks::{MarkBegin, MarkStore, Marked};
use crate::store::{Queue, Reply, StoreError, script};

impl MarkStore for RedisStore {
    fn begin_mark<'a>(
        &'a self,
        queue: &'a Queue,
        key: &'a str,
        begin: MarkBegin<'a>,
    ) -> Reply<'a, Marked> {
        Box::pin(begin_mark(&self.link, queue, key, begin))
    }

    fn finish_mark<'a>(&'a self, queue: &'a Queue, key: &'a str, keep: Duration) -> Reply<'a, ()> {
        Box::pin(async move {
            let key = queue.stream.once_key(&queue.group, key);
            let add = |command: &mut Cmd| {
                command.arg(time(keep));
            };
            self.link.script(&script::FINISH_MARK, &[&key], add).await.map(drop)
        })
    }

    fn undo_mark<'a>(&'a self, queue: &'a Queue, key: &'a str, owner: &'a str) -> Reply<'a, bool> {
        Box::pin(async move {
            let key = queue.stream.once_key(&queue.group, key);
            let add = |command: &mut Cmd| {
                command.arg(owner);
            };
            let value = self.link.script(&script::UNDO_MARK, &[&key], add).await?;
            Ok(reply::size(&value, script::UNDO_MARK.name)? > 0)
        })
    }
}

async fn begin_mark(
    link: &Link,
    queue: &Queue,
    key: &str,
    begin: MarkBegin<'_>,
) -> Result<Marked, StoreError> {
    let name = script::BEGIN_MARK.name;
    let key = queue.stream.once_key(&queue.group, key);
    // A mark that runs out later than it is forgotten would not be seen to its end.
    let keep = time(begin.keep.max(begin.expiry));
    let add = |command: &mut Cmd| {
        command.arg(begin.owner).arg(begin.origin.to_string());
        command.arg(time(begin.expiry)).arg(keep);
    };
    let value = link.script(&script::BEGIN_MARK, &[&key], add).await?;
    let mut items = reply::items(value, name)?.into_iter();
    let mut next = || items.next().ok_or(StoreError::Protocol { command: name });
    match reply::text(next()?, name)?.as_str() {
        "done" => Ok(Marked::Done),
        "running" => {
            Ok(Marked::Running { rest: Duration::from_millis(reply::number(next()?, name)?) })
        }
        "begun" => Ok(Marked::Begun { takeover: reply::size(&next()?, name)? > 0 }),
        _ => Err(StoreError::Protocol { command: name }),
    }
}

/// The server refuses none and too many.
fn time(duration: Duration) -> u64 {
    milliseconds(duration).clamp(1, DELAY_MAX)
}
