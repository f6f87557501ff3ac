//! Decides whether a history keeps the promises of this crate.
//!
//! It knows nothing about how the crate works: it compares what producers were told, what handlers report
//! that they did, what was broken and when, and what the stores hold at the end.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::history::Line;

mod account;
mod causes;
mod rules;

use self::account::Account;
pub use self::causes::Cause;

/// What the stores hold when everything is repaired and drained.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// Entries that are pending, waiting for a retry, or not delivered.
    pub unfinished: usize,
    /// Jobs for which there is a dead letter, with its reason; one item for each letter.
    pub letters: Vec<(String, String)>,
    /// For each job the attempts whose effects were committed, as consumer and delivery count.
    /// `None` if handlers are not guarded.
    pub effects: Option<HashMap<String, Vec<(String, u64)>>>,
    /// Jobs that were lost in a declared way, for example because a replica was behind.
    pub lost_by_server: Vec<String>,
}

/// The settings of the group under test.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Its lease.
    pub lease: Duration,
    /// The slots of each consumer.
    pub slots: usize,
    /// The most attempts.
    pub max_attempts: u32,
    /// The most deliveries of one entry.
    pub max_deliveries: u64,
    /// How much time the machine may add to a recovery: a second if nothing else runs on it.
    pub slack: Duration,
}

impl Terms {
    /// How long after its owner's end a job may take until it runs again: a lease, a claim interval with its
    /// jitter, and the slack.
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

/// The result of checking a history.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Promises that were not kept: empty if all were kept.
    pub breaches: Vec<Breach>,
    /// Jobs that were confirmed.
    pub published: usize,
    /// Jobs whose publishing was not confirmed and that were done all the same.
    pub recovered: usize,
    /// Attempts in all.
    pub runs: usize,
    /// Attempts that were not necessary, by cause.
    pub extra: BTreeMap<Cause, usize>,
    /// Jobs that are dead letters because each delivery of an entry ended with its process.
    pub died_out: usize,
    /// Confirmed jobs that were neither done nor dead-lettered, because they were lost in a declared way.
    pub declared: Vec<String>,
    /// How long jobs of ended processes waited until they ran again, shortest first.
    pub recoveries: Vec<Duration>,
}

