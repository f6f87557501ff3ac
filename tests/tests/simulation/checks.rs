//! The promises that every step is held to.

use std::time::Duration;

use streamjobs::__store::Inlet;
use streamjobs::EntryId;
use tokio::time::Instant;

use crate::ledger::{Ledger, Run, Start};
use crate::state::{Group, Key, Letter, Row};

/// One step on one group.
pub struct Step<'a> {
    group: usize,
    caller: u64,
    pub operation: &'static str,
    pub before: &'a Group,
    pub after: &'a Group,
    /// The server's clock.
    now: u64,
}

impl Ledger {
    /// Judges what a step did to a group.
    pub fn judge(
        &mut self,
        group: usize,
        caller: u64,
        operation: &'static str,
        before: &Group,
        after: &Group,
        now: u64,
    ) {
        let step = Step { group, caller, operation, before, after, now };
        for (id, origin) in &after.lane {
            self.lane_origins.insert((group, *id), *origin);
        }
        match operation {
            "raw_flush" => {
                self.broken = true;
                let all = self.accepted.keys().map(|id| (group, *id)).collect::<Vec<_>>();
                self.excused.extend(all);
                self.forget_tokens(group);
            }
            "raw_destroy_group" => {
                self.broken = true;
                let rows = before.pending.keys();
                let gone = rows
                    .filter(|(inlet, id)| *inlet == Inlet::STREAM && !self.stream.contains_key(id));
                let gone = gone.map(|(_, id)| (group, *id)).collect::<Vec<_>>();
                self.excused.extend(gone);
                self.forget_tokens(group);
            }
            _ => {
                self.judge_cursor(&step);
                self.judge_rows(&step);
                self.judge_waiting(&step);
                self.judge_letters(&step);
                self.judge_holds(&step);
            }
        }
        let moved =
            |(key, row): (&Key, &Row)| (before.pending.get(key) != Some(row)).then_some(*key);
        for key in after.pending.iter().filter_map(moved) {
            self.moved.insert((group, key), Instant::now());
        }
    }

    fn forget_tokens(&mut self, group: usize) {
        self.counts.retain(|(of, ..), _| *of != group);
        self.tokens.retain(|(of, ..)| *of != group);
    }

    pub fn origin(&self, group: usize, (inlet, id): Key) -> EntryId {
        if inlet.is_lane() {
            self.lane_origins.get(&(group, id)).copied().unwrap_or(EntryId::ZERO)
        } else {
            id
        }
    }

    fn owns(&mut self, step: &Step<'_>, row: &Row) -> bool {
        row.consumer != RELEASED
            && *self.consumers.entry(row.consumer.clone()).or_insert(step.caller) == step.caller
    }

    fn judge_cursor(&mut self, step: &Step<'_>) {
        let (before, after) = (step.before.cursor, step.after.cursor);
        let newest = step.after.pending.keys().filter(|(inlet, _)| *inlet == Inlet::STREAM);
        let newest = newest.map(|(_, id)| *id).max();
        let right = match (before, after) {
            _ if before == after => true,
            (None, Some(_)) => ["prepare", "recreate"].contains(&step.operation),
            // What a take puts into a line is not pending.
            (Some(_), Some(_)) if step.operation == "take" => after > before,
            (Some(_), after) => step.operation == "read" && after == newest,
            (None, None) => true,
        };
        if !right {
            let operation = step.operation;
            self.fail("I1", format!("{operation} moved the cursor from {before:?} to {after:?}"));
        }
    }

    fn judge_rows(&mut self, step: &Step<'_>) {
        for (key, row) in &step.after.pending {
            match step.before.pending.get(key) {
                None => self.judge_delivery(step, *key, row),
                Some(old) if old == row => {}
                Some(old) => self.judge_change(step, *key, old, row),
            }
        }
        for (key, row) in &step.before.pending {
            if !step.after.pending.contains_key(key) {
                self.judge_departure(step, *key, row);
            }
        }
        for id in step.before.lane.keys().filter(|id| !step.after.lane.contains_key(id)) {
            let is_lined = step.operation == "take";
            if !is_lined && !step.before.pending.contains_key(&(Inlet::LANE, *id)) {
                let operation = step.operation;
                self.fail("I1", format!("{operation} deleted {id}, which was not pending"));
            }
        }
    }

    /// An entry was given out under a token, which lets it run once.
    fn give(&mut self, group: usize, key: Key, row: &Row) {
        let token = (group, self.origin(group, key), key.1, row.consumer.clone(), row.count);
        *self.given.entry(token).or_default() += 1;
    }

