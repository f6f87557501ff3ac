//! Locks of unique events, each in a key of its own that expires.

use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Value};

use super::consume::{Id, add_fields};
use super::publish::{broken, cause};
use super::script::scripts;
use super::{DELAY_MAX, RedisStore, milliseconds, reply, trimming};
use crate::model::config::Retention;
use crate::model::name::{EventId, StreamName};
use crate::store::types::Result;
use crate::store::unique::{
    NewUnique, UniqueAck, UniqueAppend, UniqueDigest, UniqueHolder, UniqueLocks,
};
use crate::store::{Queue, StoreError};

scripts! {
    ACKNOWLEDGE_UNIQUE = "acknowledge_unique";
    PUBLISH_UNIQUE = "publish_unique";
    RELEASE_UNIQUE = "release_unique";
    UNIQUE_HOLDER = "unique_holder";
}

#[async_trait]
impl UniqueLocks for RedisStore {
    async fn publish_unique(
        &self,
        stream: &StreamName,
        retention: Retention,
        event: NewUnique,
    ) -> Result<UniqueAppend> {
        let name = PUBLISH_UNIQUE.name;
        let keys = [stream.as_str(), &stream.unique_key(event.digest.as_str())];
        // The server refuses zero, and times that are too long.
        let window = milliseconds(event.window).clamp(1, DELAY_MAX);
        let add = |command: &mut Cmd| {
            command.arg(trimming(retention)).arg(event.id.as_str()).arg(window);
            add_fields(command, &event.fields);
        };
        let value = self.script(&PUBLISH_UNIQUE, &keys, add).await?;
        let mut items = reply::items(value, name)?;
        if items.is_empty() {
            return Err(StoreError::Protocol { command: name });
        }
        let rest = items.split_off(1);
        match items.first() {
            Some(Value::Int(1)) => {
                let [entry] = reply::tuple(Value::Array(rest), name)?;
                Ok(UniqueAppend::Appended(reply::id(entry, name)?))
            }
            _ => Ok(UniqueAppend::Stands(holder(Value::Array(rest), name)?)),
        }
    }

    async fn acknowledge_unique(&self, queue: &Queue, acks: &[UniqueAck]) -> Vec<Result<bool>> {
        let name = ACKNOWLEDGE_UNIQUE.name;
        let mut answers = Vec::with_capacity(acks.len());
        for chunk in acks.chunks(CALLS_MAX) {
            let calls = chunk.iter().map(|ack| {
                let lock = queue.stream.unique_key(ack.lock.digest.as_str());
                let key = queue.key(ack.inlet);
                move |command: &mut Cmd| {
                    command.arg(2).arg(&key).arg(&lock);
                    command.arg(queue.group.as_str()).arg(ack.inlet.as_str()).arg(Id(ack.id));
                    command.arg(ack.lock.event_id.as_str());
                }
            });
            let calls = calls.collect::<Vec<_>>();
            let route = self.at(queue.stream.as_str());
            match route.scripts(&ACKNOWLEDGE_UNIQUE, &calls).await {
                Ok(values) => answers.extend(
                    values
                        .into_iter()
                        .map(|value| value.and_then(|value| reply::flag(&value, name))),
                ),
                Err(error) => {
                    // Later chunks are not sent: each would wait for the same broken connection.
                    let (cause, is_unconfirmed) = (cause(&error), error.is_unconfirmed());
                    answers.extend(chunk.iter().map(|_| Err(broken(&cause, is_unconfirmed))));
                    let unsent = acks.len() - answers.len();
                    answers.extend((0..unsent).map(|_| Err(broken(&cause, false))));
                    break;
                }
            }
        }
        answers
    }

    async fn unique_holder(
        &self,
        stream: &StreamName,
        digest: &UniqueDigest,
    ) -> Result<Option<UniqueHolder>> {
        let lock = stream.unique_key(digest.as_str());
        let value = self.script(&UNIQUE_HOLDER, &[&lock], |_| ()).await?;
        reply::unless_nil(value, UNIQUE_HOLDER.name, holder)
    }

    async fn release_unique(
        &self,
        stream: &StreamName,
        digest: &UniqueDigest,
        of: Option<&EventId>,
    ) -> Result<Option<UniqueHolder>> {
        let lock = stream.unique_key(digest.as_str());
        let of = of.map_or("", EventId::as_str);
        let value = self.run(&RELEASE_UNIQUE, &[&lock], of).await?;
        reply::unless_nil(value, RELEASE_UNIQUE.name, holder)
    }
}

fn holder(value: Value, name: &'static str) -> Result<UniqueHolder> {
    let [entry, event, rest] = reply::tuple(value, name)?;
    let event_id = EventId::new(reply::text(event, name)?);
    Ok(UniqueHolder {
        entry_id: reply::id(entry, name)?,
        event_id: event_id.map_err(|_| StoreError::Protocol { command: name })?,
        rest: Duration::from_millis(reply::number(rest, name)?),
    })
}

/// How many calls one request has, so that it does not keep the server from serving others.
const CALLS_MAX: usize = 100;
