//! Schedules: a sorted set of next times with their definitions and a log beside the stream.

use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Value};

use super::consume::add_fields;
use super::publish::{broken, cause, chunk_length};
use super::schedule::is_of_connection;
use super::script::{Script, scripts};
use super::{RedisStore, milliseconds, packed, reply, trimming};
use crate::model::cause::bounded_text;
use crate::model::config::Retention;
use crate::model::name::{GroupName, ScheduleName, StreamName};
use crate::store::publish::NewEntry;
use crate::store::schedules::{
    DECLARED_FOR, DRIFT_MAX, Declared, DueSchedules, Fired, Firing, LOG_MAX, ListedSchedules, Mark,
    NewSchedule, NextTime, Ran, RemovedSchedule, SCHEDULES_MAX, ScheduleFacts, ScheduleFactsPage,
    ScheduleKind, ScheduleRecord, Schedules, Score, StoredSpec,
};
use crate::store::types::Result;
use crate::store::{ServerTime, StoreError};

scripts! {
    DECLARE = "declare";
    DUE_SCHEDULES / ALL_DUE_SCHEDULES = "due_schedules";
    FIRE = "fire";
    FORGET_SCHEDULES = "forget_schedules";
    LIST_SCHEDULES = "list_schedules";
    MARK_DECLARED = "mark_declared";
    PAUSE_SCHEDULE = "pause_schedule";
    REMOVE_SCHEDULE = "remove_schedule";
    RESUME_SCHEDULE = "resume_schedule";
    RUN_SCHEDULE = "run_schedule";
}

#[async_trait]
impl Schedules for RedisStore {
    async fn declare(
        &self,
        stream: &StreamName,
        schedule: &NewSchedule,
        next: NextTime,
        silence: Duration,
    ) -> Result<Declared> {
        let NewSchedule { name, digest, kind, about, fields } = schedule;
        let fields = if fields.is_empty() { Vec::new() } else { packed::job(fields) };
        let identity = (name.as_str(), digest.as_str(), kind.as_str(), about.as_str());
        let times = (next.at, next.from.0, milliseconds(silence), DRIFT_MAX, SCHEDULES_MAX);
        let add = |command: &mut Cmd| {
            command.arg(identity).arg(times).arg(fields);
        };
        declared(self.schedules_script(&DECLARE, stream, add).await?, DECLARE.name)
    }

    async fn mark_declared(
        &self,
        stream: &StreamName,
        declared: &[(ScheduleName, String)],
    ) -> Result<Vec<Mark>> {
        let name = MARK_DECLARED.name;
        let mut marks = Vec::with_capacity(declared.len());
        for chunk in declared.chunks(MARKED_MAX) {
            let add = |command: &mut Cmd| {
                command.arg(MARK_AGE);
                for (name, digest) in chunk {
                    command.arg(name.as_str()).arg(digest);
                }
            };
            let answer = self.schedules_script(&MARK_DECLARED, stream, add).await?;
            marks.extend(reply::items(answer, name)?.into_iter().map(mark));
        }
        let marks = marks.into_iter().collect::<Result<Vec<_>>>()?;
        match marks.len() == declared.len() {
            true => Ok(marks),
            false => Err(StoreError::Protocol { command: name }),
        }
    }

    async fn due_schedules(&self, stream: &StreamName, skip: usize) -> Result<DueSchedules> {
        let name = DUE_SCHEDULES.name;
        let [schedules, specs, _] = keys(stream);
        let keys = [stream.as_str(), &schedules, &specs];
        let value = self.run_in_batch(&DUE_SCHEDULES, &keys, (skip, DUE_MAX)).await?;
        let mut items = reply::items(value, name)?.into_iter();
        let mut next = || reply::next(&mut items, name);
        let (now, version) = (reply::number(next()?, name)?, reply::number(next()?, name)?);
        let (count, used) = (reply::number(next()?, name)?, reply::flag(&next()?, name)?);
        let has_more = reply::flag(&next()?, name)?;
        let next_due = match next()? {
            Value::Int(_) => None,
            due => Some(reply::number(due, name)?),
        };
        let mut due = Vec::new();
        while let Some(schedule) = items.next() {
            let text = reply::text(reply::next(&mut items, name)?, name)?;
            let at = reply::number(reply::next(&mut items, name)?, name)?;
            due.push((reply::lossy(schedule, name)?, Score { text, at }));
        }
        Ok(DueSchedules {
            now: ServerTime(now),
            version,
            count,
            used,
            due,
            has_more,
            next_due: next_due.map(|due: u64| Duration::from_millis(due.saturating_sub(now))),
        })
    }

