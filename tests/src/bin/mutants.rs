//! Seeds one bug at a time and sees that a test notices: `cargo mutants`, or `cargo mutants <name>`.
//!
//! A test that cannot fail proves nothing. Every seeded bug is one that systems of this kind have had;
//! each is given to the test that is there to notice it, and which has to fail for the reason named.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test program reports by its output and its end"
)]

use std::env;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use streamjobs::__proof::Mutant;

/// What is there to notice a bug.
struct Guard {
    target: &'static str,
    test: &'static str,
    /// A cell of the crash grid, where it is one.
    cell: Option<&'static str>,
    /// What its failure says.
    says: &'static str,
}

const fn cell(cell: &'static str, says: &'static str) -> Guard {
    let test = "a_process_may_end_at_any_fail_point_and_nothing_is_lost_or_done_twice";
    Guard { target: "grid", test, cell: Some(cell), says }
}

const fn test(target: &'static str, test: &'static str, says: &'static str) -> Guard {
    Guard { target, test, cell: None, says }
}

fn guard(mutant: Mutant) -> Guard {
    match mutant {
        Mutant::AckBeforeRun => cell("handler.before-Kill", "\"lost\""),
        Mutant::AckOnError => cell("handler.before-Kill", "\"lost\""),
        Mutant::UnfencedRenew => {
            test("redis", "conformance::a_renewal_by_another_attempt_is_refused", "assertion")
        }
        Mutant::CountedRenew => {
            test("redis", "lease::renewals_do_not_raise_the_delivery_count", "ten renewals")
        }
        Mutant::UnfencedSettle => test(
            "redis",
            "conformance::a_dead_lettered_job_is_stored_whole_and_acknowledged",
            "assertion",
        ),
        Mutant::CursorStays => {
            test("redis", "reap::an_old_entry_behind_twenty_thousand_fresh_ones_is_found", "still")
        }
        Mutant::ReadDropped => test(
            "redis",
            "network::what_a_read_brings_after_a_stop_is_released_at_once",
            "the stop has come to the reader",
        ),
        Mutant::GroupAtEnd => {
            test("redis", "conformance::a_destroyed_group_is_recreated_at_its_floor", "assertion")
        }
        Mutant::RetireUnchecked => {
            test("redis", "groups::a_consumer_with_pending_entries_is_never_removed", "pending")
        }
        Mutant::DeadAckedFirst => cell("dead.before_store-Kill", "\"letters\""),
        Mutant::SweepUntimed => test("loops", "a_moved_clock_steals_nothing", "assertion"),
        Mutant::GuardApart => cell("guard.after_insert-Kill", "\"lost\""),
        Mutant::GuardByEntry => test(
            "postgres",
            "once::an_event_whose_publishing_was_unconfirmed_has_one_effect_when_published_again",
            "assertion",
        ),
        Mutant::GuardUnforced => test(
            "postgres",
            "durability::a_guarded_commit_waits_for_the_disk_whatever_the_session_says",
            "assertion",
        ),
        Mutant::UndecodableSkipped => test(
            "redis",
            "poison::what_cannot_be_decoded_is_dead_lettered_at_first_sight_with_its_bytes",
            "still",
        ),
        // Retries begin with a count of one again and again: jobs that always fail are never done with.
        Mutant::AttemptsByDeliveries => cell("handler.before-Kill", "everything is settled"),
        Mutant::TrimOnAdd => cell("handler.before-Kill", "\"lost\""),
        Mutant::TrimmedIgnored => test(
            "redis",
            "poison::a_payload_trimmed_under_a_dead_process_is_reported_as_unknown",
            "still",
        ),
        Mutant::RenewalsStarve => test(
            "redis",
            "lease::handlers_that_block_every_worker_thread_lose_no_lease",
            "assertion",
        ),
    }
}

fn main() -> ExitCode {
    let wanted = env::args().nth(1);
    let chosen = |mutant: &Mutant| wanted.as_ref().is_none_or(|name| name == mutant.name());
    let mutants = Mutant::ALL.iter().copied().filter(chosen).collect::<Vec<_>>();
    if mutants.is_empty() {
        println!("there is no such mutant: {}", wanted.unwrap_or_default());
        return ExitCode::from(2);
    }
    let mut caught = 0;
    for mutant in &mutants {
        let guard = guard(*mutant);
        let begin = Instant::now();
        let (sound, text) = run(&guard, None);
        if !sound {
            println!("{:22} its test fails without it: {text}", mutant.name());
            continue;
        }
        let (survived, text) = run(&guard, Some(*mutant));
        let named = text.contains(guard.says);
        let verdict = match (survived, named) {
            (true, _) => "SURVIVED",
            (false, false) => "FAILED FOR ANOTHER REASON",
            (false, true) => {
                caught += 1;
                "caught"
            }
        };
        let by = guard.cell.unwrap_or(guard.test);
        println!("{:22} {verdict} by {by} in {:.1?}", mutant.name(), begin.elapsed());
        if !named && !survived {
            println!("{text}");
        }
    }
    println!("mutants caught: {caught} of {}", mutants.len());
    if caught == mutants.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a guard in a build that can have bugs: whether it passed, and what it printed.
fn run(guard: &Guard, mutant: Option<Mutant>) -> (bool, String) {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["test", "--quiet", "--package", "streamjobs-tests", "--test", guard.target])
        // A folder of its own: a build with bugs must not be taken for another.
        .args(["--target-dir", concat!(env!("CARGO_MANIFEST_DIR"), "/../target/mutants")])
        .args(["--", "--exact", guard.test, "--nocapture"])
        .env("RUSTFLAGS", "--cfg streamjobs_mutants")
        .env_remove("STREAMJOBS_MUTANT")
        .stdin(Stdio::null());
    if let Some(cell) = guard.cell {
        command.env("GRID_CELL", cell);
    }
    if let Some(mutant) = mutant {
        command.env("STREAMJOBS_MUTANT", mutant.name());
    }
    let output = command.output().expect("cargo runs");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // One test has run: a name that nothing has any more would pass and prove nothing.
    let ran = text.contains("1 passed") || text.contains("1 failed");
    (output.status.success() && ran, text.into_owned())
}
