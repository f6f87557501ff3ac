//! What limits over all processes promise, at each step and at each start.

use std::collections::BTreeMap;

use streamjobs::EntryId;
use tokio::time::Instant;

use crate::checks::Step;
use crate::ledger::{Ledger, Run, Start};
use crate::plan::{Limits, key_of};

impl Ledger {
    /// No key has more places than the limit admits, or gets more than its share.
    pub fn judge_holds(&mut self, step: &Step<'_>) {
        self.judge_shares(step);
        let Some(limit) = self.plan.limits.and_then(Limits::most) else { return };
        let mut counts = BTreeMap::new();
        for key in step.after.holds.values() {
            *counts.entry(key).or_insert(0) += 1;
        }
        if let Some((key, count)) = counts.iter().find(|(_, count)| **count > limit) {
            let operation = step.operation;
            self.fail("I16", format!("after {operation}, {key} has {count} places of {limit}"));
        }
    }

    /// A key that gets a place has at most one more than each key whose jobs wait.
    fn judge_shares(&mut self, step: &Step<'_>) {
        if self.plan.limits != Some(Limits::Fair) || step.operation != "take" {
            return;
        }
        let holds = &step.after.holds;
        let count = |key: &str| holds.values().filter(|held| *held == key).count();
        let given = holds.iter().filter(|(place, _)| !step.before.holds.contains_key(place));
        let most = given.map(|(_, key)| (count(key), key)).max();
        let numbers = step.after.lined.iter().filter_map(|id| self.accepted.get(id));
        let least = numbers.map(|(number, _)| key_of(*number)).map(|key| (count(&key), key)).min();
        if let (Some((most, key)), Some((least, other))) = (most, least)
            && least + 1 < most
        {
            self.fail("I18", format!("{key} gets place {most} while {other} has {least}"));
        }
    }

    /// No more jobs run at once than the limit admits, and those of a key in their order.
    pub fn judge_limits(&mut self, start: &Start) {
        let Some(limits) = self.plan.limits.filter(|_| !self.broken) else { return };
        self.judge_at_once(start, limits);
        let key = key_of(start.number);
        let before = self.accepted.range(..start.job.1);
        let before = before.filter(|(_, (number, _))| key_of(*number) == key);
        let before = before.map(|(id, _)| *id).collect::<Vec<_>>();
        let passed = before.into_iter().find(|id| match limits {
            Limits::Block => !self.is_settled(start.job.0, *id),
            Limits::Skip => {
                !self.starts.contains_key(&(start.job.0, *id)) && !self.is_settled(start.job.0, *id)
            }
            Limits::PerKey(_) | Limits::Total(_) | Limits::Fair => false,
        });
        if let Some(id) = passed {
            self.fail("I17", format!("{:?} of {key} begins before {id}", start.job));
        }
    }

    /// The groups of a process that share slots run no more jobs together than there are.
    pub fn judge_shared_slots(&mut self, caller: u64) {
        let slots = self.plan.concurrency as usize;
        let running = self.runs.iter().filter(|run| run.live && run.caller == caller).count();
        if self.plan.shares_slots && running >= slots {
            self.fail("I19", format!("{caller} runs more than {slots} jobs in shared slots"));
        }
    }

    fn judge_at_once(&mut self, start: &Start, limits: Limits) {
        let Some(most) = limits.most() else { return };
        let key = key_of(start.number);
        let counts = |run: &&Run| {
            let number = self.accepted.get(&run.job.1).map(|(number, _)| *number);
            let same_key = number.is_some_and(|number| key_of(number) == key);
            let other = run.live && run.job.0 == start.job.0 && run.job.1 != start.job.1;
            other && (same_key || matches!(limits, Limits::Total(_)))
        };
        let others = self.runs.iter().filter(counts).cloned().collect::<Vec<_>>();
        // What a process runs that has lost its lease does not count any more.
        let sound = others.iter().filter(|run| {
            let from = run.started.checked_sub(self.plan.lease * 2).unwrap_or(run.started);
            !self.is_disturbed(run.caller, from, Instant::now())
        });
        if sound.count() >= most {
            self.fail("I16", format!("{:?} of {key} runs beside {others:?}", start.job));
        }
    }

    /// Whether a job is done, dead, or deleted by the simulation itself. One that ended well in a process that had
    /// lost its lease may run once more, behind others.
    fn is_settled(&self, group: usize, id: EntryId) -> bool {
        let job = (group, id);
        let letters = self.groups[group].letters.values();
        let mut dead = letters
            .filter_map(|letter| letter.origin.or_else(|| Some(self.origin(group, letter.entry?))));
        let ended = [&self.done, &self.fine, &self.excused].iter().any(|jobs| jobs.contains(&job));
        ended || dead.any(|dead| dead == id)
    }
}

impl Limits {
    /// How many jobs of what is counted may run at once.
    fn most(self) -> Option<usize> {
        match self {
            Self::Block | Self::Skip => Some(1),
            Self::PerKey(limit) | Self::Total(limit) => Some(limit as usize),
            Self::Fair => None,
        }
    }
}
