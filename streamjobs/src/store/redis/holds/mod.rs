//! Holds: hashes and sorted sets beside the stream, changed by scripts alone.

use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Value};

use super::consume::Id;
use super::script::scripts;
use super::{RedisStore, packed, reply};
use crate::model::entry::EntryId;
use crate::model::limit::{HoldRule, HoldScope, LimitOption, SetLimit};
use crate::model::name::ConsumerName;
use crate::store::types::Result;
use crate::store::{
    Finished, HeldPlace, HoldSweep, Holds, Inlet, Left, LineFacts, Queue, ServerTime, StoreError,
    SweepAt, SweepCursors, SweptHolds, Taken, place_of,
};

scripts! {
    FINISH = "finish" after "shared";
    LINE_HOLDER = "line_holder";
    SET_LIMIT = "set_limit";
    SWEEP_HOLDS = "sweep_holds" after "shared";
    TAKE = "take" after "shared";
    TAKE_SHARE = "take_share" after "shared";
}

#[async_trait]
impl Holds for RedisStore {
    async fn take(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        inlet: Inlet,
        count: usize,
        rule: HoldRule,
    ) -> Result<Taken> {
        if rule.scope == HoldScope::Share {
            return self.take_share(queue, consumer, count).await;
        }
        let name = TAKE.name;
        let ([stream, lane], dead, holds) = (queue.keys(), queue.dead_key(), queue.hold_keys());
        let ([holds @ .., _], hash) = (&holds, queue.group_key());
        let keys = [&*stream, &*lane, &*dead].into_iter().chain(holds.iter().map(String::as_str));
        let keys = keys.chain([&*hash]);
        let add = |command: &mut Cmd| {
            command.arg(queue.group.as_str()).arg(consumer.as_str()).arg(inlet.as_str());
            command.arg(count).arg(rule.scope.as_str()).arg(rule.limit.get());
            command.arg(counted(rule));
        };
        let route = self.at(queue.stream.as_str());
        let keys = keys.collect::<Vec<_>>();
        let value = route.script_answering(&TAKE, &keys, add, TAKEN_BYTES).await?;
        let [left, parked, entries] = reply::tuple(value, name)?;
        let (left, parked) = (left_of(left, name)?, reply::size(&parked, name)?);
        Ok(Taken { left, parked, deliveries: packed::deliveries(entries, inlet, name)? })
    }

    async fn finish(
        &self,
        queue: &Queue,
        rule: HoldRule,
        places: &[(Inlet, EntryId)],
    ) -> Result<Finished> {
        let ([stream, lane], dead, holds) = (queue.keys(), queue.dead_key(), queue.hold_keys());
        let (keys, hash) = ([&*stream, &*lane, &*dead].into_iter(), queue.group_key());
        let keys = keys.chain(holds.iter().map(String::as_str)).chain([&*hash]);
        let keys = keys.collect::<Vec<_>>();
        let mut finished = Finished::default();
        for chunk in places.chunks(PLACES_MAX) {
            let add = |command: &mut Cmd| {
                command.arg(queue.group.as_str()).arg(limit(rule)).arg(counted(rule));
                let of = |lane| chunk.iter().filter(move |(inlet, _)| inlet.is_lane() == lane);
                command.arg(of(false).count());
                for (_, id) in of(false).chain(of(true)) {
                    command.arg(Id(*id));
                }
            };
            let value = self.script(&FINISH, &keys, add).await?;
            let [acknowledged, fed] = reply::tuple(value, FINISH.name)?;
            finished.acknowledged += reply::size(&acknowledged, FINISH.name)?;
            finished.fed += reply::size(&fed, FINISH.name)?;
        }
        Ok(finished)
    }

    async fn sweep_holds(&self, queue: &Queue, sweep: HoldSweep) -> Result<SweptHolds> {
        let (name, HoldSweep { rule, cursors }) = (SWEEP_HOLDS.name, sweep);
        let ([stream, lane], holds) = (queue.keys(), queue.hold_keys());
        let (retries, dead) = (queue.retry_records_key(), queue.dead_key());
        let group = queue.group_key();
        let keys = [&*stream, &*lane, &*retries, &*dead, &*group].into_iter();
        let keys = keys.chain(holds.iter().map(String::as_str)).collect::<Vec<_>>();
        let add = |command: &mut Cmd| {
            command.arg(queue.group.as_str());
            command.arg(match rule {
                Some(rule) if rule.scope == HoldScope::Share => rule.scope.as_str().to_owned(),
                rule => rule.map_or_else(String::new, limit),
            });
            command.arg(rule.map_or_else(String::new, HoldRule::text));
            command.arg(i32::from(rule.is_some_and(|rule| rule.blocks)));
            command.arg(cursor(cursors.holds)).arg(cursor(cursors.lines));
            command.arg(rule.map_or("", counted));
        };
        let value = self.script(&SWEEP_HOLDS, &keys, add).await?;
        let [holds, lines, ended, fed, parked, others] = reply::tuple(value, name)?;
        let others = reply::lossy(others, name)?;
        Ok(SweptHolds {
            cursors: SweepCursors { holds: sweep_at(holds, name)?, lines: sweep_at(lines, name)? },
            ended: reply::size(&ended, name)?,
            fed: reply::size(&fed, name)?,
            parked: reply::number(parked, name)?,
            others: Some(others).filter(|others| !others.is_empty()),
        })
    }

