//! What the framework costs beside a hand-written loop over the `redis` crate.
//!
//! `cargo bench -p streamjobs-tests --bench speed`; `-- drain` for the scenarios whose name begins so,
//! `-- --rounds 3 --share 4` for fewer rounds and a fourth of the events, `-- --json file` for the
//! figures as JSON and `-- --plot file` for a picture of the ratios; `-- instructions` counts instructions
//! by valgrind and compares them with what is kept, and `--keep` keeps them. Both sides alternate on a private server; what counts is the ratio of their medians.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark reports on its output and fails by stopping"
)]

mod by_hand;
mod child;
mod instructions;
mod job;
mod latency;
mod limits;
mod meter;
mod ours;
mod partitions;
mod plot;
mod processes;
mod recovery;
mod release;
mod scale;
mod scheduled;
mod table;
mod wake;
mod work;

use std::alloc::System;
use std::process::ExitCode;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use self::table::Table;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What the command line says.
pub struct Settings {
    pub only: Option<String>,
    pub rounds: usize,
    /// One of so many events only.
    pub share: usize,
    /// Keeps the counts of instructions as what later ones are compared with.
    pub keep: bool,
    pub json: Option<String>,
    pub plot: Option<String>,
}

impl Settings {
    fn read() -> Self {
        let words = std::env::args().skip(1).filter(|word| word != "--bench").collect::<Vec<_>>();
        let after = |name: &str| {
            let place = words.iter().position(|word| word == name)?;
            words.get(place + 1).cloned()
        };
        let number = |name: &str| after(name).map(|text| text.parse().expect("a number"));
        Self {
            only: words.first().filter(|word| !word.starts_with("--")).cloned(),
            rounds: number("--rounds").unwrap_or(5),
            share: number("--share").unwrap_or(1),
            keep: words.iter().any(|word| word == "--keep"),
            json: after("--json"),
            plot: after("--plot"),
        }
    }

    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.starts_with(only.as_str()))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    if child::run().await {
        return ExitCode::SUCCESS;
    }
    let settings = Settings::read();
    println!("{}", table::machine());
    let mut table = Table::default();
    for scenario in work::SCENARIOS.iter().filter(|scenario| settings.wants(scenario.name)) {
        work::run(scenario, &settings, &mut table).await;
    }
    processes::run(&settings, &mut table).await;
    latency::run(&settings, &mut table).await;
    scale::run(&settings, &mut table).await;
    recovery::run(&settings, &mut table).await;
    wake::run(&settings, &mut table).await;
    wake::drains(&settings, &mut table).await;
    partitions::run(&settings, &mut table).await;
    release::run(&settings, &mut table).await;
    scheduled::run(&settings, &mut table).await;
    limits::run(&settings, &mut table).await;
    let fine = instructions::run(&settings, &mut table);
    if let Some(file) = &settings.json {
        std::fs::write(file, table.json()).expect("the file can be written");
    }
    if let Some(file) = &settings.plot {
        std::fs::write(file, plot::svg(table.rows())).expect("the file can be written");
    }
    if table.is_empty() {
        println!("no scenario begins with {:?}", settings.only.unwrap_or_default());
        return ExitCode::from(2);
    }
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
