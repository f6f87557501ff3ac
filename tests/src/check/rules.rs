//! The invariants, one function for each. Their names are those of the list in `docs/guarantees.md`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::account::{Account, Run};
use super::causes::{Cause, Extra};
use super::{Breach, Terms, Truth};
use crate::history::{Fate, How};

type Breaches = Vec<Breach>;

fn breach(breaches: &mut Breaches, invariant: &'static str, text: String) {
    breaches.push(Breach { invariant, text });
}

/// A history without a drain proves nothing.
pub(super) fn drained(truth: &Truth, breaches: &mut Breaches) {
    if truth.unfinished > 0 {
        breach(breaches, "drained", format!("{} jobs are unfinished", truth.unfinished));
    }
}

/// Every confirmed job is done or a dead letter in the end (I1). Returns the jobs that are neither
/// because they were lost in a declared way.
pub(super) fn none_lost(account: &Account, truth: &Truth, breaches: &mut Breaches) -> Vec<String> {
    let mut excused = Vec::new();
    let letters = truth.letters.iter().map(|(job, _)| job.as_str()).collect::<HashSet<_>>();
    let declared = truth.lost_by_server.iter().map(String::as_str).collect::<HashSet<_>>();
    for (id, job) in &account.jobs {
        let effect = truth.effects.as_ref().is_some_and(|effects| effects.contains_key(id));
        let over = effect || job.is_done() || letters.contains(id.as_str());
        if job.published && !over {
            match declared.contains(id.as_str()) {
                true => excused.push(id.clone()),
                false => breach(breaches, "lost", format!("{id}: {:?}", job.runs)),
            }
        }
    }
    excused
}

/// Only published jobs run, with the payload with which they were published (I2).
pub(super) fn none_unexpected(account: &Account, breaches: &mut Breaches) {
    for (id, job) in &account.jobs {
        if job.fate.is_none() || (job.refused && job.unconfirmed == 0 && !job.runs.is_empty()) {
            breach(breaches, "unexpected", format!("{id} came out without having been published"));
        }
        if job.runs.iter().any(|run| !run.attempt.intact) {
            breach(breaches, "payload", format!("{id} is not what was published"));
        }
    }
}

/// A job runs in the partition that belongs to its key.
pub(super) fn partitions_are_kept(account: &Account, breaches: &mut Breaches) {
    for (id, job) in &account.jobs {
        let Some(stream) = &job.stream else { continue };
        for run in job.runs.iter().filter(|run| run.attempt.stream != *stream) {
            breach(breaches, "partition", format!("{id} is of {stream}: {:?}", run.attempt));
        }
    }
}

/// No token is given out twice, and the tokens of one entry only rise (I4). A job that was released
/// by a stop keeps its count, with another consumer; a job that comes back from a replica may have
/// any count.
pub(super) fn tokens_rise(account: &Account, breaches: &mut Breaches) {
    for job in account.jobs.values() {
        let mut entries: HashMap<&str, Vec<&Run>> = HashMap::new();
        for run in &job.runs {
            entries.entry(&run.attempt.entry).or_default().push(run);
        }
        for runs in entries.values() {
            let mut tokens = HashMap::new();
            for run in runs {
                let token = (&run.attempt.consumer, run.attempt.count);
                let Some(before) = tokens.insert(token, run.began) else { continue };
                if !account.touching(before, run.began).any(|fault| fault.forgets(run)) {
                    breach(breaches, "tokens", format!("given out twice: {:?}", run.attempt));
                }
            }
            for pair in runs.windows(2) {
                let [before, run] = pair else { continue };
                let excused = account
                    .touching(before.began, run.began)
                    .any(|fault| fault.lowers_counts(before));
                if run.attempt.count <= before.attempt.count && !excused {
                    let (a, b) = (&before.attempt, &run.attempt);
                    breach(breaches, "tokens", format!("{b:?} after {a:?}"));
                }
            }
        }
    }
}

/// A guarded handler's effect has happened once for a job that is done, never for another job, and by
/// an attempt that really was made (I5, I10).
pub(super) fn effects_are_one(account: &Account, truth: &Truth, breaches: &mut Breaches) {
    let Some(effects) = &truth.effects else { return };
    for (id, tokens) in effects {
        let job = account.jobs.get(id);
        if tokens.len() != 1 {
            breach(breaches, "effects", format!("{id} has {} effects: {tokens:?}", tokens.len()));
        }
        if job.is_none_or(|job| job.fate != Some(Fate::Done)) {
            breach(breaches, "effects", format!("{id} has an effect and was to have none"));
        }
        let known = |(consumer, count): &(String, u64)| {
            let runs = job.iter().flat_map(|job| &job.runs);
            let mut tokens = runs.map(|run| (&run.attempt.consumer, run.attempt.count));
            tokens.any(|token| token == (consumer, *count))
        };
        if !tokens.iter().all(known) {
            breach(breaches, "effects", format!("{id} has an effect of no attempt: {tokens:?}"));
        }
    }
    for (id, job) in &account.jobs {
        if job.is_done() && !effects.contains_key(id) && committed(job.runs.as_slice()) {
            breach(breaches, "effects", format!("{id} is done without its effect: {:?}", job.runs));
        }
    }
}