    async fn fire(
        &self,
        stream: &StreamName,
        retention: Retention,
        by: &str,
        firings: Vec<Firing>,
    ) -> Vec<Result<Fired>> {
        let mut answers = Vec::with_capacity(firings.len());
        let mut rest = firings.as_slice();
        let mut broke = None::<String>;
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(firings_of_chunk(rest));
            rest = later;
            let answer = match &broke {
                Some(cause) => Err(broken(cause, false)),
                None => self.fire_chunk(stream, retention, by, chunk).await,
            };
            match answer {
                Ok(chunk) => answers.extend(chunk),
                Err(error) => {
                    if is_of_connection(&error) {
                        broke.get_or_insert_with(|| cause(&error));
                    }
                    answers.extend(chunk.iter().map(|_| Err(error.copy())));
                }
            }
        }
        answers
    }

    async fn run_schedule(
        &self,
        stream: &StreamName,
        retention: Retention,
        name: &ScheduleName,
        digest: &str,
        fields: NewEntry,
    ) -> Result<Ran> {
        let command = RUN_SCHEDULE.name;
        let add = |words: &mut Cmd| {
            words.arg(trimming(retention)).arg(LOG_MAX).arg(name.as_str()).arg(digest);
            add_fields(words, &fields);
        };
        let answer = self.schedules_script(&RUN_SCHEDULE, stream, add).await?;
        let mut items = reply::items(answer, command)?.into_iter();
        match reply::flag(&reply::next(&mut items, command)?, command)? {
            true => Ok(Ran::Published(reply::id(reply::next(&mut items, command)?, command)?)),
            false => Ok(Ran::Changed),
        }
    }

    async fn pause_schedule(&self, stream: &StreamName, name: &ScheduleName) -> Result<bool> {
        let add = |command: &mut Cmd| {
            command.arg(name.as_str());
        };
        let answer = self.schedules_script(&PAUSE_SCHEDULE, stream, add).await?;
        reply::flag(&answer, PAUSE_SCHEDULE.name)
    }

    async fn resume_schedule(
        &self,
        stream: &StreamName,
        name: &ScheduleName,
        digest: &str,
        next: NextTime,
    ) -> Result<Declared> {
        let add = |command: &mut Cmd| {
            command.arg(name.as_str()).arg(digest).arg(next.at).arg(next.from.0).arg(DRIFT_MAX);
        };
        let answer = self.schedules_script(&RESUME_SCHEDULE, stream, add).await?;
        declared(answer, RESUME_SCHEDULE.name)
    }

    async fn remove_schedule(
        &self,
        stream: &StreamName,
        name: &ScheduleName,
    ) -> Result<RemovedSchedule> {
        let add = |command: &mut Cmd| {
            command.arg(name.as_str()).arg(milliseconds(DECLARED_FOR));
        };
        let answer = self.schedules_script(&REMOVE_SCHEDULE, stream, add).await?;
        Ok(match reply::integer(&answer, REMOVE_SCHEDULE.name)? {
            0 => RemovedSchedule::Missing,
            1 => RemovedSchedule::Removed,
            _ => RemovedSchedule::Declared,
        })
    }

    async fn forget_schedules(
        &self,
        stream: &StreamName,
        names: &[String],
        silence: Duration,
    ) -> Result<(usize, usize)> {
        let command = FORGET_SCHEDULES.name;
        let mut all = (0, 0);
        for chunk in names.chunks(MARKED_MAX) {
            let add = |words: &mut Cmd| {
                words.arg(milliseconds(silence)).arg(chunk);
            };
            let answer = self.schedules_script(&FORGET_SCHEDULES, stream, add).await?;
            let [removed, lost] = reply::tuple(answer, command)?;
            all.0 += reply::size(&removed, command)?;
            all.1 += reply::size(&lost, command)?;
        }
        Ok(all)
    }

    async fn schedules(
        &self,
        stream: &StreamName,
        listed: ListedSchedules<'_>,
        limit: usize,
        payloads: bool,
    ) -> Result<ScheduleFactsPage> {
        let name = LIST_SCHEDULES.name;
        let (after, only) = match listed {
            ListedSchedules::After(after) => (after, ""),
            ListedSchedules::Only(only) => ("", only),
        };
        let add = |command: &mut Cmd| {
            command.arg(after).arg(limit).arg(u8::from(payloads)).arg(LISTED_BYTES_MAX).arg(only);
        };
        let answer = self.schedules_script(&LIST_SCHEDULES, stream, add).await?;
        let mut items = reply::items(answer, name)?.into_iter();
        let mut next = || reply::next(&mut items, name);
        let (now, version, has_more) = (next()?, next()?, next()?);
        Ok(ScheduleFactsPage {
            now: ServerTime(reply::number(now, name)?),
            version: reply::number(version, name)?,
            has_more: reply::flag(&has_more, name)?,
            schedules: items.map(facts).collect::<Result<_>>()?,
        })
    }
}

