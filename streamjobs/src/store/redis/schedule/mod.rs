//! Events that wait for their time: a sorted set with their records beside the stream.

use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Value};

use super::consume::{IDS_MAX, add_fields};
use super::publish::{broken, cause, chunk_length};
use super::script::scripts;
use super::{RedisStore, milliseconds, reply, trimming};
use crate::model::cause::bounded_text;
use crate::model::config::Retention;
use crate::model::name::{EventId, StreamName};
use crate::store::schedule::{LEARNING, SHORT, ScheduledFacts, ScheduledFactsPage};
use crate::store::types::Result;
use crate::store::{
    Debounced, Due, Entered, NewDebounced, NewScheduled, Rescheduled, Schedule, ScheduledFrom,
    Scheduling, ServerTime, StoreError, Upcoming,
};

scripts! {
    DEBOUNCE = "debounce";
    ENTER = "enter";
    LIST_SCHEDULED = "list_scheduled";
    LOOK_AHEAD / LOOKS_AHEAD = "look_ahead";
    RESCHEDULE = "reschedule";
    SCHEDULE = "schedule";
    UNSCHEDULE = "unschedule";
}

#[async_trait]
impl Schedule for RedisStore {
    async fn schedule(
        &self,
        stream: &StreamName,
        retention: Retention,
        events: Vec<NewScheduled>,
    ) -> Vec<Result<Scheduling>> {
        let mut answers = Vec::with_capacity(events.len());
        let mut rest = events.as_slice();
        let mut broke = None::<String>;
        while !rest.is_empty() {
            let length = events_of_chunk(rest);
            let (chunk, later) = rest.split_at(length);
            rest = later;
            let answer = match &broke {
                Some(cause) => Err(broken(cause, false)),
                None => self.schedule_chunk(stream, retention, chunk).await,
            };
            match answer {
                Ok(chunk) => answers.extend(chunk),
                Err(error) => {
                    // Each further chunk would wait as long as this one did.
                    if is_of_connection(&error) {
                        broke.get_or_insert_with(|| cause(&error));
                    }
                    answers.extend(chunk.iter().map(|_| Err(error.copy())));
                }
            }
        }
        answers
    }

    async fn debounce(&self, stream: &StreamName, event: NewDebounced) -> Result<Debounced> {
        let name = DEBOUNCE.name;
        let [later, records] = keys(stream);
        let NewDebounced { name: member, id, times, fields } = &event;
        let add = |command: &mut Cmd| {
            command.arg(member.as_str()).arg(id.as_str());
            command.arg(milliseconds(times.delay)).arg(milliseconds(times.wait_max));
            command.arg(u8::from(times.keeps_time));
            add_fields(command, fields);
        };
        let value = self.script(&DEBOUNCE, &[&later, &records], add).await?;
        let [due, replaced, repeated] = reply::tuple(value, name)?;
        let replaced = reply::unless_nil(replaced, name, reply::lossy)?;
        Ok(Debounced {
            due: reply::number(due, name)?,
            // Another client may have written it.
            replaced: replaced.and_then(|id| EventId::new(id).ok()),
            repeated: reply::flag(&repeated, name)?,
        })
    }

    async fn look_ahead(&self, stream: &StreamName) -> Result<Upcoming> {
        let name = LOOK_AHEAD.name;
        let [later, records] = keys(stream);
        let keys = [stream.as_str(), &later, &records];
        let value = self.run_in_batch(&LOOK_AHEAD, &keys, NOTHING).await?;
        let [now, waiting, due, misplaced, used] = reply::tuple(value, name)?;
        Ok(Upcoming {
            misplaced: reply::number(misplaced, name)?,
            ..upcoming(now, waiting, due, &used)?
        })
    }

    async fn enter(
        &self,
        stream: &StreamName,
        retention: Retention,
        limit: usize,
        cursor: u64,
    ) -> Result<Entered> {
        let name = ENTER.name;
        let [later, records] = keys(stream);
        let keys = [stream.as_str(), &later, &records];
        let arguments = (trimming(retention), limit.min(IDS_MAX), ENTERED_BYTES_MAX, cursor);
        let value = self.run(&ENTER, &keys, arguments).await?;
        let mut items = reply::items(value, name)?.into_iter();
        let mut next = || reply::next(&mut items, name);
        let (lost, restored, stranded) = (next()?, next()?, next()?);
        let (has_more, cursor) = (next()?, next()?);
        let upcoming = upcoming(next()?, next()?, next()?, &next()?)?;
        let late = |value| reply::number(value, name).map(Duration::from_millis);
        Ok(Entered {
            lost: reply::size(&lost, name)?,
            restored: reply::size(&restored, name)?,
            stranded: reply::size(&stranded, name)?,
            has_more: reply::flag(&has_more, name)?,
            cursor: reply::number(cursor, name)?,
            upcoming,
            lateness: items.map(late).collect::<Result<_>>()?,
        })
    }