impl Finding {
    /// The time within which this share of the recoveries, such as 0.99, was done.
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
    let declared = rules::none_lost(&account, truth, &mut breaches);
    rules::none_unexpected(&account, &mut breaches);
    rules::partitions_are_kept(&account, &mut breaches);
    rules::tokens_rise(&account, &mut breaches);
    rules::effects_are_one(&account, truth, &mut breaches);
    let died_out = rules::letters_are_exact(&account, truth, terms, &mut breaches);
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
        died_out,
        declared,
        recoveries,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Attempt, Deed, Disturbance, Fate, How};

    const TERMS: Terms = Terms {
        lease: Duration::from_secs(2),
        slots: 4,
        max_attempts: 5,
        max_deliveries: 2,
        slack: Duration::from_secs(1),
    };

    /// The breaches of a job that is a dead letter as `crashed`, after these deliveries of one entry and
    /// their ends.
    fn breaches(deliveries: &[(u64, Option<How>)]) -> Vec<&'static str> {
        let mut at = 0;
        let mut line = |pid, deed| {
            at += 1;
            Line { at, pid, deed }
        };
        let job = || "job".to_owned();
        let mut history = vec![
            line(1, Deed::Tried { job: job(), fate: Fate::Done }),
            line(1, Deed::Published { job: job() }),
        ];
        for (count, how) in deliveries {
            let pid = 10 + u32::try_from(*count).unwrap();
            let (entry, consumer) = ("1-0".to_owned(), format!("of {pid}"));
            let (stream, count) = ("orders".to_owned(), *count);
            let attempt =
                Attempt { job: job(), stream, entry, consumer, count, number: 1, intact: true };
            history.push(line(pid, Deed::Started(attempt.clone())));
            history.extend(how.map(|how| line(pid, Deed::Ended { attempt, how })));
        }
        let letters = vec![(job(), "crashed".to_owned())];
        let truth = Truth { letters, ..Truth::default() };
        let finding = check(&history, &truth, &TERMS);
        let of_letters = finding.breaches.iter().filter(|breach| breach.invariant == "letters");
        of_letters.map(|breach| breach.invariant).collect()
    }

    /// The breaches of a job in a partition that ran in `stream`, and once more there after `what`, which
    /// lasted this long.
    fn after(what: Disturbance, long: Duration, stream: &str) -> Vec<&'static str> {
        let job = || "job".to_owned();
        let run = |pid: u32| Attempt {
            job: job(),
            stream: stream.to_owned(),
            entry: "1-0".to_owned(),
            consumer: "of the same".to_owned(),
            count: 1,
            number: 1,
            intact: pid > 0,
        };
        let ended = |attempt: Attempt| Deed::Ended { attempt, how: How::Ok };
        let deeds = [
            (1, Deed::Tried { job: job(), fate: Fate::Done }),
            (1, Deed::Stored { job: job(), stream: "orders".to_owned(), entry: "1-0".to_owned() }),
            (11, Deed::Started(run(11))),
            (11, ended(run(11))),
            (1, Deed::Broken { fault: 1, what }),
            (1, Deed::Mended { fault: 1 }),
            (11, Deed::Started(run(11))),
            (11, ended(run(11))),
        ];
        let mended = |at| if at > 5 { at + causes::nanoseconds(long) } else { at };
        let lines = (1..).zip(deeds).map(|(at, (pid, deed))| Line { at: mended(at), pid, deed });
        let finding = check(&lines.collect::<Vec<_>>(), &Truth::default(), &TERMS);
        finding.breaches.iter().map(|breach| breach.invariant).collect()
    }

    #[test]
    fn a_master_excuses_what_its_partitions_forget_and_a_slot_that_moves_in_time_nothing() {
        let master = |stream: &str, loses| Disturbance::Master {
            what: "killed".to_owned(),
            streams: vec![stream.to_owned()],
            loses,
        };
        let short = TERMS.lease / 2;
        assert!(after(master("orders", true), short, "orders").is_empty());
        assert_eq!(after(master("orders", false), short, "orders"), ["tokens"]);
        assert_eq!(after(master("bills", true), short, "orders"), ["tokens", "tokens", "extra"]);
        assert_eq!(after(master("bills", true), short, "bills"), ["partition", "partition"]);
        let moved = || Disturbance::Move { stream: "orders".to_owned() };
        assert_eq!(after(moved(), short, "orders"), ["tokens", "tokens", "extra"]);
        assert_eq!(after(moved(), TERMS.lease, "orders"), ["tokens", "tokens"]);
    }

    #[test]
    fn a_lost_job_is_named_where_its_loss_was_declared_and_a_breach_elsewhere() {
        let job = || "job".to_owned();
        let deeds = [Deed::Tried { job: job(), fate: Fate::Done }, Deed::Published { job: job() }];
        let lines = (1..).zip(deeds).map(|(at, deed)| Line { at, pid: 1, deed });
        let lines = lines.collect::<Vec<_>>();
        let told = check(&lines, &Truth { lost_by_server: vec![job()], ..<_>::default() }, &TERMS);
        assert_eq!((told.breaches.len(), told.declared), (0, vec![job()]));
        let untold = check(&lines, &Truth::default(), &TERMS);
        assert_eq!(untold.breaches[0].invariant, "lost");
    }

    #[test]
    fn a_letter_of_a_crash_is_right_only_after_the_last_delivery_and_without_an_end() {
        assert!(breaches(&[(1, None), (2, None)]).is_empty());
        assert!(breaches(&[(1, Some(How::Dropped)), (2, None)]).is_empty());
        assert!(breaches(&[(1, Some(How::Ok)), (2, None)]).is_empty(), "its end was not stored");
        assert_eq!(breaches(&[(1, None)]), ["letters"], "one delivery is left");
        assert_eq!(breaches(&[(1, Some(How::Failed)), (2, None)]), ["letters"]);
        assert_eq!(breaches(&[(1, None), (2, Some(How::Ok))]), ["letters"]);
        assert_eq!(breaches(&[]), ["letters"]);
    }
}
