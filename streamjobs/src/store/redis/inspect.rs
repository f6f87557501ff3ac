//! Looking at streams, groups and consumers.

use std::time::Duration;

use redis::{Pipeline, Value};

use super::net::{Link, RESPONSE_DEADLINE, Reading, open_reading, unreachable};
use super::{RedisStore, milliseconds, reply};
use crate::model::entry::{Entry, EntryId, Inlet};
use crate::model::name::StreamName;
use crate::store::inspect::{
    ConsumerFacts, Consumers, Counted, GroupFacts, Inspect, OldestUnfinished, PendingEntry,
    PendingLook, Retries, RetryFacts, Span, StreamInfo, TailReader,
};
use crate::store::{Queue, Reply, ServerTime, StoreError, script};

impl Inspect for RedisStore {
    fn stream_info<'a>(&'a self, stream: &'a StreamName) -> Reply<'a, Option<StreamInfo>> {
        Box::pin(stream_info(&self.link, stream))
    }

    fn group_names<'a>(&'a self, stream: &'a StreamName) -> Reply<'a, Vec<String>> {
        Box::pin(group_names(&self.link, stream))
    }

    fn group_facts<'a>(&'a self, queue: &'a Queue) -> Reply<'a, GroupFacts> {
        Box::pin(group_facts(&self.link, queue))
    }

    fn oldest_unfinished<'a>(&'a self, queue: &'a Queue) -> Reply<'a, OldestUnfinished> {
        Box::pin(oldest_unfinished(&self.link, queue))
    }

    fn count_after<'a>(
        &'a self,
        stream: &'a StreamName,
        after: EntryId,
        limit: usize,
    ) -> Reply<'a, Counted> {
        Box::pin(count_after(&self.link, stream, after, limit))
    }

    fn consumers<'a>(&'a self, queue: &'a Queue) -> Reply<'a, Consumers> {
        Box::pin(consumers(&self.link, queue))
    }

    fn pending<'a>(
        &'a self,
        queue: &'a Queue,
        look: PendingLook<'a>,
    ) -> Reply<'a, Vec<PendingEntry>> {
        Box::pin(pending(&self.link, queue, look))
    }

    fn retries<'a>(
        &'a self,
        queue: &'a Queue,
        after: Option<&'a str>,
        limit: usize,
    ) -> Reply<'a, Retries> {
        Box::pin(retries(&self.link, queue, after, limit))
    }

    fn range<'a>(
        &'a self,
        stream: &'a StreamName,
        span: Span,
        newest_first: bool,
        limit: usize,
    ) -> Reply<'a, Vec<Entry>> {
        Box::pin(range(&self.link, stream, span, newest_first, limit))
    }

    fn tail<'a>(&'a self, stream: &'a StreamName) -> Reply<'a, Box<dyn TailReader>> {
        Box::pin(async move {
            let (connection, _) = open_reading(self.link.address()).await?;
            let tail = RedisTail { connection: Some(connection), stream: stream.clone() };
            Ok(Box::new(tail) as Box<dyn TailReader>)
        })
    }
}

async fn stream_info(link: &Link, stream: &StreamName) -> Result<Option<StreamInfo>, StoreError> {
    let name = script::INSPECT_STREAM.name;
    let value = link.script(&script::INSPECT_STREAM, &[stream.as_str()], |_| ()).await?;
    if value == Value::Nil {
        return Ok(None);
    }
    let [length, first, last, last_id, added, bytes, groups] = reply::tuple(value, name)?;
    Ok(Some(StreamInfo {
        length: reply::number(length, name)?,
        first: reply::unless_nil(first, name, reply::id)?,
        last: reply::unless_nil(last, name, reply::id)?,
        last_id: reply::id(last_id, name)?,
        added: reply::number(added, name)?,
        bytes: reply::unless_nil(bytes, name, reply::number)?,
        groups: reply::number(groups, name)?,
    }))
}