    async fn unschedule(&self, stream: &StreamName, id: &EventId) -> Result<bool> {
        let [later, records] = keys(stream);
        let value = self.run(&UNSCHEDULE, &[&later, &records], id.as_str()).await?;
        reply::flag(&value, UNSCHEDULE.name)
    }

    async fn reschedule(
        &self,
        stream: &StreamName,
        retention: Retention,
        id: &EventId,
        due: Due,
    ) -> Result<Rescheduled> {
        let name = RESCHEDULE.name;
        let [later, records] = keys(stream);
        let keys = [stream.as_str(), &later, &records];
        let arguments = (trimming(retention), id.as_str(), words(due));
        let value = self.run(&RESCHEDULE, &keys, arguments).await?;
        let mut items = reply::items(value, name)?.into_iter();
        let mut next = || reply::next(&mut items, name);
        match reply::integer(&next()?, name)? {
            0 => Ok(Rescheduled::NotScheduled),
            1 => Ok(Rescheduled::Waits(reply::number(next()?, name)?)),
            _ => {
                let entry = reply::id(next()?, name)?;
                // Another client may have written it.
                let event = reply::unless_nil(next()?, name, reply::lossy)?;
                Ok(Rescheduled::Entered(entry, event.and_then(|id| EventId::new(id).ok())))
            }
        }
    }

    async fn scheduled(
        &self,
        stream: &StreamName,
        from: ScheduledFrom<'_>,
        limit: usize,
    ) -> Result<ScheduledFactsPage> {
        let name = LIST_SCHEDULED.name;
        let [later, records] = keys(stream);
        let (after, due) = match from {
            ScheduledFrom::First => ("", None),
            ScheduledFrom::After { id, due } => (id, Some(due)),
            ScheduledFrom::Due(due) => ("", Some(due)),
        };
        let due = due.map_or_else(String::new, |due| due.to_string());
        let arguments = (after, limit, LISTED_BYTES_MAX, due);
        let value = self.run(&LIST_SCHEDULED, &[&later, &records], arguments).await?;
        let mut items = reply::items(value, name)?.into_iter();
        let now = ServerTime(reply::number(reply::next(&mut items, name)?, name)?);
        let has_more = reply::flag(&reply::next(&mut items, name)?, name)?;
        let events = items.map(facts).collect::<Result<_>>()?;
        Ok(ScheduledFactsPage { now, events, has_more })
    }

    async fn scheduled_count(&self, stream: &StreamName) -> Result<u64> {
        let mut command = redis::cmd(ZCARD);
        command.arg(stream.later_key());
        reply::number(self.at(stream.as_str()).command(&command).await?, ZCARD)
    }
}

impl RedisStore {
    async fn schedule_chunk(
        &self,
        stream: &StreamName,
        retention: Retention,
        events: &[NewScheduled],
    ) -> Result<Vec<Result<Scheduling>>> {
        let name = SCHEDULE.name;
        let [later, records] = keys(stream);
        let keys = [stream.as_str(), &later, &records];
        let add = |command: &mut Cmd| {
            command.arg(trimming(retention)).arg(milliseconds(LEARNING)).arg(milliseconds(SHORT));
            for NewScheduled { id, due, fields } in events {
                command.arg(id.as_str()).arg(words(*due)).arg(fields.len() * 2);
                add_fields(command, fields);
            }
        };
        let answers = reply::items(self.script(&SCHEDULE, &keys, add).await?, name)?;
        match answers.len() == events.len() {
            true => Ok(answers.into_iter().map(scheduling).collect()),
            false => Err(StoreError::Protocol { command: name }),
        }
    }
}

