//! What the soak stands on: servers, histories, and what the servers hold.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{RwLock, RwLockReadGuard};
use std::time::Duration;
use std::{env, fs, process};

use redis::RedisResult;
use streamjobs_tests::check::Truth;
use streamjobs_tests::eventually::eventually;
use streamjobs_tests::history::{Deed, Disturbance, Writer, now};
use streamjobs_tests::postgres::{Database, PgServer};
use streamjobs_tests::proof;
use streamjobs_tests::proxy::FaultProxy;
use streamjobs_tests::server::RedisServer;
use tokio::runtime::Runtime;

use crate::options::{GROUPS, Group};

/// How long a replica may take until it has everything.
const IN_STEP: Duration = Duration::from_secs(30);

/// Where the jobs are, and who follows.
pub(crate) struct Pair {
    pub(crate) primary: RedisServer,
    pub(crate) replica: RedisServer,
}

/// Servers and histories, shared by producers and nemesis.
pub(crate) struct Stand {
    pub(crate) program: PathBuf,
    pair: RwLock<Pair>,
    pub(crate) postgres: PgServer,
    pub(crate) database: Database,
    /// What producers reach the server through.
    pub(crate) entrance: FaultProxy,
    folder: PathBuf,
    histories: HashMap<&'static str, Writer>,
    pub(crate) stopping: AtomicBool,
    /// The version of the program that is deployed, or being deployed.
    pub(crate) version: AtomicU64,
    waiting: AtomicUsize,
    last_fault: AtomicU64,
    pub(crate) executor: Runtime,
}

impl Stand {
    /// Starts all servers.
    pub(crate) fn new(program: PathBuf) -> Self {
        let pair = Pair { primary: server(), replica: server() };
        follow(&pair.replica, &pair.primary);
        let executor =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let executor = executor.unwrap();
        let postgres = PgServer::start().unwrap();
        let database = executor.block_on(proof::database(&postgres));
        let folder = env::temp_dir().join(format!("streamjobs-soak-{}-{}", process::id(), now()));
        let histories = GROUPS.iter().map(|group| {
            let own = folder.join(group.name);
            fs::create_dir_all(&own).unwrap();
            (group.name, Writer::open(&own).unwrap())
        });
        Self {
            program,
            histories: histories.collect(),
            entrance: FaultProxy::start(&pair.primary).unwrap(),
            pair: RwLock::new(pair),
            postgres,
            database,
            folder,
            stopping: AtomicBool::new(false),
            version: AtomicU64::new(1),
            waiting: AtomicUsize::new(0),
            last_fault: AtomicU64::new(0),
            executor,
        }
    }

    /// Where all histories are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the history of a group is.
    pub(crate) fn folder_of(&self, group: &Group) -> PathBuf {
        self.folder.join(group.name)
    }

    /// Removes the histories, which are of no use after a run without a fault.
    pub(crate) fn forget_histories(&self) {
        fs::remove_dir_all(&self.folder).unwrap();
    }

    /// Where this process writes down what it does for a group.
    pub(crate) fn history(&self, group: &Group) -> &Writer {
        &self.histories[group.name]
    }

    /// Writes down that something is broken, and returns its number. What befalls the database
    /// excuses nothing in the group that has none.
    pub(crate) fn broken(&self, what: &Disturbance) -> u64 {
        let fault = self.last_fault.fetch_add(1, Ordering::SeqCst) + 1;
        for group in
            GROUPS.iter().filter(|group| group.is_guarded() || *what != Disturbance::Database)
        {
            self.history(group).write(Deed::Broken { fault, what: what.clone() });
        }
        fault
    }

    /// Writes down that it is mended.
    pub(crate) fn mended(&self, fault: u64) {
        for group in &GROUPS {
            self.history(group).write(Deed::Mended { fault });
        }
    }

    /// The servers as they are now.
    pub(crate) fn pair(&self) -> RwLockReadGuard<'_, Pair> {
        self.pair.read().unwrap()
    }

    /// Makes the replica the primary, whose process is gone, and attaches a new replica.
    pub(crate) fn promote(&self) {
        let mut pair = self.pair.write().unwrap();
        pair.replica.command(&["REPLICAOF", "NO", "ONE"]);
        let old = std::mem::replace(&mut pair.replica, server());
        pair.primary = old;
    }

    /// Lets the replica follow the primary.
    pub(crate) fn attach(&self) {
        let pair = self.pair();
        follow(&pair.replica, &pair.primary);
    }

    /// Whether the replica has what the primary had at this moment. To be asked while no process
    /// writes.
    pub(crate) fn replicated(&self) -> RedisResult<bool> {
        let pair = self.pair();
        let mut connection = redis::Client::open(pair.primary.plain_url())?
            .get_connection_with_timeout(Duration::from_secs(5))?;
        // `WAIT` waits for what its own connection has written, and for all before that.
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

    /// How much waited at the last sample.
    pub(crate) fn backlog(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Samples how much waits, if the server answers.
    pub(crate) fn sample(&self) {
        let pair = self.pair();
        let waits = |group: &Group| proof::unfinished(&pair.primary, group.stream, group.name);
        let waiting = GROUPS.iter().map(|group| waits(group).unwrap_or_default());
        self.waiting.store(waiting.sum(), Ordering::SeqCst);
    }

    /// How much of a group is pending, waiting for retry or not delivered: much more than there can be, if
    /// the server does not say.
    pub(crate) fn unfinished_of(&self, group: &Group) -> usize {
        proof::unfinished(&self.pair().primary, group.stream, group.name).unwrap_or(UNKNOWN)
    }

    /// What the stores hold of a group in the end.
    pub(crate) fn truth(&self, group: &Group) -> Truth {
        let effects = || self.executor.block_on(proof::effects(&self.database, ""));
        Truth {
            unfinished: self.unfinished_of(group),
            letters: proof::letters(&self.pair().primary, group.stream, group.name),
            effects: group.is_guarded().then(effects),
            // A failover waits for the replica, so nothing may be lost.
            lost_by_server: Vec::new(),
        }
    }
}

/// Stands for a number that the server does not tell.
const UNKNOWN: usize = 1_000_000_000;

/// A server that has on disk whatever it has confirmed.
fn server() -> RedisServer {
    let builder = RedisServer::builder().plain();
    let builder = builder.append_only(true).config("appendfsync", "always");
    builder.config("repl-diskless-sync-delay", "0").start().unwrap()
}

fn follow(replica: &RedisServer, primary: &RedisServer) {
    replica.command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
}
