//! Dead letters: each group has a stream of its own for them.

use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Value};

use super::consume::{IDS_MAX, Id, Settled, add_fields, add_ids};
use super::publish::{broken, cause, chunk_length};
use super::script::scripts;
use super::{DELAY_MAX, RedisStore, milliseconds, reply};
use crate::model::entry::{EntryId, Fields};
use crate::model::name::ConsumerName;
use crate::store::admin::ALIVE;
use crate::store::dead_letters::{
    LEASES_KEPT, RedriveRequest, Redriven, TakenLetters, Taker, WITHHELD,
};
use crate::store::types::Result;
use crate::store::{DeadLetters, FenceResult, Hold, Inlet, Queue, StandIn, StoredDeadLetter};

scripts! {
    REDRIVE = "redrive";
    REDRIVE_ARCHIVED = "redrive_archived";
    SETTLE_LETTERS = "settle_letters";
    STILL_TAKEN = "still_taken";
    STORE_DEAD_LETTER = "store_dead_letter";
    TAKE_LETTERS = "take_letters";
}

#[async_trait]
impl DeadLetters for RedisStore {
    async fn store_dead_letter(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        hold: Hold,
        stand_in: Option<StandIn>,
        letter: &Fields,
    ) -> Result<FenceResult> {
        let settled = Settled { consumer, hold, stand_in, fields: letter };
        self.settle(&STORE_DEAD_LETTER, queue, settled).await
    }

