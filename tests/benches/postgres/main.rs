//! Benchmarks: guarded jobs compared with the same work by hand in sqlx, the archive, and the
//! outbox.
//!
//! `cargo bench -p streamjobs-tests --bench postgres`; `-- --jobs 5000 --rounds 3` for a shorter
//! run, `--fsync off` to not wait for the disk. Both sides alternate on the same private servers;
//! the result is the ratio of their medians.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark prints its results and fails by panicking"
)]

mod archive;
mod guard;
mod outbox;
mod place;

use streamjobs_tests::figures::{Pairs, percentiles, rate};

use self::guard::Care;
use self::place::Place;

struct Settings {
    jobs: usize,
    rounds: usize,
    letters: usize,
    events: usize,
    lags: usize,
    fsync: bool,
}

fn settings() -> Settings {
    let arguments = std::env::args().collect::<Vec<_>>();
    let after = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name)?;
        arguments.get(place + 1).cloned()
    };
    let number = |name: &str| after(name).and_then(|text| text.parse().ok());
    Settings {
        jobs: number("--jobs").unwrap_or(20_000),
        rounds: number("--rounds").unwrap_or(5),
        letters: number("--letters").unwrap_or(50_000),
        events: number("--events").unwrap_or(50_000),
        lags: number("--lags").unwrap_or(1_000),
        fsync: after("--fsync").as_deref() != Some("off"),
    }
}

#[tokio::main]
async fn main() {
    let settings = settings();
    let place = Place::start(settings.fsync).await;
    println!("jobs {}, rounds {}, fsync {}", settings.jobs, settings.rounds, settings.fsync);
    for (care, what) in [(Care::Same, "the same by hand"), (Care::Bare, "the minimum by hand")] {
        let mut guarded = Pairs::default();
        for round in 0..settings.rounds {
            // The side that goes first alternates.
            if round % 2 == 0 {
                let ours = guard::ours(&place, settings.jobs).await;
                guarded.push(ours, guard::by_hand(&place, settings.jobs, care).await);
            } else {
                let theirs = guard::by_hand(&place, settings.jobs, care).await;
                guarded.push(guard::ours(&place, settings.jobs).await, theirs);
            }
        }
        println!("{}", guarded.line(&format!("guarded jobs, {what}"), settings.jobs));
    }
    let mut batches = Pairs::default();
    for _ in 0..settings.rounds {
        let in_batches = guard::in_batches(&place, settings.jobs).await;
        batches.push(in_batches, guard::ours(&place, settings.jobs).await);
    }
    println!("{}", batches.line("guarded jobs in batches of 100, one by one", settings.jobs));
    let (mut archived, mut relayed, mut lags) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        archived.push(archive::move_letters(&place, settings.letters).await);
        relayed.push(outbox::relay(&place, settings.events).await);
        lags.extend(outbox::lags(&place, settings.lags).await);
    }
    println!("dead letters archived: {:.0}/s", rate(archived, settings.letters));
    println!("outbox events relayed: {:.0}/s", rate(relayed, settings.events));
    println!("commit to stream at 100/s: {}", percentiles(lags));
}