/// How many of these events go in one script: at least one.
fn events_of_chunk(events: &[NewScheduled]) -> usize {
    let length = chunk_length(events.iter().map(|event| &event.fields)).min(EVENTS_MAX);
    let mut words = 0;
    let fits = |event: &&NewScheduled| {
        words += event.fields.len() * 2;
        words <= WORDS_MAX
    };
    events.iter().take(length).take_while(fits).count().max(1)
}

fn keys(stream: &StreamName) -> [String; 2] {
    [stream.later_key(), stream.later_records_key()]
}

fn words(due: Due) -> (&'static str, u64) {
    match due {
        Due::At(time) => ("at", time),
        Due::In(delay) => ("in", milliseconds(delay)),
    }
}

fn scheduling(answer: Value) -> Result<Scheduling> {
    let name = SCHEDULE.name;
    let mut items = reply::items(answer, name)?.into_iter();
    let mut next = || reply::next(&mut items, name);
    match reply::integer(&next()?, name)? {
        0 => Ok(Scheduling::Waits {
            due: reply::number(next()?, name)?,
            repeated: reply::flag(&next()?, name)?,
            unwatched: milliseconds_or_none(&next()?, name)?,
        }),
        1 => Ok(Scheduling::Entered(reply::id(next()?, name)?)),
        _ => {
            let error = reply::lossy(next()?, name)?;
            let (code, text) = error.split_once(' ').unwrap_or((&error, ""));
            Err(StoreError::Refused { code: code.to_owned(), text: bounded_text(text) })
        }
    }
}

fn upcoming(now: Value, waiting: Value, due: Value, used: &Value) -> Result<Upcoming> {
    let name = LOOK_AHEAD.name;
    let now = reply::number(now, name)?;
    let due = match due {
        Value::Int(_) => None,
        due => Some(reply::number(due, name)?),
    };
    Ok(Upcoming {
        now: ServerTime(now),
        waiting: reply::number(waiting, name)?,
        next_due: due.map(|due| Duration::from_millis(due.saturating_sub(now))),
        misplaced: 0,
        used: reply::flag(used, name)?,
    })
}

/// Another client may have written the record: a field that cannot be decoded is `None`.
fn facts(row: Value) -> Result<ScheduledFacts> {
    let name = LIST_SCHEDULED.name;
    let [member, due, event_type, key, bytes, id] = reply::tuple(row, name)?;
    Ok(ScheduledFacts {
        name: reply::lossy(member, name)?,
        event_id: reply::unless_nil(id, name, reply::lossy)?,
        due: reply::number(due, name)?,
        event_type: reply::unless_nil(event_type, name, reply::lossy)?,
        key: reply::unless_nil(key, name, reply::lossy)?,
        bytes: reply::number(bytes, name)?,
    })
}

fn milliseconds_or_none(value: &Value, name: &'static str) -> Result<Option<Duration>> {
    let number = reply::integer(value, name)?;
    Ok(u64::try_from(number).ok().map(Duration::from_millis))
}

/// Whether later chunks would fail in the same way, after an equally long wait.
pub(super) fn is_of_connection(error: &StoreError) -> bool {
    matches!(error, StoreError::Unreachable(_) | StoreError::AnswerLost(_))
}

const NOTHING: &[u8] = &[];
const ZCARD: &str = "ZCARD";
/// How many events one script takes: the server does nothing else meanwhile, for about 4 ms.
const EVENTS_MAX: usize = 100;
/// How many names and values the events of one script have at most: they take about as long.
const WORDS_MAX: usize = 10_000;
/// How many bytes of due events one script moves: other clients wait meanwhile, for a few
/// milliseconds.
const ENTERED_BYTES_MAX: usize = 4 * 1024 * 1024;
const LISTED_BYTES_MAX: usize = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn events(count: usize, fields: usize) -> Vec<NewScheduled> {
        let fields = (0..fields).map(|_| ("x".into(), "1".into())).collect::<Vec<_>>();
        let id = EventId::new("e-1").unwrap();
        let event = NewScheduled { id, due: Due::At(1), fields };
        vec![event; count]
    }

    #[test]
    fn a_script_is_bounded_in_events_and_words() {
        let length = |count, fields| events_of_chunk(&events(count, fields));
        assert_eq!([length(1_000, 8), length(1_000, 50), length(70, 8)], [100, 100, 70]);
        assert_eq!([length(1_000, 100), length(1_000, 990), length(1, 9_000)], [50, 5, 1]);
    }
}