    #[cfg(feature = "testing")]
    async fn dead_letters(
        &self,
        queue: &Queue,
        after: EntryId,
        limit: usize,
    ) -> Result<Vec<StoredDeadLetter>> {
        if after == EntryId::MAX || limit == 0 {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd(XRANGE);
        command.arg(queue.dead_key()).arg(format!("({after}")).arg("+").arg("COUNT").arg(limit);
        reply::entries(self.at(queue.stream.as_str()).command(&command).await?, XRANGE)
    }

    async fn dead_letter(&self, queue: &Queue, id: EntryId) -> Result<Option<StoredDeadLetter>> {
        let mut command = redis::cmd(XRANGE);
        command.arg(queue.dead_key()).arg(Id(id)).arg(Id(id)).arg("COUNT").arg(1);
        let letters =
            reply::entries(self.at(queue.stream.as_str()).command(&command).await?, XRANGE)?;
        Ok(letters.into_iter().next())
    }

    async fn redrive(&self, queue: &Queue, id: EntryId, job: &Fields) -> Result<Option<EntryId>> {
        let (stream, lane) = (queue.key(Inlet::STREAM), queue.key(Inlet::LANE));
        let keys = [&*stream, &lane, &queue.dead_key(), &queue.stream.cancelled_key()];
        let add = |command: &mut Cmd| {
            add_fields(command.arg(queue.group.as_str()).arg(Id(id)), job);
        };
        let value = self.script(&REDRIVE, &keys, add).await?;
        reply::unless_nil(value, REDRIVE.name, reply::id)
    }

    async fn purge(&self, queue: &Queue, ids: &[EntryId]) -> Result<usize> {
        let (dead, mut purged) = (queue.dead_key(), 0);
        for chunk in ids.chunks(IDS_MAX) {
            let mut command = redis::cmd(XDEL);
            add_ids(command.arg(&dead), chunk);
            purged += reply::size(&self.at(queue.stream.as_str()).command(&command).await?, XDEL)?;
        }
        Ok(purged)
    }

    async fn trim_dead_letters(&self, queue: &Queue, keep: u64) -> Result<u64> {
        let mut command = redis::cmd(XTRIM);
        command.arg(queue.dead_key()).arg("MAXLEN").arg("~").arg(keep);
        reply::number(self.at(queue.stream.as_str()).command(&command).await?, XTRIM)
    }

    async fn take_letters(&self, queue: &Queue, by: &Taker, limit: usize) -> Result<TakenLetters> {
        let name = TAKE_LETTERS.name;
        if limit == 0 {
            return Ok(TakenLetters::default());
        }
        let kept = by.lease_time().saturating_mul(LEASES_KEPT);
        let lease = milliseconds(by.lease_time());
        let times = [ALIVE, WITHHELD, kept].map(milliseconds);
        let taker = (by.group_name(), by.consumer().as_str());
        let arguments = (taker, lease, limit.min(IDS_MAX), &times);
        let keys = [&*queue.dead_key(), &queue.group_key()];
        let value = self.run(&TAKE_LETTERS, &keys, arguments).await?;
        let [letters, missing, has_more] = reply::tuple(value, name)?;
        Ok(TakenLetters {
            letters: reply::entries(letters, name)?,
            missing: reply::size(&missing, name)?,
            has_more: reply::flag(&has_more, name)?,
        })
    }

    async fn still_taken(
        &self,
        queue: &Queue,
        by: &Taker,
        ids: &[EntryId],
    ) -> Result<Vec<EntryId>> {
        let (dead, mut found) = (queue.dead_key(), Vec::with_capacity(ids.len()));
        for chunk in ids.chunks(IDS_MAX) {
            let taker = (by.group_name(), by.consumer().as_str());
            let add = |command: &mut Cmd| add_ids(command.arg(taker), chunk);
            let value = self.script(&STILL_TAKEN, &[&dead], add).await?;
            found.extend(reply::ids(value, STILL_TAKEN.name)?);
        }
        Ok(found)
    }

    async fn settle_letters(&self, queue: &Queue, by: &Taker, ids: &[EntryId]) -> Result<usize> {
        let (dead, mut settled) = (queue.dead_key(), 0);
        for chunk in ids.chunks(IDS_MAX) {
            let add = |command: &mut Cmd| add_ids(command.arg(by.group_name()), chunk);
            let value = self.script(&SETTLE_LETTERS, &[&dead], add).await?;
            settled += reply::size(&value, SETTLE_LETTERS.name)?;
        }
        Ok(settled)
    }

    async fn redrive_archived(
        &self,
        queue: &Queue,
        jobs: &[RedriveRequest],
        keep: Duration,
    ) -> Vec<Redriven> {
        let [stream, lane] = queue.keys();
        // The server refuses zero, and times that are too long.
        let keep = milliseconds(keep).clamp(1, DELAY_MAX);
        let mut answers = Vec::with_capacity(jobs.len());
        let mut rest = jobs;
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(chunk_length(rest.iter().map(|job| &job.fields)));
            rest = later;
            let calls = chunk.iter().map(|job| {
                let (stream, lane, token) = (&stream, &lane, queue.redriven_key(&job.token));
                let marks = queue.stream.cancelled_key();
                move |command: &mut Cmd| {
                    command.arg(4).arg(stream).arg(lane).arg(&token).arg(&marks);
                    add_fields(command.arg(queue.group.as_str()).arg(keep), &job.fields);
                }
            });
            match self
                .at(stream.as_str())
                .scripts(&REDRIVE_ARCHIVED, &calls.collect::<Vec<_>>())
                .await
            {
                Ok(values) => answers.extend(values.into_iter().map(redriven)),
                Err(error) => {
                    // Later chunks are not sent: each would wait for the same broken connection.
                    let (cause, is_unconfirmed) = (cause(&error), error.is_unconfirmed());
                    answers.extend(chunk.iter().map(|_| Err(broken(&cause, is_unconfirmed))));
                    answers.extend(rest.iter().map(|_| Err(broken(&cause, false))));
                    break;
                }
            }
        }
        answers
    }
}

pub(super) fn redriven(answer: Result<Value>) -> Redriven {
    reply::unless_nil(answer?, REDRIVE_ARCHIVED.name, reply::id)
}

const XDEL: &str = "XDEL";
const XRANGE: &str = "XRANGE";
const XTRIM: &str = "XTRIM";
