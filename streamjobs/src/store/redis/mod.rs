//! The only module that names Redis commands.
//!
//! A user of the server that is restricted by an access list needs these commands, on the streams
//! and on the keys beside them (`{stream}:*`, or `stream:*` for a stream with a hash tag):
//!
//! - appending and reading: `XADD`, `XREADGROUP`, `XACK`, `XDEL`, `XRANGE`, `XLEN`, `XTRIM`;
//! - held entries: `XPENDING`, `XCLAIM`;
//! - groups: `XGROUP|CREATE`, `XGROUP|SETID`, `XGROUP|DELCONSUMER`, `XINFO|STREAM`,
//!   `XINFO|GROUPS`, `XINFO|CONSUMERS`;
//! - retries: `HSETNX`, `HGET`, `HDEL`, `HLEN`, `ZADD`, `ZREM`, `ZCARD`, `ZRANGE`,
//!   `ZRANGEBYSCORE`;
//! - floors, beats, looks and pauses: `HSET`, `HSETNX`, `HGET`, `HGETALL`, `HEXISTS`, `HINCRBY`, `HDEL`,
//!   `HLEN`;
//! - the connection: `PING`, `INFO`, `TIME`, `EVALSHA`, `SCRIPT|LOAD`, `MULTI`, `EXEC`,
//!   `CLIENT|ID`, `CLIENT|UNBLOCK`, `CLIENT|SETNAME`, and `SELECT` for another database than 0.
//!
//! `CONFIG|GET` is used where it is allowed, when the server is examined. No runtime needs, but
//! whoever looks at streams uses where it is allowed: `MEMORY|USAGE`, `XREVRANGE`, `XREAD`, `HSCAN`; and
//! whoever operates them, where it is allowed: `XGROUP|DESTROY`, `DEL`, `UNLINK`. Whoever archives
//! dead letters reads them as a group does, and needs the same commands on their keys; whoever puts
//! jobs back from there uses, where it is allowed: `GET`, `SET`; and whose handlers take marks uses,
//! where it is allowed: `PEXPIRE`, and `HGETALL`, `HGET`, `HSET` and `HDEL` on the marks' keys.

mod acknowledge;
mod append;
#[cfg(feature = "testing")]
pub mod decoders;
mod facts;
mod group;
mod held;
mod inspect;
mod letters;
mod marks;
mod net;
mod operate;
mod reader;
mod reply;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::redis::Value;
use futures_util::future::BoxFuture;

use self::append::RedisAppender;
use self::group::Group;
use self::held::Held;
use self::net::{Address, CONNECT_DEADLINE, Link};
use self::reader::RedisReader;
use crate::model::cause::BoxError;
use crate::model::config::{Retention, Start};
use crate::model::entry::{EntryId, Fields};
use crate::model::error::ConnectError;
use crate::model::name::{ConsumerName, StreamName};
use crate::store::facts::{Facts, ServerFacts};
use crate::store::{
    Appended, Appender, ClaimedPage, Delivery, FenceResult, Hold, Idle, IdleClaim, Inlet, NewEntry,
    Promoted, Queue, Recorded, Renewed, Reply, ServerTime, Store, StoreError, StoredDeadLetter,
    StreamReader,
};

/// Streams on a Redis server.
///
/// Clones share one connection; a [`fork`](Store::fork) has its own.
#[derive(Clone)]
pub(crate) struct RedisStore {
    link: Link,
}

impl RedisStore {
    /// A store on a server that has not been asked for anything yet.
    pub(crate) fn new(url: &str) -> Result<Self, ConnectError> {
        Ok(Self { link: Link::new(Address::new(url)?) })
    }

    /// Finds out whether the server can be used.
    pub(crate) async fn connect(&self) -> Result<(), ConnectError> {
        let checked = match tokio::time::timeout(CONNECT_DEADLINE, self.check()).await {
            Ok(checked) => checked,
            Err(elapsed) => Err(elapsed.into()),
        };
        checked.map_err(|source| ConnectError::Server {
            server: self.link.address().to_string(),
            source,
        })
    }

    async fn check(&self) -> Result<(), BoxError> {
        self.link.command(&::redis::cmd("PING")).await?;
        self.link.capabilities().await?.check_version().map_err(BoxError::from)
    }

    fn held<'a>(&'a self, queue: &'a Queue, consumer: &'a ConsumerName) -> Held<'a> {
        Held { link: &self.link, queue, consumer }
    }

    fn group<'a>(&'a self, queue: &'a Queue) -> Group<'a> {
        Group::new(&self.link, queue)
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisStore").field(&self.link).finish()
    }
}

impl Facts for RedisStore {
    fn facts<'a>(&'a self, queues: &'a [Queue]) -> Reply<'a, ServerFacts> {
        Box::pin(facts::facts(&self.link, queues))
    }
}

impl Store for RedisStore {
    fn fork(&self) -> Arc<dyn Store> {
        Arc::new(Self { link: Link::new(self.link.address().clone()) })
    }