async fn group_names(link: &Link, stream: &StreamName) -> Result<Vec<String>, StoreError> {
    let mut command = redis::cmd("XINFO");
    let answer = link.command(command.arg("GROUPS").arg(stream.as_str())).await;
    let groups = match answer {
        Err(StoreError::Refused { code, text })
            if code == "ERR" && text.contains("no such key") =>
        {
            return Ok(Vec::new());
        }
        answer => reply::items(answer?, XINFO)?,
    };
    let names = groups.into_iter().map(|group| {
        let mut fields = reply::table(group, XINFO)?.into_iter();
        let name = fields.find(|(name, _)| name == "name");
        let (_, name) = name.ok_or(StoreError::Protocol { command: XINFO })?;
        reply::lossy(name, XINFO)
    });
    names.collect()
}

async fn group_facts(link: &Link, queue: &Queue) -> Result<GroupFacts, StoreError> {
    let name = script::INSPECT_GROUP.name;
    let (stream, group) = (&queue.stream, &queue.group);
    let (lane, retry) = (queue.key(Inlet::LANE), stream.retry_key(group));
    let (dead, hash) = (stream.dead_key(group), stream.group_key(group));
    let keys = [stream.as_str(), &lane, &retry, &dead, &hash];
    let add = |command: &mut redis::Cmd| {
        command.arg(group.as_str());
    };
    let value = link.script(&script::INSPECT_GROUP, &keys, add).await?;
    let facts: [Value; 18] = reply::tuple(value, name)?;
    let [version, now, length, first, last_id, added, cursor, read, lag, next, rest @ ..] = facts;
    let [pending, lane_pending, lane_waiting, oldest, retrying, dead, paused, trimmed] = rest;
    Ok(GroupFacts {
        now: ServerTime(reply::number(now, name)?),
        counts_lag_right: counts_lag_right(reply::number(version, name)?),
        length: reply::number(length, name)?,
        first: reply::unless_nil(first, name, reply::id)?,
        last_id: reply::id(last_id, name)?,
        added: reply::number(added, name)?,
        cursor: reply::id(cursor, name)?,
        read: reply::unless_nil(read, name, reply::number)?,
        lag: reply::unless_nil(lag, name, |lag, name| reply::integer(&lag, name))?,
        next: reply::unless_nil(next, name, reply::id)?,
        pending: reply::number(pending, name)?,
        lane_pending: reply::number(lane_pending, name)?,
        lane_waiting: reply::number(lane_waiting, name)?,
        oldest_pending: reply::unless_nil(oldest, name, reply::number)?.map(Duration::from_millis),
        retrying: reply::number(retrying, name)?,
        dead_letters: reply::unless_nil(dead, name, reply::number)?,
        paused: reply::unless_nil(paused, name, reply::number)?,
        trimmed_unread: reply::number(trimmed, name)?,
    })
}

/// Whether a version counts the lag right after a trim beyond the cursor: 7.4.4 and newer in its
/// line, and 8.0 and newer. Valkey tells the version that it began from, which does not.
fn counts_lag_right(version: u64) -> bool {
    let (major, minor, patch) = (version >> 16 & 0xff, version >> 8 & 0xff, version & 0xff);
    (major, minor) >= (8, 0) || (major, minor) == (7, 4) && patch >= 4
}

async fn oldest_unfinished(link: &Link, queue: &Queue) -> Result<OldestUnfinished, StoreError> {
    let name = script::OLDEST_UNFINISHED.name;
    let (stream, group) = (&queue.stream, &queue.group);
    let (lane, records) = (queue.key(Inlet::LANE), stream.retry_records_key(group));
    let add = |command: &mut redis::Cmd| {
        command.arg(group.as_str()).arg(JOBS_LOOKED_AT_MAX).arg(JOBS_BYTES_MAX);
    };
    let keys = [stream.as_str(), &lane, &records];
    let value = link.script(&script::OLDEST_UNFINISHED, &keys, add).await?;
    let [published, complete] = reply::tuple(value, name)?;
    Ok(OldestUnfinished {
        published: reply::unless_nil(published, name, reply::id)?,
        complete: reply::integer(&complete, name)? == 1,
    })
}

