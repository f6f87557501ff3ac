//! How a group is kept running.

use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

use super::consume::IDS_MAX;
use super::script::scripts;
use super::{RedisStore, milliseconds, reply};
use crate::model::config::Start;
use crate::model::entry::EntryId;
use crate::model::limit::CodeLimit;
use crate::model::name::ConsumerName;
use crate::store::types::Result;
use crate::store::{
    BeginAt, GroupBirth, GroupMade, GroupUpkeep, Prepared, Promoted, Queue, Recorded, ServerTime,
    SetRate, TypeSight,
};

scripts! {
    GROUP_MADE = "group_made";
    HEARTBEAT / HEARTBEATS = "heartbeat";
    PREPARE = "prepare";
    PROMOTE / PROMOTIONS = "promote";
    RETIRE = "retire";
    RETIRE_DEAD / RETIRE_ALL_DEAD = "retire_dead";
    SIGHT_TYPE = "sight_type";
}

#[async_trait]
impl GroupUpkeep for RedisStore {
    async fn prepare_at(&self, queue: &Queue, at: BeginAt, told: Option<u16>) -> Result<Prepared> {
        self.ensure_groups(queue, at, told).await.map(|(stream, _)| stream)
    }

    async fn group_made(&self, first: &Queue) -> Result<GroupMade> {
        let name = GROUP_MADE.name;
        let keys = [first.stream.as_str(), &first.group_key()];
        let value = self.run(&GROUP_MADE, &keys, first.group.as_str()).await?;
        let [state, time, told, stored] = reply::tuple(value, name)?;
        let time = reply::number(time, name)?;
        let count = |value| reply::number(value, name).map(|count| count.try_into().unwrap_or(1));
        Ok(match reply::integer(&state, name)? {
            0 => GroupMade::New,
            1 => GroupMade::Unknown,
            _ => GroupMade::With(GroupBirth {
                time: (time > 0).then_some(ServerTime(time)),
                told: count(told)?,
                stored: count(stored)?,
            }),
        })
    }

    async fn recreate(&self, queue: &Queue) -> Result<bool> {
        let (stream, lane) =
            self.ensure_groups(queue, BeginAt::Start(Start::Beginning), None).await?;
        Ok(stream != Prepared::Found || lane)
    }

    async fn promote(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        limit: usize,
    ) -> Result<Promoted> {
        let name = PROMOTE.name;
        let [stream, lane] = queue.keys();
        let (retry, records) = (queue.retry_key(), queue.retry_records_key());
        let (hash, dead) = (queue.group_key(), queue.dead_key());
        let (scheduled, later) = (queue.stream.later_records_key(), queue.stream.later_key());
        let (schedules, specs) = (queue.stream.schedules_key(), queue.stream.schedule_specs_key());
        let (cancelled, lines) =
            (queue.stream.cancelled_key(), queue.stream.lines_key(&queue.group));
        let keys = [
            &*stream, &lane, &retry, &records, &hash, &dead, &scheduled, &later, &cancelled,
            &schedules, &specs, &lines,
        ];
        let arguments = (queue.group.as_str(), consumer.as_str(), limit.min(IDS_MAX));
        let value = match limit {
            0 => self.run_in_batch(&PROMOTE, &keys, arguments).await?,
            _ => self.run(&PROMOTE, &keys, arguments).await?,
        };
        let facts: [Value; 18] = reply::tuple(value, name)?;
        let [promoted, waiting, pending, next_due, released, rest @ ..] = facts;
        let [left, paused, now, restored, stranded, misplaced, scheduled, rest @ ..] = rest;
        let [cancels, has_schedules, parked, rate, limited, limit] = rest;
        let limited = Duration::from_millis(reply::number(limited, name)?);
        let next_due = u64::try_from(reply::integer(&next_due, name)?).ok();
        Ok(Promoted {
            promoted: reply::size(&promoted, name)?,
            waiting: reply::size(&waiting, name)?,
            pending: reply::size(&pending, name)?,
            next_due: next_due.map(Duration::from_millis),
            released: reply::number(released, name)?,
            left: reply::size(&left, name)?,
            restored: reply::size(&restored, name)?,
            stranded: reply::size(&stranded, name)?,
            misplaced: reply::size(&misplaced, name)?,
            paused: reply::flag(&paused, name)?,
            scheduled: reply::flag(&scheduled, name)?,
            cancels: reply::number(cancels, name)?,
            has_schedules: reply::flag(&has_schedules, name)?,
            parked: reply::number(parked, name)?,
            // Another client can have written anything; such a text sets no rate.
            rate: SetRate::read(&reply::lossy(rate, name)?),
            limited: (!limited.is_zero()).then_some(limited),
            limit: CodeLimit::read(&reply::lossy(limit, name)?),
            now: ServerTime(reply::number(now, name)?),
        })
    }

