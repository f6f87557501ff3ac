//! What has to be true of stops, of counters, and at the end.

use std::collections::BTreeSet;

use streamjobs::EntryId;
use streamjobs::runtime::{Counters, ShutdownReport};
use tokio::time::Instant;

use crate::ledger::Ledger;
use crate::state::Key;

impl Ledger {
    /// Whether no job is left that could still run.
    pub fn is_at_rest(&self) -> bool {
        let newest = self.stream.keys().next_back();
        // A run whose payload was trimmed is pending no more, and may still wait for retry.
        let runs = self.runs.iter().any(|run| run.live);
        !runs
            && self.groups.iter().all(|group| {
                let read = newest.is_none_or(|newest| group.cursor.is_some_and(|at| at >= *newest));
                read && group.pending.is_empty()
                    && group.lane.is_empty()
                    && group.waiting.is_empty()
                    && group.lined.is_empty()
                    && group.holds.is_empty()
            })
    }

    /// What is left, for a message.
    pub fn unfinished(&self) -> String {
        let left = self.groups.iter().map(|group| {
            let (rows, lane, waiting) = (&group.pending, &group.lane, &group.waiting);
            let (lined, holds) = (&group.lined, &group.holds);
            format!("{:?} {rows:?} {lane:?} {waiting:?} {lined:?} {holds:?}", group.cursor)
        });
        left.collect::<Vec<_>>().join("; ")
    }

    /// A stop's report says what the store shows.
    pub fn judge_stop(
        &mut self,
        caller: u64,
        began: Instant,
        released_before: u64,
        report: &ShutdownReport,
    ) {
        let released = self.tally(caller).released - released_before;
        self.note(format_args!("process {caller} has stopped: {report:?}"));
        let from = began.checked_sub(self.plan.lease * 2).unwrap_or(began);
        if self.is_disturbed(caller, from, Instant::now()) {
            return;
        }
        // What this process has run and given up longer than a lease ago is anybody's already.
        let given_up = |group: usize, key: &Key| {
            let job = (group, self.origin(group, *key));
            let moved = self.moved.get(&(group, *key));
            let mut runs = self.runs.iter().filter(|run| run.caller == caller && run.job == job);
            moved.is_some_and(|moved| moved.elapsed() >= self.plan.lease)
                && runs.next().is_some_and(|first| !first.live)
                && runs.all(|run| !run.live)
        };
        let rows = self.groups.iter().enumerate();
        let rows =
            rows.flat_map(|(number, group)| group.pending.iter().map(move |row| (number, row)));
        let owned = rows.filter(|(group, (key, row))| {
            self.consumers.get(&row.consumer) == Some(&caller) && !given_up(*group, key)
        });
        let owned = owned.count();
        let kept = u64::try_from(owned).unwrap();
        let abandoned = u64::try_from(report.abandoned.len()).unwrap();
        if report.released != released || kept > abandoned {
            self.fail("I11", format!("{report:?}, and {released} were released, {kept} are kept"));
        }
    }

    /// Counters say what happened. Where something was lost, a process may know of less, or take a
    /// job that is gone for one that it settled.
    pub fn judge_counters(&mut self, caller: u64, counters: &Counters) {
        let tally = *self.tally(caller);
        let sound = !self.is_disturbed(caller, self.began, Instant::now());
        let pairs = [
            ("acknowledged", counters.acknowledged, tally.acknowledged),
            ("waiting for retry", counters.retried, tally.retried),
            ("dead-lettered", counters.dead_lettered, tally.dead_lettered),
            ("claimed", counters.claimed, tally.claimed),
            ("recovered", counters.recovered, tally.recovered),
            ("succeeded", counters.succeeded, tally.fine),
        ];
        for (name, counted, happened) in pairs {
            if sound && counted != happened {
                self.fail(
                    "I15",
                    format!("{caller} counts {counted} {name}, and it was {happened}"),
                );
            }
        }
        let failed = counters.failed + counters.snoozed;
        if sound && (failed < tally.failed || failed > tally.failed + tally.dropped) {
            self.fail("I15", format!("{caller} counts {failed} failures of {tally:?}"));
        }
    }

    /// At the end every job is done or a dead letter, unless a test has deleted it.
    pub fn judge_end(&mut self, clean: bool) {
        if self.failure.is_some() {
            return;
        }
        for group in 0..self.groups.len() {
            let letters = self.groups[group].letters.values();
            let dead = letters.filter_map(|letter| {
                let lane = |(_, id): (_, EntryId)| self.lane_origins.get(&(group, id)).copied();
                letter.origin.or_else(|| lane(letter.entry?))
            });
            let dead = dead.collect::<BTreeSet<_>>();
            let lost = self.accepted.keys().find(|id| {
                let job = (group, **id);
                !self.done.contains(&job) && !self.excused.contains(&job) && !dead.contains(id)
            });
            if let Some(id) = lost.copied() {
                self.fail("I1", format!("{id} is neither done nor dead in {group}"));
            }
        }
        if clean && (!self.excused.is_empty() || self.overlaps > 0) {
            let (excused, overlaps) = (self.excused.len(), self.overlaps);
            self.fail(
                "I1",
                format!("nothing went wrong, and {excused} were lost, {overlaps} overlap"),
            );
        }
    }
}
