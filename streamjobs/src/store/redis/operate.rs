//! What an operator does to streams, groups and pending entries.

use redis::{Cmd, Value};

use super::acknowledge::{IDS_MAX, add_ids};
use super::held::ABANDONED_IDLE;
use super::net::Link;
use super::{RedisStore, milliseconds, reply};
use crate::model::entry::{EntryId, Inlet};
use crate::model::name::{GroupName, StreamName};
use crate::store::operate::{
    ALIVE, Cut, Destination, MovedPage, Obstacle, Operate, Permitted, Selected, Trim, Trimmed,
    Unfinished,
};
use crate::store::{Queue, Reply, StoreError, script};

impl Operate for RedisStore {
    fn trim<'a>(&'a self, stream: &'a StreamName, trim: Trim) -> Reply<'a, Trimmed> {
        Box::pin(shorten(&self.link, stream, trim))
    }

    fn move_pending<'a>(
        &'a self,
        queue: &'a Queue,
        inlet: Inlet,
        selected: Selected<'a>,
        destination: Destination<'a>,
    ) -> Reply<'a, MovedPage> {
        Box::pin(move_pending(&self.link, queue, inlet, selected, destination))
    }

    fn call_sweep<'a>(&'a self, queue: &'a Queue) -> Reply<'a, ()> {
        Box::pin(async move {
            let mut command = redis::cmd("HINCRBY");
            command.arg(queue.stream.group_key(&queue.group)).arg("released").arg(1);
            self.link.command(&command).await.map(drop)
        })
    }

    fn run_now<'a>(&'a self, queue: &'a Queue, names: &'a [&'a str]) -> Reply<'a, usize> {
        Box::pin(async move {
            let mut command = redis::cmd(ZADD);
            // Whoever promotes a job takes it out of the set, and this puts none back into it.
            command.arg(queue.stream.retry_key(&queue.group)).arg("XX").arg("LT").arg("CH");
            for name in names {
                command.arg(0).arg(name);
            }
            let changed = self.link.command(&command).await?;
            Ok(usize::try_from(reply::number(changed, ZADD)?).unwrap_or(usize::MAX))
        })
    }

    fn move_group<'a>(
        &'a self,
        queue: &'a Queue,
        after: Option<EntryId>,
        unfinished: Unfinished,
    ) -> Reply<'a, Permitted> {
        Box::pin(move_group(&self.link, queue, after, unfinished))
    }

    fn destroy_group<'a>(
        &'a self,
        queue: &'a Queue,
        unfinished: Unfinished,
    ) -> Reply<'a, Permitted> {
        Box::pin(destroy_group(&self.link, queue, unfinished))
    }

    fn trim_dead_letters<'a>(&'a self, queue: &'a Queue, keep: u64) -> Reply<'a, u64> {
        Box::pin(async move {
            let mut command = redis::cmd(XTRIM);
            command.arg(queue.stream.dead_key(&queue.group)).arg("MAXLEN").arg("~").arg(keep);
            reply::number(self.link.command(&command).await?, XTRIM)
        })
    }

    fn delete_stream<'a>(
        &'a self,
        stream: &'a StreamName,
        dead_letters_of: &'a [GroupName],
    ) -> Reply<'a, bool> {
        Box::pin(async move {
            let mut command = redis::cmd(UNLINK);
            for group in dead_letters_of {
                command.arg(stream.dead_key(group));
            }
            if !dead_letters_of.is_empty() {
                self.link.command(&command).await?;
            }
            let mut command = redis::cmd(UNLINK);
            let gone = self.link.command(command.arg(stream.as_str())).await?;
            Ok(reply::size(&gone, UNLINK)? > 0)
        })
    }
}

async fn shorten(link: &Link, stream: &StreamName, trim: Trim) -> Result<Trimmed, StoreError> {
    let name = script::TRIM.name;
    let add = |command: &mut Cmd| {
        match trim.cut {
            Cut::Length(entries) => command.arg("length").arg(entries),
            Cut::Age(age) => command.arg("age").arg(milliseconds(age)),
            Cut::Before(id) => command.arg("before").arg(id.to_string()),
        };
        command.arg(if trim.exact { "exact" } else { "about" }).arg(word(trim.unfinished));
        command.arg(REMOVED_MAX).arg(LOOKED_AT_MAX);
    };
    let value = link.script(&script::TRIM, &[stream.as_str()], add).await?;
    let [removed, length, group, needed, more] = reply::tuple(value, name)?;
    let group = reply::unless_nil(group, name, reply::lossy)?;
    let needed = reply::unless_nil(needed, name, reply::id)?;
    Ok(Trimmed {
        removed: reply::number(removed, name)?,
        length: reply::number(length, name)?,
        blocked_by: group.zip(needed),
        more: reply::integer(&more, name)? == 1,
    })
}

