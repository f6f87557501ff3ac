//! What the soak stands on: servers, histories, and what the servers hold.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::{env, fs, process};

use streamjobs_tests::check::Truth;
use streamjobs_tests::history::{Deed, Disturbance, Writer, now};
use streamjobs_tests::proof;

use crate::options::{GROUPS, Group};
use crate::single::Single;

/// Servers and histories, shared by producers and nemesis.
pub(crate) struct Stand {
    pub(crate) program: PathBuf,
    pub(crate) single: Single,
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
    pub(crate) fn new(program: PathBuf) -> Self {
        let folder = env::temp_dir().join(format!("streamjobs-soak-{}-{}", process::id(), now()));
        let histories = GROUPS.iter().map(|group| {
            let own = folder.join(group.name);
            fs::create_dir_all(&own).unwrap();
            (group.name, Writer::open(&own).unwrap())
        });
        Self {
            program,
            single: Single::new(),
            histories: histories.collect(),
            folder,
            stopping: AtomicBool::new(false),
            version: AtomicU64::new(1),
            waiting: AtomicUsize::new(0),
            last_fault: AtomicU64::new(0),
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
        let excused = |group: &&Group| group.is_guarded() || *what != Disturbance::Database;
        for group in GROUPS.iter().filter(excused) {
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

    /// Runs a command on the server.
    pub(crate) fn on_each(&self, words: &[&str]) {
        self.single.pair().primary.command(words);
    }

    /// How much waited at the last sample.
    pub(crate) fn backlog(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Samples how much waits, if the server answers.
    pub(crate) fn sample(&self) {
        let pair = self.single.pair();
        let waits = |group: &Group| proof::unfinished(&pair.primary, group.stream, group.name);
        let waiting = GROUPS.iter().map(|group| waits(group).unwrap_or_default());
        self.waiting.store(waiting.sum(), Ordering::SeqCst);
    }

    /// How much of a group is pending, waiting for retry or not delivered: much more than there can be, if
    /// the server does not say.
    pub(crate) fn unfinished_of(&self, group: &Group) -> usize {
        let pair = self.single.pair();
        proof::unfinished(&pair.primary, group.stream, group.name).unwrap_or(UNKNOWN)
    }

    /// What the stores hold of a group in the end.
    pub(crate) fn truth(&self, group: &Group) -> Truth {
        let single = &self.single;
        let effects = || single.executor.block_on(proof::effects(&single.database, ""));
        Truth {
            unfinished: self.unfinished_of(group),
            letters: proof::letters(&single.pair().primary, group.stream, group.name),
            effects: group.is_guarded().then(effects),
            // A failover waits for the replica, so nothing may be lost.
            lost_by_server: Vec::new(),
        }
    }
}

/// Stands for a number that the server does not tell.
const UNKNOWN: usize = 1_000_000_000;