impl RedisStore {
    /// Runs a script with the keys of a stream's schedules.
    async fn schedules_script(
        &self,
        script: &'static Script,
        stream: &StreamName,
        add: impl FnOnce(&mut Cmd) + Send,
    ) -> Result<Value> {
        let [schedules, specs, log] = keys(stream);
        self.script(script, &[stream.as_str(), &schedules, &specs, &log], add).await
    }

    async fn fire_chunk(
        &self,
        stream: &StreamName,
        retention: Retention,
        by: &str,
        firings: &[Firing],
    ) -> Result<Vec<Result<Fired>>> {
        let add = |command: &mut Cmd| {
            command.arg(trimming(retention)).arg(LOG_MAX).arg(by);
            for Firing { name, expected, digest, next, occurrences, missed, busy } in firings {
                command.arg(name.as_str()).arg(&expected.text).arg(digest);
                let busy = busy.as_ref().map_or("", GroupName::as_str);
                command.arg(*next).arg(*missed).arg(busy).arg(occurrences.len());
                for occurrence in occurrences {
                    command.arg(occurrence.due).arg(occurrence.fields.len() * 2);
                    add_fields(command, &occurrence.fields);
                }
            }
        };
        let [schedules, specs, log] = keys(stream);
        let mut keys = vec![stream.as_str().to_owned(), schedules, specs, log];
        for group in firings.iter().filter_map(|firing| firing.busy.as_ref()) {
            keys.push(stream.lane_key(group));
            keys.push(stream.retry_records_key(group));
            keys.push(stream.line_records_key(group));
        }
        let keys = keys.iter().map(String::as_str).collect::<Vec<_>>();
        let answers = self.script(&FIRE, &keys, add).await?;
        let answers = reply::items(answers, FIRE.name)?;
        match answers.len() == firings.len() {
            true => Ok(answers.into_iter().map(fired).collect()),
            false => Err(StoreError::Protocol { command: FIRE.name }),
        }
    }
}

/// How many of these firings go in one script: at least one.
fn firings_of_chunk(firings: &[Firing]) -> usize {
    let mut words = 0;
    let fits = |firing: &&Firing| {
        words += firing.occurrences.iter().map(|one| 2 + one.fields.len() * 2).sum::<usize>() + 7;
        words <= WORDS_MAX
    };
    let in_words = firings.iter().take(FIRINGS_MAX).take_while(fits).count();
    // The occurrences of one firing are published as a whole, however large they are.
    let entries = firings.iter().take(in_words).flat_map(|firing| &firing.occurrences);
    let entries_max = chunk_length(entries.map(|one| &one.fields));
    let mut sum = 0;
    let fits = |firing: &&Firing| {
        sum += firing.occurrences.len();
        sum <= entries_max
    };
    firings.iter().take(in_words).take_while(fits).count().max(1)
}

fn keys(stream: &StreamName) -> [String; 3] {
    [stream.schedules_key(), stream.schedule_specs_key(), stream.schedule_log_key()]
}

fn declared(answer: Value, name: &'static str) -> Result<Declared> {
    let mut items = reply::items(answer, name)?.into_iter();
    let mut next = || reply::next(&mut items, name);
    Ok(match reply::text(next()?, name)?.as_str() {
        "same" => Declared::Same,
        "stored" => Declared::Stored,
        "other" => Declared::Other(Duration::from_millis(reply::number(next()?, name)?)),
        "kind" => Declared::OtherKind(kind(next()?, name)?),
        "unreadable" => Declared::Unreadable,
        "stale" => Declared::Stale(ServerTime(reply::number(next()?, name)?)),
        "full" => Declared::Full,
        _ => return Err(StoreError::Protocol { command: name }),
    })
}