    async fn set_limit(&self, queue: &Queue, set: Option<&SetLimit>) -> Result<bool> {
        let scope = set.map_or("", |set| set.option.scope());
        let limit = set.map_or_else(String::new, |set| set.limit.to_string());
        let note = set.map_or_else(String::new, SetLimit::note);
        let value = self.run(&SET_LIMIT, &[&queue.group_key()], (scope, limit, note)).await?;
        reply::flag(&value, SET_LIMIT.name)
    }

    async fn line_holder(&self, queue: &Queue, places: usize) -> Result<Option<LineFacts>> {
        let [stream, lane] = queue.keys();
        let (retry, records) = (queue.retry_key(), queue.retry_records_key());
        let [holds, _, _, _, turns, _] = queue.hold_keys();
        let keys = [&*stream, &*lane, &*retry, &*records, &*holds, &*turns];
        let value = self.run(&LINE_HOLDER, &keys, (queue.group.as_str(), places)).await?;
        reply::unless_nil(value, LINE_HOLDER.name, line_holder)
    }
}

fn line_holder(value: Value, name: &'static str) -> Result<LineFacts> {
    let facts: [Value; 10] = reply::tuple(value, name)?;
    let [now, key, jobs, looked, complete, place, event_id, consumer, idle, due] = facts;
    let place = reply::unless_nil(place, name, reply::text)?;
    let place = place.map(|place| {
        let wrong = StoreError::Protocol { command: name };
        let (inlet, entry) = place_of(&place).ok_or(wrong)?;
        Ok(HeldPlace {
            inlet,
            entry,
            event_id: reply::unless_nil(event_id, name, reply::lossy)?,
            consumer: reply::unless_nil(consumer, name, reply::lossy)?,
            idle: reply::unless_nil(idle, name, reply::number)?.map(Duration::from_millis),
            due: reply::unless_nil(due, name, reply::number)?,
        })
    });
    Ok(LineFacts {
        now: ServerTime(reply::number(now, name)?),
        key: reply::lossy(key, name)?,
        jobs: reply::number(jobs, name)?,
        place: place.transpose()?,
        looked: reply::number(looked, name)?,
        complete: reply::flag(&complete, name)?,
    })
}

impl RedisStore {
    /// Reads stream and lane in one step, so that the keys of both have their shares.
    async fn take_share(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        count: usize,
    ) -> Result<Taken> {
        let name = TAKE_SHARE.name;
        let ([stream, lane], dead, holds) = (queue.keys(), queue.dead_key(), queue.hold_keys());
        let keys = [&*stream, &*lane, &*dead].into_iter().chain(holds.iter().map(String::as_str));
        let add = |command: &mut Cmd| {
            command.arg(queue.group.as_str()).arg(consumer.as_str()).arg(count);
        };
        let (route, keys) = (self.at(queue.stream.as_str()), keys.collect::<Vec<_>>());
        let value = route.script_answering(&TAKE_SHARE, &keys, add, TAKEN_BYTES).await?;
        let [left, parked, read, fed] = reply::tuple(value, name)?;
        let (left, parked) = (left_of(left, name)?, reply::size(&parked, name)?);
        let mut deliveries = packed::deliveries(read, Inlet::STREAM, name)?;
        deliveries.extend(packed::deliveries(fed, Inlet::LANE, name)?);
        Ok(Taken { left, parked, deliveries })
    }
}

/// How many jobs of a key or of the group may run, as scripts take it; an empty text where shares
/// decide that.
fn limit(rule: HoldRule) -> String {
    match rule.scope {
        HoldScope::Key | HoldScope::Group => rule.limit.to_string(),
        HoldScope::Share => String::new(),
    }
}

/// What a limit counts together, if an operator can change it; otherwise an empty text.
fn counted(rule: HoldRule) -> &'static str {
    rule.changeable().map_or("", LimitOption::scope)
}

fn left_of(value: Value, name: &'static str) -> Result<Left> {
    match reply::text(value, name)?.as_str() {
        "drained" => Ok(Left::Drained),
        "more" => Ok(Left::More),
        "full" => Ok(Left::Full),
        _ => Err(StoreError::Protocol { command: name }),
    }
}

/// Where a sweep goes on, as the script takes it.
fn cursor(at: SweepAt) -> String {
    match at {
        SweepAt::Begin => "0".to_owned(),
        SweepAt::Cursor(cursor) => cursor.to_string(),
        SweepAt::End => String::new(),
    }
}

fn sweep_at(value: Value, name: &'static str) -> Result<SweepAt> {
    match reply::text(value, name)?.as_str() {
        "" | "0" => Ok(SweepAt::End),
        cursor => {
            let cursor = cursor.parse().map_err(|_| StoreError::Protocol { command: name })?;
            Ok(SweepAt::Cursor(cursor))
        }
    }
}

/// Places in one call, so that it does not keep the server from others. For each, a job may leave its line: the
/// scripts take that many from lines at once.
const PLACES_MAX: usize = 500;
/// About how many bytes the entries of one take have at most, unless a single entry has more.
const TAKEN_BYTES: usize = 1024 * 1024;