    async fn heartbeat(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        about: &str,
    ) -> Result<Recorded> {
        let name = HEARTBEAT.name;
        let keys = [queue.stream.as_str(), &queue.group_key()];
        let arguments = (queue.group.as_str(), consumer.as_str(), about);
        let value = self.run_in_batch(&HEARTBEAT, &keys, arguments).await?;
        let [floor, lost, moves] = reply::tuple(value, name)?;
        Ok(Recorded {
            floor: reply::id(floor, name)?,
            trimmed_unread: reply::number(lost, name)?,
            moves: reply::number(moves, name)?,
        })
    }

    async fn retire(&self, queue: &Queue, consumer: &ConsumerName) -> Result<bool> {
        let [stream, lane] = queue.keys();
        let keys = [&*stream, &lane, &queue.group_key()];
        let arguments = (queue.group.as_str(), consumer.as_str());
        reply::flag(&self.run(&RETIRE, &keys, arguments).await?, RETIRE.name)
    }

    async fn retire_dead(&self, queue: &Queue, silence: Duration) -> Result<usize> {
        let [stream, lane] = queue.keys();
        let keys = [&*stream, &lane, &queue.group_key()];
        let arguments = (queue.group.as_str(), milliseconds(silence), IDS_MAX);
        let value = self.run_in_batch(&RETIRE_DEAD, &keys, arguments).await?;
        reply::size(&value, RETIRE_DEAD.name)
    }

    async fn sight_type(
        &self,
        queue: &Queue,
        event_type: &str,
        first: ServerTime,
        after: Duration,
    ) -> Result<TypeSight> {
        let arguments = (event_type, first.0, milliseconds(after));
        let value = self.run(&SIGHT_TYPE, &[&queue.group_key()], arguments).await?;
        let [declared, undeclared_for] = reply::tuple(value, SIGHT_TYPE.name)?;
        Ok(TypeSight {
            declared: reply::flag(&declared, SIGHT_TYPE.name)?,
            undeclared_for: Duration::from_millis(reply::number(undeclared_for, SIGHT_TYPE.name)?),
        })
    }
}

impl RedisStore {
    /// What became of the group of the stream, and whether that of the lane was created.
    async fn ensure_groups(
        &self,
        queue: &Queue,
        at: BeginAt,
        told: Option<u16>,
    ) -> Result<(Prepared, bool)> {
        let start = match at {
            BeginAt::Start(Start::Beginning) => EntryId::ZERO.to_string(),
            BeginAt::Start(Start::End) => "$".to_owned(),
            BeginAt::Start(Start::After(id)) => id.to_string(),
            BeginAt::Since(time) => time.before().to_string(),
        };
        let [stream, lane] = queue.keys();
        let keys = [&*stream, &lane, &queue.group_key()];
        let told = told.map(|told| told.to_string()).unwrap_or_default();
        let arguments = (queue.group.as_str(), start, told, queue.stream.partitions_key());
        let value = self.run(&PREPARE, &keys, arguments).await?;
        let [stream, lane] = reply::tuple(value, PREPARE.name)?;
        let stream = match reply::integer(&stream, PREPARE.name)? {
            0 => Prepared::Found,
            1 => Prepared::Created,
            _ => Prepared::Recreated,
        };
        Ok((stream, reply::flag(&lane, PREPARE.name)?))
    }
}
