//! Everything that happened, and the state that follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use streamjobs::__store::memory::View;
use streamjobs::{Entry, EntryId};
use tokio::time::Instant;

use crate::plan::{Plan, STREAM};
use crate::state::{self, Group};

/// A job: a group, and the entry that was published.
pub type JobKey = (usize, EntryId);

/// A handler is called.
#[derive(Clone, Debug)]
pub struct Start {
    pub caller: u64,
    pub job: JobKey,
    /// What the payload says.
    pub number: u64,
    pub entry: EntryId,
    pub consumer: String,
    pub attempt: u32,
    pub count: u64,
}

/// One run of a handler.
#[derive(Clone, Debug)]
pub struct Run {
    pub caller: u64,
    pub job: JobKey,
    pub started: Instant,
    pub live: bool,
}

/// Something that excuses more than a sound server and a sound network would.
#[derive(Clone, Copy, Debug)]
pub struct Disturbance {
    pub from: Instant,
    pub until: Instant,
    /// Of which process; `None` for all.
    pub caller: Option<u64>,
}

/// What one process did, as the store and its handlers saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub fine: u64,
    pub failed: u64,
    pub dropped: u64,
    pub acknowledged: u64,
    pub retried: u64,
    pub dead_lettered: u64,
    pub claimed: u64,
    pub recovered: u64,
    pub released: u64,
}

/// A group, the published entry, the entry that stands for it, the consumer and the delivery count.
pub type Token = (usize, EntryId, EntryId, String, u64);

/// The ledger. The first broken promise stays; nothing is looked at after it.
#[derive(Debug)]
pub struct Ledger {
    pub plan: Arc<Plan>,
    pub history: Vec<String>,
    pub failure: Option<String>,
    pub began: Instant,
    /// What stands in the stream: which job's number.
    pub stream: BTreeMap<EntryId, u64>,
    pub groups: Vec<Group>,
    /// What was ever accepted: its number and its payload.
    pub accepted: BTreeMap<EntryId, (u64, Vec<u8>)>,
    pub done: BTreeSet<JobKey>,
    /// Lost where a test has deleted something: no fault.
    pub excused: BTreeSet<JobKey>,
    /// Jobs some run of which ended well.
    pub fine: BTreeSet<JobKey>,
    pub failures: BTreeMap<JobKey, u64>,
    pub starts: BTreeMap<JobKey, u64>,
    pub runs: Vec<Run>,
    /// Which process a consumer is.
    pub consumers: BTreeMap<String, u64>,
    pub alive: BTreeMap<u64, Instant>,
    pub dead: BTreeMap<u64, Instant>,
    pub disturbances: Vec<Disturbance>,
    /// The highest count under which an entry was started, and every token that was.
    pub counts: BTreeMap<(usize, EntryId, EntryId), u64>,
    pub tokens: BTreeSet<Token>,
    /// How often each token was given out, and how often a run began under it.
    pub given: BTreeMap<Token, usize>,
    pub started_under: BTreeMap<Token, usize>,
    /// What was ever delivered as new.
    pub delivered: BTreeSet<(usize, state::Key)>,
    /// By how much the server's clock was set back: pending entries seem young for so long.
    pub set_back: Duration,
    /// The published entries behind everything that ever stood in a lane.
    pub lane_origins: BTreeMap<(usize, EntryId), EntryId>,
    /// When each pending row last changed.
    pub moved: BTreeMap<(usize, state::Key), Instant>,
    pub tallies: BTreeMap<u64, Tally>,
    /// A group or everything was deleted, so that what was done may be done again.
    pub broken: bool,
    pub steps: u64,
    pub overlaps: u64,
    pub looked_for_orphans: Instant,
    /// When each process last ended a run.
    pub rested: BTreeMap<u64, Instant>,
}

impl Ledger {
    pub fn new(plan: Arc<Plan>) -> Self {
        let now = Instant::now();
        Self {
            groups: vec![Group::default(); plan.groups],
            plan,
            history: Vec::new(),
            failure: None,
            began: now,
            stream: BTreeMap::new(),
            accepted: BTreeMap::new(),
            done: BTreeSet::new(),
            excused: BTreeSet::new(),
            fine: BTreeSet::new(),
            failures: BTreeMap::new(),
            starts: BTreeMap::new(),
            runs: Vec::new(),
            consumers: BTreeMap::new(),
            alive: BTreeMap::new(),
            dead: BTreeMap::new(),
            disturbances: Vec::new(),
            counts: BTreeMap::new(),
            tokens: BTreeSet::new(),
            given: BTreeMap::new(),
            started_under: BTreeMap::new(),
            delivered: BTreeSet::new(),
            set_back: Duration::ZERO,
            lane_origins: BTreeMap::new(),
            moved: BTreeMap::new(),
            tallies: BTreeMap::new(),
            broken: false,
            steps: 0,
            overlaps: 0,
            looked_for_orphans: now,
            rested: BTreeMap::new(),
        }
    }

    /// Writes down what happened.
    pub fn note(&mut self, what: fmt::Arguments<'_>) {
        if self.failure.is_some() {
            return;
        }
        let at = self.began.elapsed().as_millis();
        self.history.push(format!("{at:>6} {what}"));
    }

