//! Streams on a Redis server. Only this folder names Redis commands.
//!
//! A user of the server that is restricted by an access list needs these commands, on the streams and on
//! their helper keys (`{stream}:*`, or `stream:*` for a stream with a hash tag):
//!
//! - appending and reading: `XADD`, `XREADGROUP`, `XACK`, `XDEL`, `XRANGE`, `XLEN`, `XTRIM`;
//! - pending entries: `XPENDING`, `XCLAIM`;
//! - groups: `XGROUP|CREATE`, `XGROUP|SETID`, `XGROUP|DELCONSUMER`, `XINFO|STREAM`,
//!   `XINFO|GROUPS`, `XINFO|CONSUMERS`;
//! - retries: `HSETNX`, `HGET`, `HDEL`, `HLEN`, `ZADD`, `ZREM`, `ZCARD`, `ZRANGE`,
//!   `ZRANGEBYSCORE`;
//! - floors, heartbeats, scan results and pauses: `HSET`, `HSETNX`, `HGET`, `HGETALL`, `HEXISTS`,
//!   `HINCRBY`, `HDEL`, `HLEN`;
//! - the connection: `PING`, `INFO`, `TIME`, `EVALSHA`, `SCRIPT|LOAD`, `MULTI`, `EXEC`,
//!   `CLIENT|ID`, `CLIENT|UNBLOCK`, `CLIENT|SETNAME`, and `SELECT` for another database than 0.
//!
//! Optional commands, each used where it is allowed: the doctor uses `CONFIG|GET`;
//! reading streams uses, where it is allowed, `MEMORY|USAGE`, `XREVRANGE`, `XREAD`, `HSCAN`;
//! more than two readers of a runtime share connections with, where it is allowed, `CLIENT|TRACKING`;
//! jobs of a deleted retry set come back with, where it is allowed, `HSCAN`;
//! schedules use, where it is allowed, `HKEYS`, `ZSCORE`;
//! limits of all processes use, where it is allowed, `HMGET`, `HSCAN`, `ZINCRBY`, `ZRANGEBYLEX`, `ZSCAN`, `ZSCORE`;
//! operating on them uses, where it is allowed, `XGROUP|DESTROY`, `DEL`, `UNLINK`;
//! redriving from an archive uses, where it is allowed, `GET`, `SET`;
//! the progress of jobs uses, where it is allowed, `DEL`, `PEXPIRE`;
//! notes of jobs that are done and trends use, where it is allowed, `PEXPIRE`;
//! results of jobs use, where it is allowed, `GET`, `SET`, `DEL`, `PTTL`;
//! locks of unique events use, where it is allowed, `GET`, `SET`, `DEL`, `PTTL`; and marks of handlers use,
//! where it is allowed, `PEXPIRE`, as rates do, and `HGETALL`, `HGET`, `HSET` and `HDEL` on their keys.
//! A runtime without `XREADGROUP` or `XACK` on a stream, or without `EVALSHA`, `SCRIPT|LOAD`, `TIME` or
//! `CLIENT|ID`, does not start. What else is missing is logged and found by the doctor.
//! An archive reads dead letters as a group does and needs the same commands on their keys.
//! What is needed in addition with Sentinel or a cluster is listed in the modules of these names.

mod admin;
mod cancels;
mod consume;
mod copier;
mod dead_letters;
#[cfg(feature = "testing")]
pub mod decoders;
mod done_jobs;
mod group_upkeep;
mod holds;
mod inspect;
mod marks;
mod net;
mod packed;
mod progress;
mod publish;
mod rates;
mod reply;
mod results;
mod schedule;
mod schedules;
mod script;
mod server_info;
mod trends;
mod unique;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{Cmd, ToRedisArgs, Value};

pub(crate) use self::net::needed_commands;
use self::net::{CONNECT_DEADLINE, Call, Nodes, Route, Wakers};
use self::script::{Script, Scripts};
use crate::model::config::{ConnectionOptions, Retention};
use crate::model::error::ConnectError;
use crate::store::Store;
use crate::store::types::Result;