    fn judge_delivery(&mut self, step: &Step<'_>, key: Key, row: &Row) {
        let Step { group, caller, operation, .. } = *step;
        self.give(group, key, row);
        self.note(format_args!("{operation}: {key:?} goes to {caller}"));
        let origin = self.origin(group, key);
        // Since the clock was set back, the lane may give a job the id that it has in the stream.
        let is_namesake = key == (Inlet::LANE, origin);
        if self.broken || is_namesake {
            // Another entry, or the group, or all of it, was recreated: tokens begin anew.
            self.counts.remove(&(group, origin, key.1));
            self.tokens.retain(|token| (token.0, token.1, token.2) != (group, origin, key.1));
        }
        let again = !self.delivered.insert((group, key)) && !self.broken;
        if !["read", "take"].contains(&operation)
            || row.count != 1
            || again
            || !self.owns(step, row)
        {
            self.fail(
                "I4",
                format!("{operation} of {caller} delivered {key:?} of {group} as {row:?}"),
            );
        }
    }

    fn judge_change(&mut self, step: &Step<'_>, key: Key, old: &Row, row: &Row) {
        let Step { group, caller, operation, now, .. } = *step;
        let lease = u64::try_from(self.plan.lease.as_millis()).unwrap();
        let same = old.consumer == row.consumer && old.count == row.count;
        let own = self.owns(step, row);
        let right = match operation {
            "claim_idle" => {
                self.note(format_args!("claim: {key:?} of {old:?} goes to {caller}"));
                self.tally(caller).claimed += 1;
                self.give(group, key, row);
                if old.consumer != RELEASED && now.saturating_sub(old.since) < lease {
                    self.fail("I9", format!("{caller} claimed {key:?} before its lease was over"));
                }
                own && row.count == old.count + 1
            }
            "renew" => same && own,
            "recover" => {
                self.tally(caller).recovered += 1;
                same && own
            }
            "release" => {
                self.note(format_args!("release: {key:?} by {caller}"));
                self.tally(caller).released += 1;
                let origin = self.origin(group, key);
                self.counts.insert((group, origin, key.1), row.count);
                let released = row.consumer == RELEASED && row.count + 1 == old.count;
                released && self.owns(step, old)
            }
            _ => false,
        };
        if !right {
            self.fail("I10", format!("{operation} of {caller} made {row:?} of {old:?} ({key:?})"));
        }
    }

    fn judge_departure(&mut self, step: &Step<'_>, key: Key, row: &Row) {
        let Step { group, caller, operation, .. } = *step;
        let job = (group, self.origin(group, key));
        self.note(format_args!("{operation} of {caller}: {key:?} is not pending any more"));
        let dead_lettered = |loss: bool| {
            let fresh = step.after.letters.iter();
            let mut fresh = fresh.filter(|(id, _)| !step.before.letters.contains_key(id));
            fresh.any(|(_, letter)| {
                letter.is_of_a_loss() == loss
                    && (letter.entry == Some(key) || letter.origin == Some(job.1))
            })
        };
        let own = self.owns(step, row);
        match operation {
            "acknowledge" | "acknowledge_late" | "finish" => {
                self.tally(caller).acknowledged += 1;
                // One that comes late takes the job from another process, which may take it for one that it
                // settled itself, by a request whose answer was lost.
                if let Some(owner) = self.consumers.get(&row.consumer).copied().filter(|_| !own) {
                    self.disturbed(Some(owner), Duration::ZERO);
                }
                if !self.fine.contains(&job) {
                    self.fail(
                        "I3",
                        format!("{caller} acknowledged {key:?}, and no run of it ended well"),
                    );
                }
                self.done.insert(job);
            }
            "schedule_retries" if own => {
                self.tally(caller).retried += 1;
                if count(&step.after.waiting, job.1) != count(&step.before.waiting, job.1) + 1 {
                    self.fail("I3", format!("{key:?} was given up and does not wait for retry"));
                }
            }
            "store_dead_letter" if own => {
                self.tally(caller).dead_lettered += 1;
                if !dead_lettered(false) {
                    self.fail("I3", format!("{key:?} was given up and is no dead letter"));
                }
            }
            "claim_idle" if dead_lettered(true) => {}
            "renew" | "recover" | "release" if own && dead_lettered(true) => {}
            "schedule_retries" | "store_dead_letter" | "renew" | "recover" | "release" if !own => {
                self.fail("I10", format!("{operation} of {caller} ended {key:?} of {row:?}"));
            }
            _ => self.fail("I1", format!("{operation} of {caller} lost {key:?}")),
        }
    }