    /// A promise is broken.
    pub fn fail(&mut self, invariant: &str, what: impl fmt::Display) {
        self.note(format_args!("{invariant} broken: {what}"));
        if self.failure.is_none() {
            self.failure = Some(format!("{invariant}: {what}"));
        }
    }

    pub fn tally(&mut self, caller: u64) -> &mut Tally {
        self.tallies.entry(caller).or_default()
    }

    /// A process works.
    pub fn lives(&mut self, caller: u64) {
        self.note(format_args!("process {caller} works"));
        self.alive.insert(caller, Instant::now());
    }

    /// A process is not there any more: killed, or stopped and gone.
    pub fn died(&mut self, caller: u64) {
        self.note(format_args!("process {caller} is gone"));
        self.alive.remove(&caller);
        self.dead.insert(caller, Instant::now());
        for run in self.runs.iter_mut().filter(|run| run.caller == caller) {
            run.live = false;
        }
    }

    /// Something goes wrong, now and for so long.
    pub fn disturbed(&mut self, caller: Option<u64>, time: Duration) {
        if !time.is_zero() {
            self.note(format_args!("disturbed for {time:?}: {caller:?}"));
        }
        let from = Instant::now();
        self.disturbances.push(Disturbance { from, until: from + time, caller });
    }

    /// Whether something has disturbed a process within a time.
    pub fn is_disturbed(&self, caller: u64, from: Instant, until: Instant) -> bool {
        self.disturbances.iter().any(|one| {
            one.caller.is_none_or(|of| of == caller) && one.from <= until && one.until >= from
        })
    }

    /// Takes the state after a step.
    pub fn observe(&mut self, caller: u64, operation: &'static str, view: View<'_>) {
        if self.failure.is_some() {
            return;
        }
        self.steps += 1;
        let changed = self.observe_stream(operation, view);
        let mut changes = changed;
        for group in 0..self.groups.len() {
            let queue = state::queue(group);
            if !self.groups[group].is_still(&queue, view) {
                let after = Group::of(&queue, view);
                let before = std::mem::replace(&mut self.groups[group], after.clone());
                self.judge(group, caller, operation, &before, &after, view.now());
                changes = true;
            }
        }
        if changes {
            self.nothing_is_lost(operation);
        }
        self.nothing_is_left_with_the_dead();
    }

    fn observe_stream(&mut self, operation: &'static str, view: View<'_>) -> bool {
        if view.entries(STREAM).map(|(id, _)| id).eq(self.stream.keys().copied()) {
            return false;
        }
        let after = view.entries(STREAM).map(|(id, fields)| (id, number(id, fields)));
        let after = after.collect::<BTreeMap<_, _>>();
        let before = std::mem::take(&mut self.stream);
        for (id, fields) in view.entries(STREAM).filter(|(id, _)| !before.contains_key(id)) {
            let number = number(id, fields);
            self.note(format_args!("{operation}: {id} is job {number}"));
            let payload = Entry::new(id, fields.clone()).field("data").map(|data| data.to_vec());
            if operation != "append" {
                self.fail("I2", format!("{operation} made the entry {id}"));
            }
            self.accepted.insert(id, (number, payload.unwrap_or_default()));
        }
        for id in before.keys().filter(|id| !after.contains_key(id)) {
            self.note(format_args!("{operation}: {id} is deleted"));
            self.deleted(operation, *id);
        }
        self.stream = after;
        true
    }

    /// An entry's payload is gone: groups that have not got it never will.
    fn deleted(&mut self, operation: &'static str, id: EntryId) {
        if !["trim", "raw_flush"].contains(&operation) {
            self.fail("I1", format!("{operation} deleted the entry {id}"));
        }
        for group in 0..self.groups.len() {
            if self.groups[group].cursor.is_none_or(|cursor| id > cursor) {
                self.excused.insert((group, id));
            }
        }
    }

    /// A handler was called: the number of its run, and how many were before it; nothing for the
    /// dead.
    pub fn started(&mut self, start: &Start) -> Option<(usize, u64)> {
        let Start { caller, job, .. } = *start;
        if self.dead.contains_key(&caller) {
            return None;
        }
        self.note(format_args!("{start:?}"));
        self.judge_start(start);
        let nth = self.starts.entry(job).or_default();
        *nth += 1;
        let nth = *nth - 1;
        self.runs.push(Run { caller, job, started: Instant::now(), live: true });
        Some((self.runs.len() - 1, nth))
    }

    /// A run has ended: well, badly, or by being dropped.
    pub fn ended(&mut self, run: usize, fine: Option<bool>) {
        let Run { caller, job, live, .. } = self.runs[run].clone();
        if !live {
            return;
        }
        self.runs[run].live = false;
        self.rested.insert(caller, Instant::now());
        self.note(format_args!("end of {job:?} in {caller}: {fine:?}"));
        let tally = self.tally(caller);
        match fine {
            Some(true) => tally.fine += 1,
            Some(false) => tally.failed += 1,
            None => tally.dropped += 1,
        }
        if fine == Some(true) {
            self.fine.insert(job);
        } else {
            *self.failures.entry(job).or_default() += 1;
        }
    }
}

/// The number of a published job, which its event id says.
fn number(id: EntryId, fields: &streamjobs::Fields) -> u64 {
    let entry = Entry::new(id, fields.clone());
    let number = entry.text("sj-id").and_then(|text| text.strip_prefix("event-")?.parse().ok());
    number.unwrap_or(u64::MAX)
}
