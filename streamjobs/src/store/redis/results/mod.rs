//! Results of jobs, each in a key of its own that expires.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Cmd, Value};

use super::script::scripts;
use super::{DELAY_MAX, RedisStore, milliseconds, reply};
use crate::model::name::{EventId, GroupName, StreamName};
use crate::store::results::{DeadSign, ResultFacts, ResultKept, StoredResult};
use crate::store::types::Result;
use crate::store::{Queue, Results, StoreError};

scripts! {
    KEEP_RESULT = "keep_result";
    RESULT_FACTS = "result_facts";
    UNSIGN_DEAD = "unsign_dead";
}

#[async_trait]
impl Results for RedisStore {
    async fn keep_result(
        &self,
        queue: &Queue,
        event_id: &EventId,
        json: &Bytes,
        keep: Duration,
    ) -> Result<ResultKept> {
        match self.keep_text(queue, event_id, json, keep).await? {
            1 => Ok(ResultKept::Kept),
            0 => Ok(ResultKept::Present),
            -1 => Ok(ResultKept::NoMemory),
            _ => Err(StoreError::Protocol { command: KEEP_RESULT.name }),
        }
    }

    async fn sign_dead(
        &self,
        queue: &Queue,
        event_id: &EventId,
        sign: &DeadSign<'_>,
        keep: Duration,
    ) -> Result<()> {
        self.keep_text(queue, event_id, sign.text().as_bytes(), keep).await.map(drop)
    }

    async fn unsign_dead(&self, queue: &Queue, event_id: &EventId) -> Result<()> {
        let value = self.script(&UNSIGN_DEAD, &[&queue.result_key(event_id)], |_| ()).await?;
        reply::flag(&value, UNSIGN_DEAD.name).map(drop)
    }

    async fn result(&self, queue: &Queue, event_id: &EventId) -> Result<Option<StoredResult>> {
        const GET: &str = "GET";
        let key = queue.result_key(event_id);
        let mut command = redis::cmd(GET);
        command.arg(&key);
        let value = self.at(&key).command(&command).await?;
        let text = reply::unless_nil(value, GET, reply::bytes)?;
        Ok(text.map(StoredResult::of))
    }

    async fn result_facts(
        &self,
        stream: &StreamName,
        groups: &[GroupName],
        event_id: &EventId,
    ) -> Result<Vec<Option<ResultFacts>>> {
        let name = RESULT_FACTS.name;
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let keys = groups.iter().map(|group| stream.result_key(group, event_id));
        let keys = keys.collect::<Vec<_>>();
        let keys = keys.iter().map(String::as_str).collect::<Vec<_>>();
        let value = self.script(&RESULT_FACTS, &keys, |_| ()).await?;
        let facts = reply::items(value, name)?.into_iter();
        facts.map(|facts| reply::unless_nil(facts, name, of_one)).collect()
    }
}

impl RedisStore {
    async fn keep_text(
        &self,
        queue: &Queue,
        event_id: &EventId,
        text: &[u8],
        keep: Duration,
    ) -> Result<i64> {
        // The server refuses zero, and times that are too long.
        let keep = milliseconds(keep).clamp(1, DELAY_MAX);
        let add = |command: &mut Cmd| {
            command.arg(text).arg(keep);
        };
        let value = self.script(&KEEP_RESULT, &[&queue.result_key(event_id)], add).await?;
        reply::integer(&value, KEEP_RESULT.name)
    }
}

fn of_one(value: Value, name: &'static str) -> Result<ResultFacts> {
    let [bytes, rest] = reply::tuple(value, name)?;
    Ok(ResultFacts {
        bytes: u64::try_from(reply::integer(&bytes, name)?).ok(),
        rest: Duration::from_millis(reply::number(rest, name)?),
    })
}
