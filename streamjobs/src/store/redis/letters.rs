//! Takes dead letters for an archive, and puts jobs back that come from one.

use std::error::Error;
use std::time::Duration;

use futures_util::future::BoxFuture;
use redis::{Cmd, Value};

use super::acknowledge::{IDS_MAX, add_ids};
use super::append::chunk_length;
use super::held::{DELAY_MAX, add_fields};
use super::net::{Link, refused};
use super::{RedisStore, milliseconds, reply};
use crate::model::cause::chain;
use crate::model::entry::EntryId;
use crate::store::letters::{
    LEASES_KEPT, Letters, Returned, ReturningJob, TakenLetters, Taker, WITHHELD,
};
use crate::store::operate::ALIVE;
use crate::store::{Inlet, Queue, Reply, StoreError, script};

impl Letters for RedisStore {
    fn take_letters<'a>(
        &'a self,
        queue: &'a Queue,
        by: &'a Taker,
        limit: usize,
    ) -> Reply<'a, TakenLetters> {
        Box::pin(take(&self.link, queue, by, limit))
    }

    fn settle_letters<'a>(
        &'a self,
        queue: &'a Queue,
        by: &'a Taker,
        ids: &'a [EntryId],
    ) -> Reply<'a, usize> {
        Box::pin(settle(&self.link, queue, by, ids))
    }

    fn put_back<'a>(
        &'a self,
        queue: &'a Queue,
        jobs: &'a [ReturningJob],
        keep: Duration,
    ) -> BoxFuture<'a, Vec<Returned>> {
        Box::pin(put_back(&self.link, queue, jobs, keep))
    }
}

async fn take(
    link: &Link,
    queue: &Queue,
    by: &Taker,
    limit: usize,
) -> Result<TakenLetters, StoreError> {
    let name = script::TAKE_LETTERS.name;
    if limit == 0 {
        return Ok(TakenLetters::default());
    }
    let kept = by.lease_time().saturating_mul(LEASES_KEPT);
    let (dead, hash) = (queue.stream.dead_key(&queue.group), queue.stream.group_key(&queue.group));
    let add = |command: &mut Cmd| {
        command.arg(by.group_name()).arg(by.consumer().as_str());
        command.arg(milliseconds(by.lease_time())).arg(limit.min(IDS_MAX));
        command.arg(&[ALIVE, WITHHELD, kept].map(milliseconds));
    };
    let value = link.script(&script::TAKE_LETTERS, &[&dead, &hash], add).await?;
    let [letters, gone, more] = reply::tuple(value, name)?;
    Ok(TakenLetters {
        letters: reply::entries(letters, name)?,
        gone: reply::size(&gone, name)?,
        more: reply::size(&more, name)? > 0,
    })
}

async fn settle(
    link: &Link,
    queue: &Queue,
    by: &Taker,
    ids: &[EntryId],
) -> Result<usize, StoreError> {
    let dead = queue.stream.dead_key(&queue.group);
    let mut settled = 0;
    for chunk in ids.chunks(IDS_MAX) {
        let add = |command: &mut Cmd| add_ids(command.arg(by.group_name()), chunk);
        let value = link.script(&script::SETTLE_LETTERS, &[&dead], add).await?;
        settled += reply::size(&value, script::SETTLE_LETTERS.name)?;
    }
    Ok(settled)
}

async fn put_back(
    link: &Link,
    queue: &Queue,
    jobs: &[ReturningJob],
    keep: Duration,
) -> Vec<Returned> {
    let (stream, lane) = (queue.stream.as_str(), queue.key(Inlet::LANE));
    // The server refuses none and too many, by when the job would be in the lane.
    let keep = milliseconds(keep).clamp(1, DELAY_MAX);
    let mut answers = Vec::with_capacity(jobs.len());
    let mut rest = jobs;
    while !rest.is_empty() {
        let (chunk, later) = rest.split_at(chunk_length(rest.iter().map(|job| &job.fields)));
        rest = later;
        let calls = chunk.iter().map(|job| {
            let (lane, token) = (&lane, queue.stream.redriven_key(&queue.group, &job.token));
            move |command: &mut Cmd| {
                command.arg(3).arg(stream).arg(lane).arg(&token);
                add_fields(command.arg(queue.group.as_str()).arg(keep), &job.fields);
            }
        });
        match link.scripts(&script::PUT_BACK, &calls.collect::<Vec<_>>()).await {
            Ok(values) => answers.extend(values.into_iter().map(returned)),
            Err(error) => {
                // What comes after a broken connection would only wait for its deadline too.
                let cause = chain(error.source().unwrap_or(&error));
                answers.extend(chunk.iter().map(|_| {
                    Err(match error.is_unconfirmed() {
                        true => StoreError::AnswerLost(cause.clone().into()),
                        false => StoreError::Unreachable(cause.clone().into()),
                    })
                }));
                answers.extend(
                    rest.iter().map(|_| Err(StoreError::Unreachable(cause.clone().into()))),
                );
                break;
            }
        }
    }
    answers
}

pub(super) fn returned(value: Value) -> Returned {
    match value {
        Value::ServerError(error) => Err(refused(&error)),
        value => reply::unless_nil(value, script::PUT_BACK.name, reply::id),
    }
}