async fn move_pending(
    link: &Link,
    queue: &Queue,
    inlet: Inlet,
    selected: Selected<'_>,
    destination: Destination<'_>,
) -> Result<MovedPage, StoreError> {
    let name = script::MOVE_PENDING.name;
    let dead = queue.stream.dead_key(&queue.group);
    let hash = queue.stream.group_key(&queue.group);
    let add = |command: &mut Cmd| {
        command.arg(queue.group.as_str()).arg(inlet.as_str());
        command.arg(destination.consumer.map_or("", |consumer| consumer.as_str()));
        match destination.abandoned {
            true => command.arg(milliseconds(ABANDONED_IDLE)),
            false => command.arg(""),
        };
        match selected {
            Selected::Of(consumer, after) => {
                command.arg(consumer.as_str()).arg(after.to_string()).arg(IDS_MAX);
            }
            Selected::Ids(ids) => {
                command.arg("");
                add_ids(command, ids.get(..IDS_MAX).unwrap_or(ids));
            }
        }
    };
    let key = queue.key(inlet);
    let value = link.script(&script::MOVE_PENDING, &[&key, &dead, &hash], add).await?;
    let [moved, trimmed, missing, left, next] = reply::tuple(value, name)?;
    Ok(MovedPage {
        moved: reply::ids(moved, name)?,
        trimmed: reply::ids(trimmed, name)?,
        missing: reply::ids(missing, name)?,
        left: reply::ids(left, name)?,
        next: reply::unless_nil(next, name, reply::id)?,
    })
}

async fn move_group(
    link: &Link,
    queue: &Queue,
    after: Option<EntryId>,
    unfinished: Unfinished,
) -> Result<Permitted, StoreError> {
    let hash = queue.stream.group_key(&queue.group);
    let add = |command: &mut Cmd| {
        command.arg(queue.group.as_str());
        match after {
            Some(id) => command.arg(id.to_string()),
            None => command.arg("$"),
        };
        command.arg(word(unfinished));
    };
    let keys = [queue.stream.as_str(), &hash];
    let value = link.script(&script::MOVE_GROUP, &keys, add).await?;
    Ok(match reply::integer(&value, script::MOVE_GROUP.name)? {
        1 => Permitted::Done,
        _ => Permitted::Refused(Obstacle::Unfinished {
            group: queue.group.to_string(),
            pending: 0,
            undelivered: true,
            retrying: 0,
            dead_letters: 0,
        }),
    })
}

async fn destroy_group(
    link: &Link,
    queue: &Queue,
    unfinished: Unfinished,
) -> Result<Permitted, StoreError> {
    let name = script::DESTROY_GROUP.name;
    let (stream, group) = (&queue.stream, &queue.group);
    let (retry, records) = (stream.retry_key(group), stream.retry_records_key(group));
    let (lane, hash) = (queue.key(Inlet::LANE), stream.group_key(group));
    let add = |command: &mut Cmd| {
        command.arg(group.as_str()).arg(word(unfinished)).arg(milliseconds(ALIVE));
    };
    let keys = [stream.as_str(), &lane, &retry, &records, &hash];
    let value = link.script(&script::DESTROY_GROUP, &keys, add).await?;
    let mut items = reply::items(value, name)?.into_iter();
    let mut next = || items.next().ok_or(StoreError::Protocol { command: name });
    let number = |value: Value| reply::number(value, name);
    match reply::text(next()?, name)?.as_str() {
        "done" => Ok(Permitted::Done),
        "alive" => Ok(Permitted::Refused(Obstacle::Alive {
            group: group.to_string(),
            consumer: reply::lossy(next()?, name)?,
        })),
        "unfinished" => Ok(Permitted::Refused(Obstacle::Unfinished {
            group: group.to_string(),
            pending: number(next()?)?,
            undelivered: number(next()?)? > 0,
            retrying: number(next()?)?,
            dead_letters: 0,
        })),
        _ => Err(StoreError::Protocol { command: name }),
    }
}

fn word(unfinished: Unfinished) -> &'static str {
    match unfinished {
        Unfinished::Keep => "keep",
        Unfinished::Lose => "lose",
    }
}

const ZADD: &str = "ZADD";
const XTRIM: &str = "XTRIM";
const UNLINK: &str = "UNLINK";
/// Entries that one call removes at most: a few milliseconds of the server's time.
const REMOVED_MAX: u64 = 100_000;
/// Entries that one call looks at at most, payloads included.
const LOOKED_AT_MAX: u64 = 1_000;
