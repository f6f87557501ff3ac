//! What an operator does to streams, groups and pending entries.

use async_trait::async_trait;
use redis::{Cmd, Value};

use super::consume::{IDS_MAX, Id, add_ids};
use super::script::scripts;
use super::{RedisStore, milliseconds, reply};
use crate::model::entry::EntryId;
use crate::model::name::{GroupName, StreamName};
use crate::model::trend::TrendRange;
use crate::store::admin::{
    ALIVE, Cut, Destination, MovedPage, Obstacle, Permitted, Selected, Trim, Trimmed, Unfinished,
};
use crate::store::types::Result;
use crate::store::{Admin, Inlet, Queue, StoreError};

scripts! {
    DESTROY_GROUP = "destroy_group";
    MOVE_GROUP = "move_group";
    MOVE_PENDING = "move_pending";
    SET_PAUSED = "set_paused";
    TRIM = "trim";
}

#[async_trait]
impl Admin for RedisStore {
    async fn trim(&self, stream: &StreamName, trim: Trim) -> Result<Trimmed> {
        self.run_trim(stream, trim, EXAMINED_MAX, APPLY).await
    }

    async fn check_trim(&self, stream: &StreamName, trim: Trim) -> Result<Trimmed> {
        self.run_trim(stream, trim, CHECKED_MAX, CHECK).await
    }

    async fn move_pending(
        &self,
        queue: &Queue,
        inlet: Inlet,
        selected: Selected<'_>,
        destination: Destination<'_>,
    ) -> Result<MovedPage> {
        let name = MOVE_PENDING.name;
        let add = |command: &mut Cmd| {
            command.arg(queue.group.as_str()).arg(inlet.as_str());
            match destination {
                Destination::Consumer(consumer) => command.arg(consumer.as_str()),
                Destination::Released => command.arg(""),
            };
            match selected {
                Selected::Of(consumer, after) => {
                    command.arg(consumer.as_str()).arg(Id(after)).arg(IDS_MAX);
                }
                Selected::Ids(ids) => {
                    add_ids(command.arg(""), ids.get(..IDS_MAX).unwrap_or(ids));
                }
            }
        };
        let keys = [&*queue.key(inlet), &queue.dead_key(), &queue.group_key()];
        let value = self.script(&MOVE_PENDING, &keys, add).await?;
        let [moved, trimmed, missing, unstored, next] = reply::tuple(value, name)?;
        Ok(MovedPage {
            moved: reply::ids(moved, name)?,
            trimmed: reply::ids(trimmed, name)?,
            missing: reply::ids(missing, name)?,
            unstored: reply::ids(unstored, name)?,
            next: reply::unless_nil(next, name, reply::id)?,
        })
    }

    async fn request_claim(&self, queue: &Queue) -> Result<()> {
        let mut command = redis::cmd("HINCRBY");
        command.arg(queue.group_key()).arg("released").arg(1);
        self.at(queue.stream.as_str()).command(&command).await.map(drop)
    }

    async fn run_now(&self, queue: &Queue, names: &[&str]) -> Result<usize> {
        let mut command = redis::cmd(ZADD);
        // A promotion removes the job from the set; with `XX`, this does not add it again.
        command.arg(queue.retry_key()).arg("XX").arg("LT").arg("CH");
        for name in names {
            command.arg(0).arg(name);
        }
        let changed = self.at(queue.stream.as_str()).command(&command).await?;
        Ok(usize::try_from(reply::number(changed, ZADD)?).unwrap_or(usize::MAX))
    }

    async fn set_paused(&self, queue: &Queue, paused: bool) -> Result<bool> {
        let value = self.run(&SET_PAUSED, &[&queue.group_key()], u8::from(paused)).await?;
        reply::flag(&value, SET_PAUSED.name)
    }

    async fn move_group(
        &self,
        queue: &Queue,
        after: Option<EntryId>,
        unfinished: Unfinished,
    ) -> Result<Permitted> {
        self.run_move_group(queue, after, unfinished, APPLY).await
    }

    async fn check_move_group(
        &self,
        queue: &Queue,
        after: Option<EntryId>,
        unfinished: Unfinished,
    ) -> Result<Permitted> {
        self.run_move_group(queue, after, unfinished, CHECK).await
    }

    async fn destroy_group(&self, queue: &Queue, unfinished: Unfinished) -> Result<Permitted> {
        self.run_destroy_group(queue, unfinished, APPLY).await
    }

    async fn check_destroy_group(
        &self,
        queue: &Queue,
        unfinished: Unfinished,
    ) -> Result<Permitted> {
        self.run_destroy_group(queue, unfinished, CHECK).await
    }