    fn judge_waiting(&mut self, step: &Step<'_>) {
        let (before, after) = (step.before, step.after);
        let fresh = after.lane.iter().filter(|(id, _)| !before.lane.contains_key(id));
        let fresh = fresh.map(|(_, origin)| *origin).collect::<Vec<_>>();
        for origin in &before.waiting {
            let left =
                count(&before.waiting, *origin).saturating_sub(count(&after.waiting, *origin));
            // After a loss of the group, a job may be in a line as well, and leave that.
            if left != count(&fresh, *origin) && !before.lined.contains(origin) {
                self.fail("I1", format!("{} lost the retries job {origin}", step.operation));
            }
        }
        let feeds = ["take", "finish", "sweep_holds"].contains(&step.operation);
        // After a loss of the group, a job can be in a line and in the stream or the lane as well. A take puts what it reads
        // there into the line, and may take the first one out.
        let is_parked = |origin: &EntryId| {
            let is_read = before.cursor < Some(*origin) && Some(*origin) <= after.cursor;
            is_read && !after.pending.contains_key(&(Inlet::STREAM, *origin))
        };
        let left_lane = before.lane.iter().filter(|(id, _)| !after.lane.contains_key(id));
        let left_lane = left_lane.map(|(_, origin)| *origin).collect::<Vec<_>>();
        let is_fed = |origin: &EntryId| {
            let (were, are) = (count(&before.lined, *origin), count(&after.lined, *origin));
            let again = usize::from(is_parked(origin)) + count(&left_lane, *origin);
            feeds && were > 0 && were + again > are
        };
        if step.operation != "promote" && !fresh.iter().all(is_fed) {
            self.fail("I2", format!("{} put {fresh:?} into the lane", step.operation));
        }
    }

    fn judge_letters(&mut self, step: &Step<'_>) {
        for (id, letter) in &step.after.letters {
            if !step.before.letters.contains_key(id) {
                self.judge_burial(step, letter);
            }
        }
        for (id, letter) in &step.before.letters {
            if step.after.letters.contains_key(id) {
                continue;
            }
            let origin = letter.origin.or_else(|| Some(self.origin(step.group, letter.entry?)));
            let job = (step.group, origin.unwrap_or(EntryId::ZERO));
            let right = letter.is_of_a_loss()
                && match step.operation {
                    "purge" => {
                        self.done.insert(job);
                        self.fine.contains(&job)
                    }
                    "schedule_retries" => {
                        self.tally(step.caller).retried += 1;
                        true
                    }
                    "store_dead_letter" => {
                        self.tally(step.caller).dead_lettered += 1;
                        true
                    }
                    _ => false,
                };
            if !right {
                self.fail("I6", format!("{} removed the dead letter {letter:?}", step.operation));
            }
        }
    }

    /// A dead letter says the truth about its job.
    fn judge_burial(&mut self, step: &Step<'_>, letter: &Letter) {
        self.note(format_args!(
            "{}: {:?} is dead: {}",
            step.operation, letter.entry, letter.reason
        ));
        let Some(origin) = letter.origin.or_else(|| Some(self.origin(step.group, letter.entry?)))
        else {
            return self.fail("I6", format!("{letter:?} says no entry"));
        };
        let job = (step.group, origin);
        let failures = self.failures.get(&job).copied().unwrap_or(0);
        let deliveries = letter.entry.and_then(|key| step.before.pending.get(&key));
        let right = match letter.reason.as_str() {
            "exhausted" => failures >= u64::from(self.plan.attempts_max),
            "rejected" => failures >= 1,
            // The row is gone already where another letter stood for it.
            "crashed" => {
                deliveries.is_none_or(|row| row.count > u64::from(self.plan.deliveries_max))
            }
            "trimmed" => letter.entry.is_some_and(|(_, id)| !self.stream.contains_key(&id)),
            _ => false,
        };
        let sent = self.accepted.get(&origin).map(|(_, payload)| payload);
        if !right || (!letter.is_of_a_loss() && letter.payload.as_ref() != sent) {
            self.fail("I6", format!("{letter:?} after {failures} failures, of {deliveries:?}"));
        }
        if !self.broken && self.done.contains(&job) {
            self.fail("I6", format!("{job:?} is done, and dead"));
        }
    }

