//! Decides whether a history is one that this crate promises.
//!
//! It knows nothing of how the crate works: it compares what producers were told, what handlers say
//! they did, what was broken when, and what the stores hold at the end.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::history::Line;

mod account;
mod causes;
mod rules;

use self::account::Account;
pub use self::causes::Cause;

/// What the stores hold when everything is healed and drained.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// Entries that are pending, waiting for a retry, or not delivered.
    pub unfinished: usize,
    /// Jobs for which there is a dead letter, with its reason, once for each letter.
    pub letters: Vec<(String, String)>,
    /// For each job the attempts whose effects were committed, as consumer and delivery count.
    /// None where handlers are not guarded.
    pub effects: Option<HashMap<String, Vec<(String, u64)>>>,
    /// Jobs that a declared loss took, such as those of a replica that was behind.
    pub lost_by_server: Vec<String>,
}

/// What the group under test was told.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Its lease.
    pub lease: Duration,
    /// Slots of each consumer.
    pub slots: usize,
    /// The most attempts.
    pub max_attempts: u32,
    /// The most deliveries of one entry.
    pub max_deliveries: u64,
    /// What the machine may add to a recovery: a second where nothing else runs on it.
    pub slack: Duration,
}

impl Terms {
    /// How long after its owner's end a job may take until it runs again: a lease, a sweep with its
    /// spread, and the slack.
    pub fn recovery(&self) -> Duration {
        self.lease + self.lease * 2 / 5 + self.slack
    }
}

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Its name among the invariants.
    pub invariant: &'static str,
    /// What happened, and to which job.
    pub text: String,
}

/// What a history comes to.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Promises that were not kept: none, if all is well.
    pub breaches: Vec<Breach>,
    /// Jobs that were confirmed.
    pub published: usize,
    /// Jobs whose publishing was not confirmed and that were done all the same.
    pub recovered: usize,
    /// Attempts in all.
    pub runs: usize,
    /// Attempts beyond the first that a job was due, by cause.
    pub extra: BTreeMap<Cause, usize>,
    /// How long jobs of ended processes waited until they ran again, shortest first.
    pub recoveries: Vec<Duration>,
}

impl Finding {
    /// The share of recoveries, such as 0.99, that took no longer than this.
    pub fn recovery(&self, share: f64) -> Option<Duration> {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank among at most some millions"
        )]
        let rank = (self.recoveries.len() as f64 * share).ceil() as usize;
        self.recoveries.get(rank.saturating_sub(1)).copied()
    }
}

/// Checks a history that ended in `truth`.
pub fn check(history: &[Line], truth: &Truth, terms: &Terms) -> Finding {
    let account = Account::of(history);
    let extras = causes::extras(&account, terms);
    let mut breaches = Vec::new();
    rules::drained(truth, &mut breaches);
    rules::none_lost(&account, truth, &mut breaches);
    rules::none_unexpected(&account, &mut breaches);
    rules::tokens_rise(&account, &mut breaches);
    rules::effects_are_one(&account, truth, &mut breaches);
    rules::letters_are_exact(&account, truth, &mut breaches);
    rules::bounds_hold(&account, terms, &mut breaches);
    rules::attempts_are_failures(&account, &mut breaches);
    rules::none_stolen(&extras, &mut breaches);
    rules::extra_runs_are_explained(&extras, &mut breaches);
    let recoveries = causes::recoveries(&account, &extras);
    rules::recovered_in_time(&recoveries, terms, &mut breaches);
    let mut recoveries = recoveries.into_iter().map(|(_, waited)| waited).collect::<Vec<_>>();
    recoveries.sort_unstable();
    let mut extra = BTreeMap::new();
    for found in &extras {
        *extra.entry(found.cause).or_default() += 1;
    }
    Finding {
        breaches,
        published: account.published(),
        recovered: account.recovered(),
        runs: account.runs(),
        extra,
        recoveries,
    }
}
