//! A single server with a replica, a database, and proxies on the way to both.

use std::sync::{RwLock, RwLockReadGuard};
use std::time::Duration;

use redis::RedisResult;
use streamjobs_tests::eventually::eventually;
use streamjobs_tests::history::now;
use streamjobs_tests::postgres::{Database, PgServer};
use streamjobs_tests::proof;
use streamjobs_tests::proxy::FaultProxy;
use streamjobs_tests::server::RedisServer;
use tokio::runtime::Runtime;

/// How long a replica may take until it has everything.
const IN_STEP: Duration = Duration::from_secs(30);

/// The server with the jobs, and its replica.
pub(crate) struct Pair {
    pub(crate) primary: RedisServer,
    pub(crate) replica: RedisServer,
}

/// Its servers.
pub(crate) struct Single {
    pair: RwLock<Pair>,
    pub(crate) postgres: PgServer,
    pub(crate) database: Database,
    /// The proxy through which producers reach the server.
    pub(crate) entrance: FaultProxy,
    pub(crate) executor: Runtime,
}

impl Single {
    /// Starts all servers.
    pub(crate) fn new() -> Self {
        let pair = Pair { primary: server(), replica: server() };
        follow(&pair.replica, &pair.primary);
        let executor =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let executor = executor.unwrap();
        let postgres = PgServer::start().unwrap();
        let database = executor.block_on(proof::database(&postgres));
        let entrance = FaultProxy::start(&pair.primary).unwrap();
        Self { pair: RwLock::new(pair), postgres, database, entrance, executor }
    }

    /// The servers as they are now.
    pub(crate) fn pair(&self) -> RwLockReadGuard<'_, Pair> {
        self.pair.read().unwrap()
    }

    /// Makes the replica, whose former primary is gone, the primary, and attaches a new replica.
    pub(crate) fn promote(&self) {
        let mut pair = self.pair.write().unwrap();
        pair.replica.command(&["REPLICAOF", "NO", "ONE"]);
        let old = std::mem::replace(&mut pair.replica, server());
        pair.primary = old;
    }

    /// Makes the replica follow the primary.
    pub(crate) fn attach(&self) {
        let pair = self.pair();
        follow(&pair.replica, &pair.primary);
    }

    /// Whether the replica has everything that the primary had at this moment. Call this only while
    /// no process writes.
    pub(crate) fn replicated(&self) -> RedisResult<bool> {
        let pair = self.pair();
        let mut connection = redis::Client::open(pair.primary.plain_url())?
            .get_connection_with_timeout(Duration::from_secs(5))?;
        // `WAIT` waits for the writes of its own connection, and for all writes before them.
        redis::cmd("SET").arg("soak:failover").arg(now()).query::<()>(&mut connection)?;
        let wait = redis::cmd("WAIT").arg(1).arg(10_000).query::<usize>(&mut connection)?;
        Ok(wait == 1)
    }

    /// Waits until the replica follows.
    pub(crate) fn in_step(&self) {
        eventually(IN_STEP, "the replica follows its primary", || {
            self.pair().replica.info("master_link_status").as_deref() == Some("up")
        });
    }
}

/// A server that has on disk everything that it has confirmed.
fn server() -> RedisServer {
    let builder = RedisServer::builder().plain();
    let builder = builder.append_only(true).config("appendfsync", "always");
    builder.config("repl-diskless-sync-delay", "0").start().unwrap()
}

fn follow(replica: &RedisServer, primary: &RedisServer) {
    replica.command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
}