    fn now(&self) -> Reply<'_, ServerTime> {
        Box::pin(now(&self.link))
    }

    fn appender(&self, stream: &StreamName, retention: Retention) -> Box<dyn Appender> {
        Box::new(RedisAppender::new(self.link.clone(), stream.clone(), retention))
    }

    /// Of many callers at once, each sends its own command: no batch and no order to keep.
    fn append_one<'a>(
        &'a self,
        stream: &'a StreamName,
        retention: Retention,
        entry: NewEntry,
    ) -> BoxFuture<'a, Appended> {
        Box::pin(append::append_one(&self.link, stream, retention, entry))
    }

    fn prepare<'a>(&'a self, queue: &'a Queue, start: Start) -> Reply<'a, bool> {
        Box::pin(async move { self.group(queue).prepare(start).await.map(|(stream, _)| stream) })
    }

    fn recreate<'a>(&'a self, queue: &'a Queue) -> Reply<'a, bool> {
        Box::pin(async move {
            let (stream, lane) = self.group(queue).prepare(Start::Beginning).await?;
            Ok(stream || lane)
        })
    }

    fn reader<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        margin: Duration,
    ) -> Reply<'a, Box<dyn StreamReader>> {
        Box::pin(async move {
            let reader = RedisReader::open(self.link.address(), queue, consumer, margin).await?;
            Ok(Box::new(reader) as Box<dyn StreamReader>)
        })
    }

    fn wake(&self, reader: u64) -> Reply<'_, ()> {
        Box::pin(async move {
            let mut command = ::redis::cmd("CLIENT");
            self.link.command(command.arg("UNBLOCK").arg(reader)).await.map(drop)
        })
    }

    fn acknowledge<'a>(
        &'a self,
        queue: &'a Queue,
        acks: &'a [(Inlet, EntryId)],
    ) -> Reply<'a, usize> {
        Box::pin(held::acknowledge(&self.link, queue, acks))
    }

    fn renew<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        holds: &'a [Hold],
    ) -> Reply<'a, Renewed> {
        Box::pin(self.held(queue, consumer).renew(holds))
    }

    fn release<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        lease: Duration,
        holds: &'a [Hold],
    ) -> Reply<'a, Vec<FenceResult>> {
        Box::pin(self.held(queue, consumer).release(lease, holds))
    }

    fn schedule_retry<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        hold: Hold,
        trimmed: Option<EntryId>,
        delay: Duration,
        job: &'a Fields,
    ) -> Reply<'a, FenceResult> {
        Box::pin(self.held(queue, consumer).schedule_retry(hold, trimmed, delay, job))
    }

    fn store_dead_letter<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        hold: Hold,
        trimmed: Option<EntryId>,
        letter: &'a Fields,
    ) -> Reply<'a, FenceResult> {
        Box::pin(self.held(queue, consumer).store_dead_letter(hold, trimmed, letter))
    }

    fn has_idle<'a>(
        &'a self,
        queue: &'a Queue,
        inlet: Inlet,
        lease: Duration,
        valid: Duration,
    ) -> Reply<'a, Idle> {
        Box::pin(held::has_idle(&self.link, queue, inlet, lease, valid))
    }

    fn claim_idle<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        sweep: IdleClaim<'a>,
    ) -> Reply<'a, ClaimedPage> {
        Box::pin(self.held(queue, consumer).claim_idle(sweep))
    }

    fn own_pending<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        inlet: Inlet,
        cursor: EntryId,
        limit: usize,
    ) -> Reply<'a, Vec<Hold>> {
        Box::pin(self.held(queue, consumer).own_pending(inlet, cursor, limit))
    }

    fn recover<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        holds: &'a [Hold],
    ) -> Reply<'a, Vec<Delivery>> {
        Box::pin(self.held(queue, consumer).recover(holds))
    }

    fn promote<'a>(&'a self, queue: &'a Queue, limit: usize) -> Reply<'a, Promoted> {
        Box::pin(async move { self.group(queue).promote(limit).await })
    }

    fn set_paused<'a>(&'a self, queue: &'a Queue, paused: bool) -> Reply<'a, bool> {
        Box::pin(async move { self.group(queue).set_paused(paused).await })
    }

    fn heartbeat<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        about: &'a str,
    ) -> Reply<'a, Recorded> {
        Box::pin(async move { self.group(queue).heartbeat(consumer, about).await })
    }

    fn retire<'a>(&'a self, queue: &'a Queue, consumer: &'a ConsumerName) -> Reply<'a, bool> {
        Box::pin(async move { self.group(queue).retire(consumer).await })
    }

    fn retire_dead<'a>(&'a self, queue: &'a Queue, silence: Duration) -> Reply<'a, usize> {
        Box::pin(async move { self.group(queue).retire_dead(silence).await })
    }

    fn dead_letters<'a>(
        &'a self,
        queue: &'a Queue,
        after: EntryId,
        limit: usize,
    ) -> Reply<'a, Vec<StoredDeadLetter>> {
        Box::pin(async move { self.group(queue).dead_letters(after, limit).await })
    }

    fn dead_letter<'a>(
        &'a self,
        queue: &'a Queue,
        id: EntryId,
    ) -> Reply<'a, Option<StoredDeadLetter>> {
        Box::pin(async move { self.group(queue).dead_letter(id).await })
    }

    fn redrive<'a>(
        &'a self,
        queue: &'a Queue,
        id: EntryId,
        job: &'a Fields,
    ) -> Reply<'a, Option<EntryId>> {
        Box::pin(async move { self.group(queue).redrive(id, job).await })
    }

    fn purge<'a>(&'a self, queue: &'a Queue, ids: &'a [EntryId]) -> Reply<'a, usize> {
        Box::pin(async move { self.group(queue).purge(ids).await })
    }
}

async fn now(link: &Link) -> Result<ServerTime, StoreError> {
    let value: Value = link.command(&::redis::cmd(TIME)).await?;
    let [seconds, microseconds] = reply::tuple(value, TIME)?;
    let (seconds, microseconds) =
        (reply::number(seconds, TIME)?, reply::number(microseconds, TIME)?);
    Ok(ServerTime(seconds.saturating_mul(1000).saturating_add(microseconds / 1000)))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const TIME: &str = "TIME";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_password() {
        let store = RedisStore::new("redis://alice:canary@host:1/2").unwrap();
        let forked = Store::fork(&store);
        let text = format!("{store:?} {forked:?}");
        assert!(text.contains("host:1") && !text.contains("canary"), "{text}");
    }
}