/// Every script. Each file with scripts declares its own.
static SCRIPTS: Scripts = &[
    admin::SCRIPTS,
    cancels::SCRIPTS,
    consume::SCRIPTS,
    dead_letters::SCRIPTS,
    done_jobs::SCRIPTS,
    group_upkeep::SCRIPTS,
    holds::SCRIPTS,
    inspect::SCRIPTS,
    marks::SCRIPTS,
    net::rights::SCRIPTS,
    progress::SCRIPTS,
    publish::SCRIPTS,
    rates::SCRIPTS,
    results::SCRIPTS,
    schedule::SCRIPTS,
    schedules::SCRIPTS,
    trends::SCRIPTS,
    unique::SCRIPTS,
];

/// Streams on a Redis server, or on the nodes of a cluster.
///
/// Clones share connections; a [`fork`](Store::fork) has its own.
#[derive(Clone)]
pub(crate) struct RedisStore {
    nodes: Nodes,
    wakers: Arc<Wakers>,
}

impl RedisStore {
    /// A store on a server; it connects at the first step.
    pub(crate) fn new(url: &str, options: ConnectionOptions) -> Result<Self, ConnectError> {
        Ok(Self::on(Nodes::new(url, options, SCRIPTS)?))
    }

    fn on(nodes: Nodes) -> Self {
        Self { nodes, wakers: Arc::default() }
    }

    /// Connects, and checks that the servers can be used.
    pub(crate) async fn connect(&self) -> Result<(), ConnectError> {
        let checked = match tokio::time::timeout(CONNECT_DEADLINE, self.nodes.check()).await {
            Ok(checked) => checked,
            Err(elapsed) => Err(elapsed.into()),
        };
        checked.map_err(|source| ConnectError::Server { server: self.nodes.to_string(), source })
    }

    /// The route to the server that has a key.
    fn at(&self, key: &str) -> Route {
        self.nodes.route(key)
    }

    /// Runs a script.
    async fn run(
        &self,
        script: &'static Script,
        keys: &[&str],
        arguments: impl ToRedisArgs + Send,
    ) -> Result<Value> {
        let add = |command: &mut Cmd| {
            command.arg(arguments);
        };
        self.script(script, keys, add).await
    }

    /// Runs a script that is not urgent, together with other calls of it that arrive at the same time.
    async fn run_in_batch(
        &self,
        script: &'static Script,
        keys: &[&str],
        arguments: impl ToRedisArgs + Send,
    ) -> Result<Value> {
        let route = self.at(keys.first().copied().unwrap_or_default());
        if let Some(many) = script.many
            && let Some(answer) = route.in_batch(many, Call::new(keys, &arguments)).await?
        {
            return Ok(answer);
        }
        self.run(script, keys, arguments).await
    }

    /// Runs a script with the arguments that `add_arguments` adds.
    async fn script(
        &self,
        script: &'static Script,
        keys: &[&str],
        add_arguments: impl FnOnce(&mut Cmd) + Send,
    ) -> Result<Value> {
        let first = keys.first().copied().unwrap_or_default();
        self.at(first).script(script, keys, add_arguments).await
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisStore").field(&self.nodes).finish()
    }
}

impl Store for RedisStore {
    fn fork(&self) -> Arc<dyn Store> {
        Arc::new(Self::on(self.nodes.fork()))
    }

    fn fork_for_payloads(&self) -> Arc<dyn Store> {
        self.fork()
    }
}

/// How appending trims, in the form that the scripts take.
fn trimming(retention: Retention) -> (&'static str, u64) {
    match retention {
        Retention::MaxLen(entries) => ("~", entries.get()),
        Retention::MaxLenExact(entries) => ("=", entries.get()),
        Retention::History(_) | Retention::MaxAge(_) | Retention::Unlimited => ("", 0),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The longest delay, a hundred years: the sum of a longer delay and the clock would lose the milliseconds.
const DELAY_MAX: u64 = 100 * 365 * 24 * 60 * 60 * 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_password() {
        let store = RedisStore::new("redis://alice:canary@host:1/2", ConnectionOptions::default());
        let store = store.unwrap();
        let forked = Store::fork(&store);
        let text = format!("{store:?} {forked:?}");
        assert!(text.contains("host:1") && !text.contains("canary"), "{text}");
    }
}