    /// Judges that a handler may be called.
    pub fn judge_start(&mut self, start: &Start) {
        let Start { caller, job, entry, count, attempt, .. } = *start;
        if self.accepted.get(&job.1).is_none_or(|(sent, _)| *sent != start.number) {
            self.fail("I2", format!("{job:?} runs as job {}", start.number));
        }
        let token = (job.0, job.1, entry, start.consumer.clone(), count);
        let highest = self.counts.insert((job.0, job.1, entry), count).unwrap_or(0);
        let starts = self.started_under.entry(token.clone()).or_default();
        *starts += 1;
        // Where a group was recreated, the same entry is delivered as new, at times to the very consumer
        // that has it from before and is done with it when the second delivery arrives.
        let again = match self.broken {
            true => *starts > self.given.get(&token).copied().unwrap_or(0),
            false => !self.tokens.insert(token) || count <= highest,
        };
        if again {
            self.fail("I4", format!("{job:?} runs under the count {count} after {highest}"));
        }
        if attempt > self.plan.attempts_max || count > u64::from(self.plan.deliveries_max) {
            self.fail("I7", format!("{job:?}: attempt {attempt}, delivery {count}"));
        }
        if let Some(other) = self.runs.iter().find(|run| run.live && run.job == job).cloned() {
            self.overlaps += 1;
            let from = other.started.checked_sub(self.plan.lease * 2).unwrap_or(other.started);
            if !self.broken && !self.is_disturbed(other.caller, from, Instant::now()) {
                self.fail("I9", format!("{job:?} runs in {} and in {caller}", other.caller));
            }
        }
        let here = |run: &&Run| run.live && run.caller == caller && run.job.0 == job.0;
        if self.runs.iter().filter(here).count() >= self.plan.concurrency as usize {
            self.fail("I13", format!("{caller} runs more than {} jobs", self.plan.concurrency));
        }
        self.judge_shared_slots(caller);
        self.judge_limits(start);
        let first = !self.starts.contains_key(&job);
        let later = self.starts.keys().any(|known| known.0 == job.0 && known.1 > job.1);
        if first && later && self.plan.is_ordered() {
            self.fail("I12", format!("{job:?} begins after one that was published later"));
        }
    }

    /// Every job that was accepted is done, or somewhere, and in one place only.
    pub fn nothing_is_lost(&mut self, operation: &'static str) {
        for group in 0..self.groups.len() {
            if self.groups[group].cursor.is_none() {
                continue;
            }
            let mut places = self.groups[group].places(&self.stream);
            let lane_letters =
                self.groups[group].letters.values().filter(|one| one.origin.is_none());
            for entry in lane_letters.filter_map(|letter| letter.entry) {
                *places.entry(self.origin(group, entry)).or_default() += 1;
            }
            let lost = self.accepted.keys().copied().find_map(|id| {
                let places = places.get(&id).copied().unwrap_or(0);
                let settled =
                    self.done.contains(&(group, id)) || self.excused.contains(&(group, id));
                let wrong = if settled { places > 1 } else { places != 1 };
                (wrong && !(self.broken && places > 0)).then_some((id, places))
            });
            if let Some((id, places)) = lost {
                self.fail(
                    "I1",
                    format!("after {operation}, {id} is in {places} places of {group}"),
                );
            }
        }
    }

    /// Nothing stays with a process that is gone for longer than a lease and a claim interval.
    pub fn nothing_is_left_with_the_dead(&mut self) {
        let (now, lease) = (Instant::now(), self.plan.lease);
        if now - self.looked_for_orphans < lease / 4 {
            return;
        }
        self.looked_for_orphans = now;
        // A lease until it is idle, a claim interval with its jitter, and a lease in which claims wait after
        // a silence of the server.
        let interval = lease / 3 * 6 / 5;
        let bound = lease * 2 + interval + std::time::Duration::from_secs(1) + self.set_back;
        let calm = self.disturbances.iter().map(|one| one.until).max();
        let free = self.alive.iter().filter(|(caller, since)| {
            let busy = self.runs.iter().any(|run| run.live && run.caller == **caller);
            let since = self.rested.get(caller).copied().unwrap_or(**since).max(**since);
            !busy && now - since > bound
        });
        if calm.is_some_and(|calm| now < calm + bound) || free.count() == 0 {
            return;
        }
        let left = self.moved.iter().find(|((group, key), moved)| {
            let row = self.groups[*group].pending.get(key);
            let owner = row.and_then(|row| self.consumers.get(&row.consumer));
            let died = owner.and_then(|owner| self.dead.get(owner));
            died.is_some_and(|died| now > (*died).max(**moved) + bound)
        });
        if let Some((key, _)) = left {
            self.fail("I8", format!("{key:?} is left with a process that is gone"));
        }
    }
}

fn count(ids: &[EntryId], id: EntryId) -> usize {
    ids.iter().filter(|one| **one == id).count()
}

/// Who has an entry that was released.
const RELEASED: &str = "streamjobs-released";