fn mark(answer: Value) -> Result<Mark> {
    let name = MARK_DECLARED.name;
    let mut items = reply::items(answer, name)?.into_iter();
    let mut next = || reply::next(&mut items, name);
    Ok(match reply::text(next()?, name)?.as_str() {
        "same" => Mark::Same,
        "unplaced" => Mark::Unplaced,
        "other" => Mark::Other(Duration::from_millis(reply::number(next()?, name)?)),
        "missing" => Mark::Missing,
        "kind" => Mark::OtherKind(kind(next()?, name)?),
        "unreadable" => Mark::Unreadable,
        _ => return Err(StoreError::Protocol { command: name }),
    })
}

fn kind(value: Value, name: &'static str) -> Result<ScheduleKind> {
    match reply::text(value, name)?.as_str() {
        "code" => Ok(ScheduleKind::Code),
        "stored" => Ok(ScheduleKind::Stored),
        _ => Err(StoreError::Protocol { command: name }),
    }
}

fn fired(answer: Value) -> Result<Fired> {
    let name = FIRE.name;
    let mut items = reply::items(answer, name)?.into_iter();
    let state = reply::integer(&reply::next(&mut items, name)?, name)?;
    if state == 0 {
        let ids = items.map(|id| reply::id(id, name)).collect::<Result<_>>()?;
        return Ok(Fired::Published(ids));
    }
    if state == 3 {
        let skipped = reply::number(reply::next(&mut items, name)?, name)?;
        let published = items.map(|id| reply::id(id, name)).collect::<Result<_>>()?;
        return Ok(Fired::Skipped { published, skipped });
    }
    let text = reply::lossy(reply::next(&mut items, name)?, name)?;
    match (state, text.as_str()) {
        (1, "moved") => Ok(Fired::Moved),
        (1, "changed") => Ok(Fired::Changed),
        (1, "paused") => Ok(Fired::Paused),
        (1, "early") => Ok(Fired::Early),
        (1, _) => Err(StoreError::Protocol { command: name }),
        _ => {
            let (code, rest) = text.split_once(' ').unwrap_or((&text, ""));
            Err(StoreError::Refused { code: code.to_owned(), text: bounded_text(rest) })
        }
    }
}

fn facts(row: Value) -> Result<ScheduleFacts> {
    let name = LIST_SCHEDULES.name;
    let [schedule, score, at, digest, spec_kind, about, rest @ ..] = reply::tuple::<17>(row, name)?;
    let [since, fired, missed, runs, last, last_entry, paused, declared, bytes, fields, skipped] =
        rest;
    let number = |value| reply::unless_nil(value, name, reply::number);
    let count = |value| number(value).map(Option::unwrap_or_default);
    let next = match score {
        Value::Nil => None,
        score => Some(Score { text: reply::text(score, name)?, at: reply::number(at, name)? }),
    };
    let spec = match digest {
        Value::Nil => None,
        digest => Some(StoredSpec {
            digest: reply::lossy(digest, name)?,
            kind: kind(spec_kind, name)?,
            about: reply::lossy(about, name)?,
            fields: reply::fields(fields, name)?.unwrap_or_default(),
            bytes: reply::number(bytes, name)?,
        }),
    };
    let last_entry = reply::unless_nil(last_entry, name, reply::text)?;
    let record = ScheduleRecord {
        since: count(since)?,
        fired: count(fired)?,
        missed: count(missed)?,
        skipped: count(skipped)?,
        runs: count(runs)?,
        last: number(last)?,
        last_entry: last_entry.and_then(|id| id.parse().ok()),
        paused: number(paused)?,
        declared: number(declared)?,
    };
    Ok(ScheduleFacts { name: reply::lossy(schedule, name)?, next, spec, record })
}

/// How many due schedules one answer has at most.
const DUE_MAX: usize = 500;
/// How many names one script takes.
const MARKED_MAX: usize = 500;
/// How old the mark of another process may be before it is written again, in milliseconds.
const MARK_AGE: u64 = 45_000;
/// How many firings one script takes: the server does nothing else meanwhile, for a few
/// milliseconds.
const FIRINGS_MAX: usize = 50;
const WORDS_MAX: usize = 10_000;
const LISTED_BYTES_MAX: usize = 8 * 1024 * 1024;
