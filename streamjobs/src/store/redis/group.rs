//! A group's own affairs: making it, its consumers, its retries, its dead letters.

use std::time::Duration;

use redis::Cmd;

use super::acknowledge::{IDS_MAX, Id, add_ids};
use super::held::add_fields;
use super::net::Link;
use super::{milliseconds, reply};
use crate::model::config::Start;
use crate::model::entry::{EntryId, Fields};
use crate::model::name::ConsumerName;
use crate::store::script;
use crate::store::{Inlet, Promoted, Queue, Recorded, ServerTime, StoreError, StoredDeadLetter};

/// One group on one stream.
pub(super) struct Group<'a> {
    link: &'a Link,
    queue: &'a Queue,
    lane: String,
    dead: String,
    hash: String,
}

impl<'a> Group<'a> {
    pub(super) fn new(link: &'a Link, queue: &'a Queue) -> Self {
        let (stream, group) = (&queue.stream, &queue.group);
        Self {
            link,
            queue,
            lane: queue.key(Inlet::LANE),
            dead: stream.dead_key(group),
            hash: stream.group_key(group),
        }
    }

    /// Whether the group was made on the stream, and on the lane.
    pub(super) async fn prepare(&self, start: Start) -> Result<(bool, bool), StoreError> {
        let name = script::PREPARE.name;
        let start = match start {
            Start::Beginning => EntryId::ZERO.to_string(),
            Start::End => "$".to_owned(),
            Start::After(id) => id.to_string(),
        };
        let keys = [self.stream(), &self.lane, &self.hash];
        let add = |command: &mut Cmd| {
            self.add_group(command).arg(start);
        };
        let value = self.link.script(&script::PREPARE, &keys, add).await?;
        let [stream, lane] = reply::tuple(value, name)?;
        Ok((reply::size(&stream, name)? > 0, reply::size(&lane, name)? > 0))
    }

    pub(super) async fn promote(&self, limit: usize) -> Result<Promoted, StoreError> {
        let name = script::PROMOTE.name;
        let (stream, group) = (&self.queue.stream, &self.queue.group);
        let (retry, records) = (stream.retry_key(group), stream.retry_records_key(group));
        let keys = [self.stream(), &self.lane, &retry, &records, &self.hash, &self.dead];
        let add = |command: &mut Cmd| {
            self.add_group(command).arg(limit.min(IDS_MAX));
        };
        let value = self.link.script(&script::PROMOTE, &keys, add).await?;
        let [promoted, waiting, pending, next_due, released, left, paused, now] =
            reply::tuple(value, name)?;
        let next_due = u64::try_from(reply::integer(&next_due, name)?).ok();
        Ok(Promoted {
            promoted: reply::size(&promoted, name)?,
            waiting: reply::size(&waiting, name)?,
            pending: reply::size(&pending, name)?,
            next_due: next_due.map(Duration::from_millis),
            released: reply::number(released, name)?,
            left: reply::size(&left, name)?,
            paused: reply::size(&paused, name)? > 0,
            now: ServerTime(reply::number(now, name)?),
        })
    }

    pub(super) async fn set_paused(&self, paused: bool) -> Result<bool, StoreError> {
        let keys = [self.hash.as_str()];
        let add = |command: &mut Cmd| {
            command.arg(u8::from(paused));
        };
        let value = self.link.script(&script::SET_PAUSED, &keys, add).await?;
        Ok(reply::size(&value, script::SET_PAUSED.name)? > 0)
    }

    pub(super) async fn heartbeat(
        &self,
        consumer: &ConsumerName,
        about: &str,
    ) -> Result<Recorded, StoreError> {
        let name = script::HEARTBEAT.name;
        let keys = [self.stream(), &self.hash];
        let add = |command: &mut Cmd| {
            self.add_group(command).arg(consumer.as_str()).arg(about);
        };
        let [floor, lost] =
            reply::tuple(self.link.script(&script::HEARTBEAT, &keys, add).await?, name)?;
        Ok(Recorded { floor: reply::id(floor, name)?, trimmed_unread: reply::number(lost, name)? })
    }

    pub(super) async fn retire(&self, consumer: &ConsumerName) -> Result<bool, StoreError> {
        let keys = [self.stream(), &self.lane, &self.hash];
        let add = |command: &mut Cmd| {
            self.add_group(command).arg(consumer.as_str());
        };
        let value = self.link.script(&script::RETIRE, &keys, add).await?;
        Ok(reply::size(&value, script::RETIRE.name)? > 0)
    }

    pub(super) async fn retire_dead(&self, silence: Duration) -> Result<usize, StoreError> {
        let keys = [self.stream(), &self.lane, &self.hash];
        let add = |command: &mut Cmd| {
            self.add_group(command).arg(milliseconds(silence)).arg(IDS_MAX);
        };
        let value = self.link.script(&script::RETIRE_DEAD, &keys, add).await?;
        reply::size(&value, script::RETIRE_DEAD.name)
    }

    pub(super) async fn dead_letters(
        &self,
        after: EntryId,
        limit: usize,
    ) -> Result<Vec<StoredDeadLetter>, StoreError> {
        if after == EntryId::MAX || limit == 0 {
            return Ok(Vec::new());
        }
        let from = format!("({after}");
        let mut command = redis::cmd(XRANGE);
        command.arg(&self.dead).arg(from).arg("+").arg("COUNT").arg(limit);
        reply::entries(self.link.command(&command).await?, XRANGE)
    }

    pub(super) async fn dead_letter(
        &self,
        id: EntryId,
    ) -> Result<Option<StoredDeadLetter>, StoreError> {
        let mut command = redis::cmd(XRANGE);
        command.arg(&self.dead).arg(Id(id)).arg(Id(id)).arg("COUNT").arg(1);
        let letters = reply::entries(self.link.command(&command).await?, XRANGE)?;
        Ok(letters.into_iter().next())
    }

    pub(super) async fn redrive(
        &self,
        id: EntryId,
        job: &Fields,
    ) -> Result<Option<EntryId>, StoreError> {
        let keys = [self.lane.as_str(), &self.dead];
        let add = |command: &mut Cmd| {
            self.add_group(command).arg(Id(id));
            add_fields(command, job);
        };
        let value = self.link.script(&script::REDRIVE, &keys, add).await?;
        match value {
            redis::Value::Nil => Ok(None),
            value => reply::id(value, script::REDRIVE.name).map(Some),
        }
    }

    pub(super) async fn purge(&self, ids: &[EntryId]) -> Result<usize, StoreError> {
        let mut purged = 0;
        for chunk in ids.chunks(IDS_MAX) {
            let mut command = redis::cmd(XDEL);
            add_ids(command.arg(&self.dead), chunk);
            purged += reply::size(&self.link.command(&command).await?, XDEL)?;
        }
        Ok(purged)
    }

    fn stream(&self) -> &str {
        self.queue.stream.as_str()
    }

    fn add_group<'c>(&self, command: &'c mut Cmd) -> &'c mut Cmd {
        command.arg(self.queue.group.as_str())
    }
}

const XDEL: &str = "XDEL";
const XRANGE: &str = "XRANGE";
