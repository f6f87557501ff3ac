//! What the soak works on: servers, histories, and what the servers hold.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::{env, fs, process};

use streamjobs::Client;
use streamjobs::error::ConnectError;
use streamjobs_tests::check::Truth;
use streamjobs_tests::history::{Deed, Disturbance, Line, Writer, now};
use streamjobs_tests::proof;

use crate::cluster::Cluster;
use crate::options::{CLUSTER_GROUPS, GROUPS, Group, Options};
use crate::single::Single;

/// Where the streams are.
pub(crate) enum Servers {
    Single(Box<Single>),
    Cluster(Cluster),
}

/// Servers and histories, shared by producers and nemeses.
pub(crate) struct Stand {
    pub(crate) program: PathBuf,
    pub(crate) groups: &'static [Group],
    pub(crate) servers: Servers,
    folder: PathBuf,
    histories: HashMap<&'static str, Writer>,
    pub(crate) stopping: AtomicBool,
    /// The version of the program that is deployed, or being deployed.
    pub(crate) version: AtomicU64,
    waiting: AtomicUsize,
    last_fault: AtomicU64,
}

impl Stand {
    /// Starts all servers.
    pub(crate) fn new(program: PathBuf, options: &Options) -> Self {
        let (servers, groups): (_, &[Group]) = match options.partitions {
            Some(count) => (Servers::Cluster(Cluster::new(count)), &CLUSTER_GROUPS),
            None => (Servers::Single(Box::new(Single::new())), &GROUPS),
        };
        let folder = env::temp_dir().join(format!("streamjobs-soak-{}-{}", process::id(), now()));
        let histories = groups.iter().map(|group| {
            let own = folder.join(group.name);
            fs::create_dir_all(&own).unwrap();
            (group.name, Writer::open(&own).unwrap())
        });
        Self {
            program,
            groups,
            servers,
            histories: histories.collect(),
            folder,
            stopping: AtomicBool::new(false),
            version: AtomicU64::new(1),
            waiting: AtomicUsize::new(0),
            last_fault: AtomicU64::new(0),
        }
    }

    /// The single server, if there is no cluster.
    pub(crate) fn single(&self) -> &Single {
        match &self.servers {
            Servers::Single(single) => single,
            Servers::Cluster(_) => panic!("this is for one server"),
        }
    }

    /// The cluster, if there is one.
    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        match &self.servers {
            Servers::Single(_) => None,
            Servers::Cluster(cluster) => Some(cluster),
        }
    }

    /// Connects as producers do.
    pub(crate) async fn connect(&self) -> Result<Client, ConnectError> {
        match &self.servers {
            Servers::Single(single) => Client::connect(single.entrance.url()).await,
            Servers::Cluster(cluster) => cluster.connect().await,
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

    /// The writer for what this process does for a group.
    pub(crate) fn history(&self, group: &Group) -> &Writer {
        &self.histories[group.name]
    }

    /// Writes down that something is broken, and returns its number. Faults of the database excuse nothing
    /// in the group that has none.
    pub(crate) fn broken(&self, what: &Disturbance) -> u64 {
        let fault = self.last_fault.fetch_add(1, Ordering::SeqCst) + 1;
        let excused = |group: &&Group| group.is_guarded() || *what != Disturbance::Database;
        for group in self.groups.iter().filter(excused) {
            self.history(group).write(Deed::Broken { fault, what: what.clone() });
        }
        fault
    }

    /// Writes down that it is repaired.
    pub(crate) fn mended(&self, fault: u64) {
        for group in self.groups {
            self.history(group).write(Deed::Mended { fault });
        }
    }

    /// Runs a command on each server that answers and has jobs.
    pub(crate) fn on_each(&self, words: &[&str]) {
        match &self.servers {
            Servers::Single(single) => {
                single.pair().primary.command(words);
            }
            Servers::Cluster(cluster) => cluster.on_each(words),
        }
    }

    /// How much waited at the last sample.
    pub(crate) fn backlog(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Samples how much waits, if the server answers.
    pub(crate) fn sample(&self) {
        let waiting = match &self.servers {
            Servers::Single(single) => {
                let pair = single.pair();
                let waits =
                    |group: &Group| proof::unfinished(&pair.primary, group.stream, group.name);
                self.groups.iter().map(|group| waits(group).unwrap_or_default()).sum()
            }
            Servers::Cluster(cluster) => {
                self.groups.iter().map(|group| cluster.sample(group)).sum()
            }
        };
        self.waiting.store(waiting, Ordering::SeqCst);
    }

    /// How much of a group is pending, waiting for retry or not delivered. A number far above what is
    /// possible if the server does not answer.
    pub(crate) fn unfinished_of(&self, group: &Group) -> usize {
        let count = match &self.servers {
            Servers::Single(single) => {
                proof::unfinished(&single.pair().primary, group.stream, group.name).ok()
            }
            Servers::Cluster(cluster) => cluster.unfinished(group),
        };
        count.unwrap_or(UNKNOWN)
    }

    /// What the stores hold in the end for a group with this history.
    pub(crate) fn truth(&self, group: &Group, lines: &[Line]) -> Truth {
        let unfinished = self.unfinished_of(group);
        match &self.servers {
            Servers::Single(single) => {
                let effects = || single.executor.block_on(proof::effects(&single.database, ""));
                Truth {
                    unfinished,
                    letters: proof::letters(&single.pair().primary, group.stream, group.name),
                    effects: group.is_guarded().then(effects),
                    // A failover waits for the replica, so nothing may be lost.
                    lost_by_server: Vec::new(),
                }
            }
            Servers::Cluster(cluster) => Truth {
                unfinished,
                letters: cluster.letters(group),
                effects: None,
                lost_by_server: cluster.lost(lines),
            },
        }
    }
}

/// Stands for a number that the server does not report.
const UNKNOWN: usize = 1_000_000_000;
