//! Reading the state of streams, groups and consumers.

mod tail;

use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

use self::tail::RedisTail;
use super::consume::Id;
use super::script::scripts;
use super::{RedisStore, milliseconds, reply};
use crate::model::attempts::AttemptHistory;
use crate::model::entry::{Entry, EntryId};
use crate::model::limit::SetLimit;
use crate::model::name::StreamName;
use crate::model::preview::{EntryPreview, FieldPreview, OWN_VALUE_BYTES_MAX};
use crate::store::inspect::{
    ConsumerFacts, Consumers, Counted, GroupFacts, JobPlace, NEW_FOR, OldestUnfinished,
    PendingEntry, PendingFilter, PreviewOf, Previews, Retries, RetriesFrom, RetryFacts, Span,
    StreamEnds, StreamInfo, StreamSizes, TailReader,
};
use crate::store::types::Result;
use crate::store::{Inlet, Inspect, Queue, Rate, RateFacts, ServerTime, SetRate, StoreError};

scripts! {
    CONSUMERS = "consumers";
    COUNT_AFTER = "count_after";
    GROUP_FACTS = "group_facts";
    OLDEST_UNFINISHED = "oldest_unfinished";
    PAST_ATTEMPTS = "past_attempts";
    PREVIEWS = "previews";
    RETRIES = "retries";
    STREAM_INFO = "stream_info";
    STREAM_SIZES = "stream_sizes";
}