async fn count_after(
    link: &Link,
    stream: &StreamName,
    after: EntryId,
    limit: usize,
) -> Result<Counted, StoreError> {
    let name = script::COUNT_AFTER.name;
    let add = |command: &mut redis::Cmd| {
        command.arg(after.to_string()).arg(limit).arg(COUNTED_BYTES_MAX);
    };
    let value = link.script(&script::COUNT_AFTER, &[stream.as_str()], add).await?;
    let [entries, complete] = reply::tuple(value, name)?;
    Ok(Counted {
        entries: reply::number(entries, name)?,
        complete: reply::integer(&complete, name)? == 1,
    })
}

async fn consumers(link: &Link, queue: &Queue) -> Result<Consumers, StoreError> {
    let name = script::INSPECT_CONSUMERS.name;
    let (lane, hash) = (queue.key(Inlet::LANE), queue.stream.group_key(&queue.group));
    let add = |command: &mut redis::Cmd| {
        command.arg(queue.group.as_str());
    };
    let keys = [queue.stream.as_str(), &lane, &hash];
    let value = link.script(&script::INSPECT_CONSUMERS, &keys, add).await?;
    let mut items = reply::items(value, name)?.into_iter();
    let now = items.next().ok_or(StoreError::Protocol { command: name })?;
    let consumer = |row: Value| {
        let [consumer, pending, idle, inactive, beat, about] = reply::tuple(row, name)?;
        let milliseconds = |value, name| reply::number(value, name).map(Duration::from_millis);
        Ok(ConsumerFacts {
            name: reply::lossy(consumer, name)?,
            pending: reply::number(pending, name)?,
            idle: milliseconds(idle, name)?,
            inactive: reply::unless_nil(inactive, name, milliseconds)?,
            beat: reply::unless_nil(beat, name, reply::number)?,
            about: reply::unless_nil(about, name, reply::lossy)?,
        })
    };
    let consumers = items.map(consumer).collect::<Result<_, StoreError>>()?;
    Ok(Consumers { now: ServerTime(reply::number(now, name)?), consumers })
}

async fn pending(
    link: &Link,
    queue: &Queue,
    look: PendingLook<'_>,
) -> Result<Vec<PendingEntry>, StoreError> {
    let Some(from) = look.after.next().filter(|_| look.limit > 0) else { return Ok(Vec::new()) };
    let mut command = redis::cmd(XPENDING);
    command.arg(queue.key(look.inlet)).arg(queue.group.as_str());
    if !look.idle.is_zero() {
        command.arg("IDLE").arg(milliseconds(look.idle));
    }
    command.arg(from.to_string()).arg("+").arg(look.limit).arg(look.consumer);
    let rows = reply::items(link.command(&command).await?, XPENDING)?;
    let row = |row| {
        let [id, consumer, idle, count] = reply::tuple(row, XPENDING)?;
        let idle = u64::try_from(reply::integer(&idle, XPENDING)?).ok();
        Ok(PendingEntry {
            id: reply::id(id, XPENDING)?,
            consumer: reply::lossy(consumer, XPENDING)?,
            idle: idle.map(Duration::from_millis),
            delivery_count: reply::number(count, XPENDING)?,
        })
    };
    rows.into_iter().map(row).collect()
}

async fn retries(
    link: &Link,
    queue: &Queue,
    after: Option<&str>,
    limit: usize,
) -> Result<Retries, StoreError> {
    let name = script::INSPECT_RETRIES.name;
    let (stream, group) = (&queue.stream, &queue.group);
    let (retry, records) = (stream.retry_key(group), stream.retry_records_key(group));
    let add = |command: &mut redis::Cmd| {
        command.arg(group.as_str()).arg(after.unwrap_or_default()).arg(limit).arg(JOBS_BYTES_MAX);
    };
    let keys = [stream.as_str(), &retry, &records];
    let value = link.script(&script::INSPECT_RETRIES, &keys, add).await?;
    let mut items = reply::items(value, name)?.into_iter();
    let mut number = || {
        let item = items.next().ok_or(StoreError::Protocol { command: name })?;
        reply::number(item, name)
    };
    let (now, more) = (ServerTime(number()?), number()? == 1);
    let jobs = items.map(|row| retry_facts(row, name)).collect::<Result<_, _>>()?;
    Ok(Retries { now, jobs, more })
}