/// Whether no later run was needed: the last run ended well.
fn committed(runs: &[Run]) -> bool {
    runs.last().is_some_and(|run| run.how() == Some(How::Ok))
}

/// There is one dead letter for each rejected job, one for each job that died with its processes as
/// often as allowed, and none for any other job; and the reason is right (I6). Returns how many there
/// are of the second kind.
pub(super) fn letters_are_exact(
    account: &Account,
    truth: &Truth,
    terms: &Terms,
    breaches: &mut Breaches,
) -> usize {
    let mut died_out = 0;
    let mut letters: BTreeMap<&str, usize> = BTreeMap::new();
    for (job, reason) in &truth.letters {
        *letters.entry(job).or_default() += 1;
        let known = account.jobs.get(job);
        let rejected = known.is_some_and(|job| job.fate == Some(Fate::Rejected));
        if reason == CRASHED && known.is_some_and(|job| job.died_out(terms.max_deliveries)) {
            died_out += 1;
        } else if !rejected || reason != REJECTED {
            breach(breaches, "letters", format!("{job} is a dead letter: {reason}"));
        }
    }
    for (id, job) in &account.jobs {
        let count = letters.get(id.as_str()).copied().unwrap_or_default();
        let declared = truth.lost_by_server.contains(id);
        if job.fate == Some(Fate::Rejected) && job.published && !declared && count == 0 {
            breach(breaches, "letters", format!("{id} has no dead letter: {:?}", job.runs));
        }
        if count > 1 + job.unconfirmed {
            breach(breaches, "letters", format!("{id} has {count} dead letters"));
        }
    }
    died_out
}

/// The numbers of attempts, deliveries and concurrent runs stay within their settings (I7, I13).
pub(super) fn bounds_hold(account: &Account, terms: &Terms, breaches: &mut Breaches) {
    let mut steps: HashMap<u32, Vec<(u64, i64)>> = HashMap::new();
    for run in account.jobs.values().flat_map(|job| &job.runs) {
        let steps = steps.entry(run.pid).or_default();
        steps.push((run.began, 1));
        steps.extend(run.end.map(|(at, _)| (at, -1)));
        let attempt = &run.attempt;
        if attempt.number > terms.max_attempts || attempt.count > terms.max_deliveries {
            breach(breaches, "bounds", format!("beyond its bounds: {attempt:?}"));
        }
    }
    for (pid, mut steps) in steps {
        // If an end and a start happen at the same moment, the end comes first.
        steps.sort_unstable();
        let (mut now, mut most) = (0_i64, 0_i64);
        for (_, step) in steps {
            now += step;
            most = most.max(now);
        }
        if usize::try_from(most).is_ok_and(|most| most > terms.slots) {
            breach(breaches, "bounds", format!("process {pid} ran {most} jobs at once"));
        }
    }
}

/// The number of an attempt says how often the job has failed, and counts nothing else (I7). A panic
/// inside a process is a failure of which the handler knows nothing, and may happen before the
/// handler begins.
pub(super) fn attempts_are_failures(account: &Account, breaches: &mut Breaches) {
    for job in account.jobs.values().filter(|job| job.unconfirmed == 0) {
        for (place, run) in job.runs.iter().enumerate() {
            let earlier = job.runs.iter().take(place);
            let failed = earlier.filter(|before| before.how() == Some(How::Failed)).count();
            let failures = failed + account.panics_before(run.began);
            if usize::try_from(run.attempt.number).is_ok_and(|number| number > failures + 1) {
                let attempt = &run.attempt;
                breach(breaches, "attempts", format!("{failures} failures before {attempt:?}"));
            }
        }
    }
}

/// No job runs twice at the same time, except if a fault hindered its owner (I9).
pub(super) fn none_stolen(extras: &[Extra<'_>], breaches: &mut Breaches) {
    for Extra { before, run, cause, .. } in extras {
        let still_runs = before.end.is_none_or(|(at, _)| at > run.began);
        if still_runs && *cause == Cause::Other {
            let (a, b) = (&before.attempt, &run.attempt);
            breach(breaches, "stolen", format!("{b:?} while {a:?} ran"));
        }
    }
}

/// No job runs once more without a reason (I9).
pub(super) fn extra_runs_are_explained(extras: &[Extra<'_>], breaches: &mut Breaches) {
    for Extra { before, run, cause, .. } in extras {
        if *cause == Cause::Other {
            breach(breaches, "extra", format!("{run:?} after {before:?}"));
        }
    }
}

/// A job whose process ended runs again within a lease, a claim interval and a second (I8).
pub(super) fn recovered_in_time(
    recoveries: &[(&Run, Duration)],
    terms: &Terms,
    breaches: &mut Breaches,
) {
    for (run, waited) in recoveries {
        if *waited > terms.recovery() {
            let (attempt, most) = (&run.attempt, terms.recovery());
            breach(breaches, "recovery", format!("after {waited:?} of {most:?}: {attempt:?}"));
        }
    }
}

/// The reason of a dead letter if the handler rejected the job.
const REJECTED: &str = "rejected";
/// The reason of a dead letter if the last delivery ended with its process, like those before.
const CRASHED: &str = "crashed";