#[async_trait]
impl Inspect for RedisStore {
    async fn stream_info(&self, stream: &StreamName) -> Result<Option<StreamInfo>> {
        let name = STREAM_INFO.name;
        let value = self.script(&STREAM_INFO, &[stream.as_str()], |_| ()).await?;
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

    async fn stream_sizes(&self, stream: &StreamName) -> Result<Option<StreamSizes>> {
        let name = STREAM_SIZES.name;
        let value = self.script(&STREAM_SIZES, &[stream.as_str()], |_| ()).await?;
        if value == Value::Nil {
            return Ok(None);
        }
        let [length, added, bytes, groups] = reply::tuple(value, name)?;
        Ok(Some(StreamSizes {
            length: reply::number(length, name)?,
            added: reply::number(added, name)?,
            bytes: reply::unless_nil(bytes, name, reply::number)?,
            groups: reply::number(groups, name)?,
        }))
    }

    async fn group_names(&self, stream: &StreamName) -> Result<Vec<String>> {
        let mut command = redis::cmd("XINFO");
        let answer =
            self.at(stream.as_str()).command(command.arg("GROUPS").arg(stream.as_str())).await;
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

    async fn group_facts(&self, queue: &Queue) -> Result<GroupFacts> {
        let [stream, lane] = queue.keys();
        let (retry, records) = (queue.retry_key(), queue.retry_records_key());
        let (dead, hash) = (queue.dead_key(), queue.group_key());
        let ([_, _, lines, _, turns, _], rate) = (queue.hold_keys(), queue.rate_key());
        let keys = [&*stream, &lane, &retry, &records, &dead, &hash, &lines, &turns, &rate];
        let arguments = (queue.group.as_str(), milliseconds(NEW_FOR));
        group_facts(self.run(&GROUP_FACTS, &keys, arguments).await?, GROUP_FACTS.name)
    }

    async fn oldest_unfinished(&self, queue: &Queue) -> Result<OldestUnfinished> {
        let name = OLDEST_UNFINISHED.name;
        let [stream, lane] = queue.keys();
        let [_, _, _, lines, _, _] = queue.hold_keys();
        let keys = [&*stream, &lane, &queue.retry_records_key(), &lines];
        let arguments = (queue.group.as_str(), JOBS_EXAMINED_MAX, JOBS_BYTES_MAX);
        let value = self.run(&OLDEST_UNFINISHED, &keys, arguments).await?;
        let [published, complete] = reply::tuple(value, name)?;
        Ok(OldestUnfinished {
            published: reply::unless_nil(published, name, reply::id)?,
            complete: reply::flag(&complete, name)?,
        })
    }

    async fn count_after(
        &self,
        stream: &StreamName,
        after: EntryId,
        limit: usize,
    ) -> Result<Counted> {
        let name = COUNT_AFTER.name;
        let arguments = (Id(after), limit, COUNTED_BYTES_MAX);
        let value = self.run(&COUNT_AFTER, &[stream.as_str()], arguments).await?;
        let [entries, complete] = reply::tuple(value, name)?;
        Ok(Counted {
            entries: reply::number(entries, name)?,
            complete: reply::flag(&complete, name)?,
        })
    }

    async fn consumers(&self, queue: &Queue) -> Result<Consumers> {
        let name = CONSUMERS.name;
        let [stream, lane] = queue.keys();
        let keys = [&*stream, &lane, &queue.group_key()];
        let value = self.run(&CONSUMERS, &keys, queue.group.as_str()).await?;
        let mut items = reply::items(value, name)?.into_iter();
        let now = ServerTime(reply::number(reply::next(&mut items, name)?, name)?);
        let consumers = items.map(|row| consumer_facts(row, name)).collect::<Result<_>>()?;
        Ok(Consumers { now, consumers })
    }

    async fn pending(&self, queue: &Queue, filter: PendingFilter<'_>) -> Result<Vec<PendingEntry>> {
        let from = filter.after.next().filter(|_| filter.limit > 0);
        let Some(from) = from else { return Ok(Vec::new()) };
        let mut command = redis::cmd(XPENDING);
        command.arg(queue.key(filter.inlet)).arg(queue.group.as_str());
        if !filter.idle.is_zero() {
            command.arg("IDLE").arg(milliseconds(filter.idle));
        }
        command.arg(Id(from)).arg("+").arg(filter.limit).arg(filter.consumer);
        let rows = reply::items(self.at(queue.stream.as_str()).command(&command).await?, XPENDING)?;
        let row = |row| {
            let [id, consumer, idle, count] = reply::tuple(row, XPENDING)?;
            let idle = u64::try_from(reply::integer(&idle, XPENDING)?).ok();
            Ok(PendingEntry {
                id: reply::id(id, XPENDING)?,
                consumer: reply::lossy(consumer, XPENDING)?,
                idle: idle.map(Duration::from_millis),
                delivery_count: reply::number(count, XPENDING)?,
                partition: None,
                progress: None,
            })
        };
        rows.into_iter().map(row).collect()
    }

    async fn retries(&self, queue: &Queue, from: RetriesFrom<'_>, limit: usize) -> Result<Retries> {
        let name = RETRIES.name;
        let (retry, records) = (queue.retry_key(), queue.retry_records_key());
        let keys = [queue.stream.as_str(), &retry, &records];
        let (after, due) = match from {
            RetriesFrom::First => ("", None),
            RetriesFrom::After { name, due } => (name, Some(due)),
            RetriesFrom::Due(due) => ("", Some(due)),
        };
        let due = due.map_or_else(String::new, |due| due.to_string());
        let arguments = (queue.group.as_str(), after, limit, JOBS_BYTES_MAX, due);
        let value = self.run(&RETRIES, &keys, arguments).await?;
        let mut items = reply::items(value, name)?.into_iter();
        let now = ServerTime(reply::number(reply::next(&mut items, name)?, name)?);
        let has_more = reply::flag(&reply::next(&mut items, name)?, name)?;
        let jobs = items.map(|row| retry_facts(row, name)).collect::<Result<_>>()?;
        Ok(Retries { now, jobs, has_more })
    }

    async fn past_attempts(&self, queue: &Queue, of: JobPlace<'_>) -> Result<AttemptHistory> {
        let name = PAST_ATTEMPTS.name;
        let (key, kind, of) = match of {
            JobPlace::Retry(member) => (queue.retry_records_key(), "record", member.to_owned()),
            JobPlace::Lane(id) => (queue.key(Inlet::LANE), "entry", id.to_string()),
            JobPlace::Dead(id) => (queue.dead_key(), "entry", id.to_string()),
        };
        let arguments = (kind, of, OWN_VALUE_BYTES_MAX);
        let value = self.run(&PAST_ATTEMPTS, &[&*key], arguments).await?;
        let [carried, last] = reply::tuple(value, name)?;
        let text = |value| reply::unless_nil(value, name, reply::lossy);
        Ok(AttemptHistory::of(text(carried)?.as_deref(), text(last)?.as_deref()))
    }

    async fn has_retry(&self, queue: &Queue, name: &str) -> Result<bool> {
        let mut command = redis::cmd("ZRANK");
        command.arg(queue.retry_key()).arg(name);
        Ok(self.at(queue.stream.as_str()).command(&command).await? != Value::Nil)
    }

    async fn range(
        &self,
        stream: &StreamName,
        span: Span,
        newest_first: bool,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        if limit == 0 || span.from > span.to {
            return Ok(Vec::new());
        }
        let (name, first, last) = match newest_first {
            true => ("XREVRANGE", span.to, span.from),
            false => ("XRANGE", span.from, span.to),
        };
        let mut command = redis::cmd(name);
        command.arg(stream.as_str()).arg(Id(first)).arg(Id(last)).arg("COUNT").arg(limit);
        reply::entries(self.at(stream.as_str()).command(&command).await?, name)
    }

    async fn previews(
        &self,
        stream: &StreamName,
        span: Span,
        newest_first: bool,
        limit: usize,
        of: PreviewOf,
    ) -> Result<Previews> {
        if limit == 0 || span.from > span.to {
            return Ok(Previews { entries: Vec::new(), has_more: false });
        }
        let (order, first, last) = match newest_first {
            true => ("newest", span.to, span.from),
            false => ("oldest", span.from, span.to),
        };
        let (kind, value) = match of {
            PreviewOf::Entries { value } => ("entry", value),
            PreviewOf::Letters => ("letter", 0),
        };
        let sizes = (value, OWN_VALUE_BYTES_MAX, JOBS_BYTES_MAX, SHOWN_BYTES_MAX);
        let arguments = ((order, Id(first), Id(last), limit, kind), sizes);
        let value = self.run(&PREVIEWS, &[stream.as_str()], arguments).await?;
        previews(value, PREVIEWS.name)
    }

    async fn tail(&self, stream: &StreamName) -> Result<Box<dyn TailReader>> {
        Ok(Box::new(RedisTail::open(self.at(stream.as_str()), stream).await?))
    }
}

fn group_facts(value: Value, name: &'static str) -> Result<GroupFacts> {
    let facts: [Value; 26] = reply::tuple(value, name)?;
    let [version, now, length, ends, cursor, read, lag, next, rest @ ..] = facts;
    let [pending, lane_pending, lane_waiting, oldest, retrying, dead, paused, rest @ ..] = rest;
    let [resumed, trimmed, types, new_dead_letters, letter_error, rest @ ..] = rest;
    let [retry_error, released, parked, longest, rate, limit] = rest;
    Ok(GroupFacts {
        now: ServerTime(reply::number(now, name)?),
        counts_lag_right: counts_lag_right(reply::number(version, name)?),
        length: reply::number(length, name)?,
        ends: reply::unless_nil(ends, name, stream_ends)?,
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
        resumed: reply::unless_nil(resumed, name, reply::number)?,
        trimmed_unread: reply::number(trimmed, name)?,
        unhandled: reply::items(types, name)?
            .into_iter()
            .map(|event_type| reply::lossy(event_type, name))
            .collect::<Result<_>>()?,
        new_dead_letters: reply::number(new_dead_letters, name)?,
        dead_letter_error: reply::unless_nil(letter_error, name, reply::lossy)?,
        retry_error: reply::unless_nil(retry_error, name, reply::lossy)?,
        released: reply::number(released, name)?,
        parked: reply::unless_nil(parked, name, reply::number)?,
        longest_line: reply::unless_nil(longest, name, |line, name| {
            let [key, jobs] = reply::tuple(line, name)?;
            Ok((reply::lossy(key, name)?, reply::number(jobs, name)?))
        })?,
        rate: rate_facts(rate, name)?,
        limit: SetLimit::read(&reply::lossy(limit, name)?),
    })
}

fn rate_facts(value: Value, name: &'static str) -> Result<RateFacts> {
    let [declared, set, next, ahead, limited] = reply::tuple(value, name)?;
    let limited = Duration::from_millis(reply::number(limited, name)?);
    Ok(RateFacts {
        declared: Rate::read(&reply::lossy(declared, name)?),
        set: SetRate::read(&reply::lossy(set, name)?),
        next: Duration::from_micros(reply::number(next, name)?),
        ahead: Duration::from_micros(reply::number(ahead, name)?),
        limited: (!limited.is_zero()).then_some(limited),
    })
}

fn stream_ends(value: Value, name: &'static str) -> Result<StreamEnds> {
    let [first, last_id, added] = reply::tuple(value, name)?;
    Ok(StreamEnds {
        first: reply::unless_nil(first, name, reply::id)?,
        last_id: reply::id(last_id, name)?,
        added: reply::number(added, name)?,
    })
}

fn previews(value: Value, name: &'static str) -> Result<Previews> {
    let mut items = reply::items(value, name)?.into_iter();
    let has_more = reply::flag(&reply::next(&mut items, name)?, name)?;
    let preview = |row| {
        let [id, payload, fields] = reply::tuple(row, name)?;
        let mut parts = reply::items(fields, name)?.into_iter();
        let mut fields = Vec::with_capacity(parts.len() / 3);
        while let Some(field) = parts.next() {
            fields.push(FieldPreview {
                name: reply::bytes(field, name)?,
                value: reply::bytes(reply::next(&mut parts, name)?, name)?,
                bytes: reply::number(reply::next(&mut parts, name)?, name)?,
            });
        }
        let payload_bytes = reply::number(payload, name)?;
        Ok(EntryPreview { id: reply::id(id, name)?, fields, payload_bytes, partition: None })
    };
    Ok(Previews { entries: items.map(preview).collect::<Result<_>>()?, has_more })
}

/// Whether a version computes the lag correctly after a trim beyond the cursor: 7.4.4 and later 7.4
/// releases, and 8.0 and newer. Valkey does not; it reports the Redis version that it is based on.
fn counts_lag_right(version: u64) -> bool {
    let (major, minor, patch) = (version >> 16 & 0xff, version >> 8 & 0xff, version & 0xff);
    (major, minor) >= (8, 0) || (major, minor) == (7, 4) && patch >= 4
}

fn consumer_facts(row: Value, name: &'static str) -> Result<ConsumerFacts> {
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
}

/// Another client may have written the record: a field that cannot be decoded is `None`.
pub(super) fn retry_facts(row: Value, name: &'static str) -> Result<RetryFacts> {
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

const XINFO: &str = "XINFO GROUPS";
const XPENDING: &str = "XPENDING";
/// Counting reads the entries that it counts: this many bytes take a few milliseconds of the server's
/// time.
const COUNTED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many jobs that were retried one call examines at most.
const JOBS_EXAMINED_MAX: usize = 10_000;
const JOBS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How many bytes one page of previews may have.
const SHOWN_BYTES_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_that_compute_the_lag_correctly_are_believed() {
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