    async fn delete_stream(
        &self,
        stream: &StreamName,
        dead_letters_of: &[GroupName],
    ) -> Result<bool> {
        let mut command = redis::cmd(UNLINK);
        for group in dead_letters_of {
            command.arg(stream.dead_key(group));
        }
        if !dead_letters_of.is_empty() {
            self.at(stream.as_str()).command(&command).await?;
        }
        let mut command = redis::cmd(UNLINK);
        reply::flag(&self.at(stream.as_str()).command(command.arg(stream.as_str())).await?, UNLINK)
    }

    async fn forget_partitions(&self, stream: &StreamName) -> Result<()> {
        let mut command = redis::cmd(UNLINK);
        command.arg(stream.partitions_key());
        self.at(stream.as_str()).command(&command).await.map(drop)
    }
}

/// Steps that one script either applies, or only checks without changing anything.
impl RedisStore {
    async fn run_trim(
        &self,
        stream: &StreamName,
        trim: Trim,
        examined_max: u64,
        mode: &str,
    ) -> Result<Trimmed> {
        let name = TRIM.name;
        let cut = match trim.cut {
            Cut::Length(entries) => ("length", entries.to_string()),
            Cut::Age(age) => ("age", milliseconds(age).to_string()),
            Cut::Before(id) => ("before", id.to_string()),
        };
        let exact = if trim.exact { "exact" } else { "about" };
        let arguments = (cut, exact, word(trim.unfinished), REMOVED_MAX, examined_max, mode);
        let value = self.run(&TRIM, &[stream.as_str()], arguments).await?;
        let [removed, length, group, needed, more] = reply::tuple(value, name)?;
        let group = reply::unless_nil(group, name, reply::lossy)?;
        let needed = reply::unless_nil(needed, name, reply::id)?;
        Ok(Trimmed {
            removed: reply::number(removed, name)?,
            length: reply::number(length, name)?,
            blocked_by: group.zip(needed),
            more: reply::flag(&more, name)?,
        })
    }

    async fn run_move_group(
        &self,
        queue: &Queue,
        after: Option<EntryId>,
        unfinished: Unfinished,
        mode: &str,
    ) -> Result<Permitted> {
        let after = after.map_or_else(|| "$".to_owned(), |id| id.to_string());
        let keys = [queue.stream.as_str(), &queue.group_key()];
        let arguments = (queue.group.as_str(), after, word(unfinished), mode);
        let value = self.run(&MOVE_GROUP, &keys, arguments).await?;
        Ok(match reply::flag(&value, MOVE_GROUP.name)? {
            true => Permitted::Done,
            false => Permitted::Refused(Obstacle::undelivered(queue)),
        })
    }

    async fn run_destroy_group(
        &self,
        queue: &Queue,
        unfinished: Unfinished,
        mode: &str,
    ) -> Result<Permitted> {
        let name = DESTROY_GROUP.name;
        let [stream, lane] = queue.keys();
        let (retry, records, hash) =
            (queue.retry_key(), queue.retry_records_key(), queue.group_key());
        let (rate, done, holds) = (queue.rate_key(), queue.done_key(), queue.hold_keys());
        let trends = TrendRange::ALL.map(|range| queue.trend_key(range));
        let own = [&*stream, &lane, &retry, &records, &hash];
        let keys = own.into_iter().chain(holds.iter().map(String::as_str)).chain([&*rate, &done]);
        let keys = keys.chain(trends.iter().map(String::as_str));
        let keys = keys.collect::<Vec<_>>();
        let arguments = (queue.group.as_str(), word(unfinished), milliseconds(ALIVE), mode);
        let value = self.run(&DESTROY_GROUP, &keys, arguments).await?;
        let mut items = reply::items(value, name)?.into_iter();
        let mut next = || reply::next(&mut items, name);
        let number = |value: Value| reply::number(value, name);
        let group = queue.group.to_string();
        match reply::text(next()?, name)?.as_str() {
            "done" => Ok(Permitted::Done),
            "alive" => {
                let consumer = reply::lossy(next()?, name)?;
                Ok(Permitted::Refused(Obstacle::Alive { group, consumer }))
            }
            "unfinished" => Ok(Permitted::Refused(Obstacle::Unfinished {
                group,
                pending: number(next()?)?,
                undelivered: number(next()?)? > 0,
                retrying: number(next()?)?,
                dead_letters: 0,
            })),
            _ => Err(StoreError::Protocol { command: name }),
        }
    }
}

fn word(unfinished: Unfinished) -> &'static str {
    match unfinished {
        Unfinished::Keep => "keep",
        Unfinished::Lose => "lose",
    }
}

const ZADD: &str = "ZADD";
const UNLINK: &str = "UNLINK";
/// How many entries one call removes at most: a few milliseconds of the server's time.
const REMOVED_MAX: u64 = 100_000;
/// How many entries one call examines at most, payloads included.
const EXAMINED_MAX: u64 = 1_000;
/// How many entries the check of a trim examines at most.
const CHECKED_MAX: u64 = 10_000;
const APPLY: &str = "apply";
const CHECK: &str = "check";
