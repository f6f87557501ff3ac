//! Why jobs ran more often than necessary.

use std::time::Duration;

use super::Terms;
use super::account::{Account, Fault, Run};
use crate::history::{Disturbance, How};

/// What explains a run that was not necessary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The process of the run before was ended at once.
    Kill,
    /// A step inside the process of the run before panicked.
    Panic,
    /// The process of the run before stood still.
    Freeze,
    /// The process of the run before was asked to stop, and released the job.
    Stop,
    /// The process of the run before could not reach the server.
    Link,
    /// The server was down, frozen, replaced, or its clock was changed.
    Server,
    /// The database was down, and the outcome of the commit was unknown.
    Database,
    /// A producer published the job again, because it got no answer.
    Republished,
    /// Nothing explains it.
    Other,
}

/// A run that was not necessary.
#[derive(Clone, Debug)]
pub(super) struct Extra<'a> {
    /// The run before.
    pub(super) before: &'a Run,
    /// The run itself.
    pub(super) run: &'a Run,
    /// What explains it.
    pub(super) cause: Cause,
    /// When the fault began, if a fault explains it.
    pub(super) since: Option<u64>,
}

/// All runs that were not necessary: each run except the first, unless the run before it failed and
/// was to be tried again.
pub(super) fn extras<'a>(account: &'a Account, terms: &Terms) -> Vec<Extra<'a>> {
    let mut found = Vec::new();
    for job in account.jobs.values() {
        for pair in job.runs.windows(2) {
            let [before, run] = pair else { continue };
            if before.end.is_some_and(|(at, how)| how == How::Failed && at <= run.began) {
                continue;
            }
            let (cause, since) = match explanation(account, terms, before, run) {
                Some(fault) => (named(&fault.what), Some(fault.from)),
                None if job.unconfirmed > 0 => (Cause::Republished, None),
                None => (Cause::Other, None),
            };
            found.push(Extra { before, run, cause, since });
        }
    }
    found
}

/// The fault that explains why a job ran again: a fault of the process that had the job, or else of
/// a server.
fn explanation<'a>(
    account: &'a Account,
    terms: &Terms,
    before: &Run,
    run: &Run,
) -> Option<&'a Fault> {
    let own = |fault: &&Fault| fault.pid() == Some(before.pid);
    // The effect of a server's fault shows within a lease.
    let lease = nanoseconds(terms.lease);
    let common =
        |fault: &&Fault| fault.pid().is_none() && fault.repeats(lease) && fault.concerns(before);
    account
        .touching(before.began, run.began)
        .find(own)
        .or_else(|| account.touching(before.began.saturating_sub(lease), run.began).find(common))
}

fn named(what: &Disturbance) -> Cause {
    match what {
        Disturbance::Kill { .. } => Cause::Kill,
        Disturbance::Panic { .. } => Cause::Panic,
        Disturbance::Freeze { .. } => Cause::Freeze,
        Disturbance::Stop { .. } => Cause::Stop,
        Disturbance::Link { .. } => Cause::Link,
        Disturbance::Server { .. } | Disturbance::Master { .. } | Disturbance::Move { .. } => {
            Cause::Server
        }
        Disturbance::Database => Cause::Database,
    }
}

/// How long each job of a process that was ended or stood still waited until it ran again. Jobs
/// that another fault delayed meanwhile are left out.
pub(super) fn recoveries<'a>(
    account: &Account,
    extras: &'a [Extra<'a>],
) -> Vec<(&'a Run, Duration)> {
    let ended = |cause| matches!(cause, Cause::Kill | Cause::Panic | Cause::Freeze);
    let clean = |extra: &&Extra<'_>| {
        ended(extra.cause)
            && extra.since.is_some_and(|since| {
                // A fault that ended before, or that ended a process for good, delays no later run.
                let in_the_way = |fault: &&Fault| match fault.pid() {
                    Some(_) => fault.from > since,
                    None => fault.concerns(extra.before),
                };
                !account.touching(since, extra.run.began).any(|fault| in_the_way(&fault))
            })
    };
    let waited = |extra: &'a Extra<'a>| {
        // A process that was not there yet could not take anything over.
        let since = extra.since.unwrap_or_default().max(account.ready(extra.run.pid));
        (extra.run, Duration::from_nanos(extra.run.began.saturating_sub(since)))
    };
    extras.iter().filter(clean).map(waited).collect()
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