/// Records are what this crate wrote, or somebody's hand: what cannot be read is none.
pub(super) fn retry_facts(row: Value, name: &'static str) -> Result<RetryFacts, StoreError> {
    let [member, due, event_type, event_id, failures, origin, error] = reply::tuple(row, name)?;
    let text = |value| reply::unless_nil(value, name, reply::lossy);
    Ok(RetryFacts {
        name: reply::lossy(member, name)?,
        due: reply::number(due, name)?,
        event_type: text(event_type)?,
        event_id: text(event_id)?,
        failures: text(failures)?.and_then(|failures| failures.parse().ok()),
        origin: text(origin)?.and_then(|origin| origin.parse().ok()),
        error: text(error)?,
    })
}

async fn range(
    link: &Link,
    stream: &StreamName,
    span: Span,
    newest_first: bool,
    limit: usize,
) -> Result<Vec<Entry>, StoreError> {
    if limit == 0 || span.from > span.to {
        return Ok(Vec::new());
    }
    let (name, first, last) = match newest_first {
        true => ("XREVRANGE", span.to, span.from),
        false => ("XRANGE", span.from, span.to),
    };
    let mut command = redis::cmd(name);
    command.arg(stream.as_str()).arg(first.to_string()).arg(last.to_string());
    reply::entries(link.command(command.arg("COUNT").arg(limit)).await?, name)
}

/// Follows one stream.
struct RedisTail {
    /// None once it is of no more use.
    connection: Option<Reading>,
    stream: StreamName,
}

impl RedisTail {
    async fn read_once(
        &mut self,
        after: EntryId,
        limit: usize,
        block: Duration,
    ) -> Result<Vec<Entry>, StoreError> {
        let Some(mut connection) = self.connection.take() else {
            let gone = std::io::Error::from(std::io::ErrorKind::NotConnected);
            return Err(StoreError::Unreachable(gone.into()));
        };
        let mut command = redis::cmd(XREAD);
        // The server waits for ever when it is told to wait for no time.
        command.arg("COUNT").arg(limit).arg("BLOCK").arg(milliseconds(block).max(1));
        command.arg("STREAMS").arg(self.stream.as_str()).arg(after.to_string());
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(command);
        let deadline = block + RESPONSE_DEADLINE;
        let answers = match tokio::time::timeout(deadline, connection.exchange(&pipeline)).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => return Err(unreachable(&error)),
            Err(elapsed) => return Err(StoreError::Unreachable(elapsed.into())),
        };
        let answer = answers.into_iter().next().ok_or(StoreError::Protocol { command: XREAD })?;
        let read = answer.deliveries(Inlet::STREAM, XREAD)?;
        self.connection = Some(connection);
        Ok(read.into_iter().map(|delivery| delivery.entry).collect())
    }
}

impl TailReader for RedisTail {
    fn read(&mut self, after: EntryId, limit: usize, block: Duration) -> Reply<'_, Vec<Entry>> {
        Box::pin(self.read_once(after, limit, block))
    }
}

const XINFO: &str = "XINFO GROUPS";
const XPENDING: &str = "XPENDING";
const XREAD: &str = "XREAD";
/// Counting looks at what it counts: this much is a few milliseconds of the server's time.
const COUNTED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The same for jobs that were tried before.
const JOBS_LOOKED_AT_MAX: usize = 10_000;
const JOBS_BYTES_MAX: usize = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_that_count_the_lag_right_are_believed() {
        for (version, right) in [
            (0x0007_000f, false),
            (0x0007_0204, false),
            (0x0007_0403, false),
            (0x0007_0404, true),
            (0x0008_0000, true),
            (0x0008_0a01, true),
        ] {
            assert_eq!(counts_lag_right(version), right, "{version:x}");
        }
    }
}
