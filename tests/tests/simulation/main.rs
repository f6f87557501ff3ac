//! The whole runtime on streams in memory: processes, retries, faults and clocks from one seed.
//!
//! Every step of the store is judged where it is done ([`Ledger::observe`](ledger::Ledger::observe)),
//! and everything once more when faults have ended and all work is done. `SIM_SEEDS=2000` runs that
//! many seeds (quicker with `--profile simulation`), from `SIM_FIRST` on, `SIM_SEED=7` one of them, with its history. The promises, and how each is checked:
//!
//! | | Promise | Check |
//! |---|---|---|
//! | I1 | nothing is lost | after each change, each accepted job is done or in exactly one place; at the end it is done or dead; what the simulation itself deletes is excused |
//! | I2 | nothing runs that was not published | number and payload of each run; entries come from `append` and `promote` alone |
//! | I3 | acknowledged only after a good end, given up only where it is stored | each departure from a pending list |
//! | I4 | tokens rise | each delivery, and each start's consumer and count |
//! | I5 | effects once | not here: the guard is a database's, see `tests/tests/postgres/once.rs` |
//! | I6 | dead letters are exact | reason, payload and place of each letter, and of each that goes |
//! | I7 | bounds | attempt and delivery count of each start |
//! | I8 | nothing stays with the dead | rows of processes that are gone, while an idle process lives and nothing is disturbed |
//! | I9 | no theft | no claim within a lease; two runs at once only after a disturbance of the first or of the server |
//! | I10 | the stale change nothing | owner and count before each change of a row |
//! | I11 | a stop reports what is so | releases and rows left, for stops that nothing disturbed |
//! | I12 | order | first starts in seeds of one slot, where nothing goes wrong |
//! | I13 | bounded | runs at once in each process and group |
//! | I14 | it goes on | at rest within a bounded time after the last fault |
//! | I15 | counters are true | those of processes that live at the end, exactly where no answer was lost |
//! | I16 | limits over all processes hold | places of each key after each step; runs at once of each key or group, without those of processes that were disturbed |
//! | I17 | order per key | each start, against the jobs of its key that were published before |
//! | I18 | fair shares | keys that get a place in a take, against those whose jobs wait |
//! | I19 | shared slots | runs at once of all groups of a process that share slots, and that all are free at the end |

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "tests say what is wrong by failing"
)]

mod checks;
mod closing;
mod ledger;
mod limits;
mod mutants;
mod network;
mod plan;
mod process;
mod state;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::plan::Plan;
use crate::world::{Outcome, simulate};

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Says what is broken, under which seed, and what led there.
fn explain(seed: u64, outcome: &Outcome) -> Option<String> {
    let failure = outcome.failure.as_ref()?;
    let tail = outcome.history.len().saturating_sub(120);
    let history = outcome.history[tail..].join("\n");
    Some(format!("{history}\nseed {seed} breaks {failure}\nagain: SIM_SEED={seed}"))
}

#[test]
fn every_promise_holds_under_every_seed() {
    if let Some(seed) = setting("SIM_SEED") {
        let plan = Plan::of(seed);
        println!("{plan:?}");
        let outcome = simulate(plan);
        println!("{}", outcome.history.join("\n"));
        assert!(outcome.failure.is_none(), "{}", explain(seed, &outcome).unwrap());
        return;
    }
    let seeds = setting("SIM_SEEDS").unwrap_or(400);
    let first = setting("SIM_FIRST").unwrap_or(0);
    let next = AtomicU64::new(first);
    let (next, began) = (&next, Instant::now());
    let work = move || {
        let mut sum = (Duration::ZERO, 0, 0, 0);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                return Ok(sum);
            }
            let outcome = simulate(Plan::of(seed));
            if let Some(failure) = explain(seed, &outcome) {
                next.store(u64::MAX / 2, Ordering::Relaxed);
                return Err(failure);
            }
            sum.0 += outcome.simulated;
            sum.1 += outcome.steps;
            sum.2 += outcome.runs;
            sum.3 += outcome.overlaps;
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(2);
    let sums = thread::scope(|scope| {
        let threads = (0..threads).map(|_| scope.spawn(work)).collect::<Vec<_>>();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let mut whole = (Duration::ZERO, 0, 0, 0);
    for sum in sums {
        let sum = sum.unwrap_or_else(|failure| panic!("{failure}"));
        whole = (whole.0 + sum.0, whole.1 + sum.1, whole.2 + sum.2, whole.3 + sum.3);
    }
    let (simulated, steps, runs, overlaps) = whole;
    let (took, hours) = (began.elapsed(), simulated.as_secs_f64() / 3600.0);
    let ratio = simulated.as_secs_f64() / took.as_secs_f64();
    println!(
        "{seeds} seeds in {took:.1?}: {hours:.1} h simulated, {ratio:.0} to 1; {steps} steps, {runs} \
         runs, {overlaps} overlaps explained by a fault"
    );
}

#[test]
fn a_seed_gives_the_same_history_again() {
    for seed in 0..40 {
        let (one, two) = (simulate(Plan::of(seed)), simulate(Plan::of(seed)));
        let parts = one.history.iter().zip(&two.history).find(|(one, two)| one != two);
        assert_eq!(parts, None, "seed {seed}");
        assert_eq!(one, two, "seed {seed}");
    }
}
