//! Processes that are started, watched and ended.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use streamjobs_tests::eventually::{eventually, eventually_async};
use streamjobs_tests::process::{Worker, is_running};

use super::DEADLINE;

#[test]
fn lines_are_found_whenever_they_were_printed() {
    let worker = shell("echo one; echo two; cat");
    assert_eq!(worker.wait_for(|line| line.starts_with("tw"), DEADLINE), "two");
    assert_eq!(worker.wait_for(|line| line == "one", DEADLINE), "one");
    assert_eq!(worker.lines(), ["one", "two"]);
    assert_eq!(worker.find(|line| line == "three"), None);
}

#[tokio::test]
async fn lines_are_awaited_without_blocking() {
    let worker = shell("echo one; cat");
    eventually_async(DEADLINE, "it prints", async || worker.find(|l| l == "one").is_some()).await;
}

#[test]
#[should_panic(expected = "ended without the line: it printed [\n    \"one\",\n]")]
fn waiting_for_a_line_ends_with_the_process() {
    shell("echo one").wait_for(|line| line == "two", DEADLINE);
}

#[test]
#[should_panic(expected = "did not print it: it printed []")]
fn waiting_for_a_line_has_a_deadline() {
    shell("cat").wait_for(|line| line == "two", Duration::from_millis(20));
}

#[test]
fn arguments_and_environment_reach_the_process() {
    let builder = Worker::builder("/bin/sh").arg("-c").arg("echo $1 $NAME; cat");
    let worker = builder.arg("sh").arg("word").env("NAME", "value").start().unwrap();
    worker.wait_for(|line| line == "word value", DEADLINE);
}

#[test]
fn killed_process_is_gone() {
    let mut worker = shell("cat");
    let pid = worker.pid();
    worker.freeze();
    worker.kill();
    assert!(!is_running(pid));
    assert_eq!(worker.wait(DEADLINE).signal(), Some(9));
}

#[test]
fn dropped_process_is_gone() {
    let worker = shell("cat");
    let pid = worker.pid();
    assert!(is_running(pid));
    drop(worker);
    assert!(!is_running(pid));
}

#[test]
fn terminated_process_may_clean_up() {
    let mut worker = shell("trap 'echo bye; exit 7' TERM; echo ready; while :; do read -r x; done");
    worker.wait_for(|line| line == "ready", DEADLINE);
    worker.terminate();
    worker.wait_for(|line| line == "bye", DEADLINE);
    assert_eq!(worker.wait(DEADLINE).code(), Some(7));
}

/// Frozen, it does not even end when asked to; thawed, it does.
#[test]
fn frozen_process_acts_once_thawed() {
    let mut worker = shell("trap 'echo bye; exit 7' TERM; echo ready; while :; do read -r x; done");
    worker.wait_for(|line| line == "ready", DEADLINE);
    worker.freeze();
    worker.terminate();
    assert_eq!(worker.find(|line| line == "bye"), None);
    assert!(is_running(worker.pid()));
    worker.thaw();
    worker.wait_for(|line| line == "bye", DEADLINE);
    worker.wait(DEADLINE);
}

/// The helper starts a process of that kind, prints its id, and aborts.
#[test]
fn process_that_asks_for_it_ends_with_its_parent() {
    let helper = Command::new(env!("CARGO_BIN_EXE_abandon")).arg("worker").output().unwrap();
    assert_eq!(helper.status.code(), None, "it did not abort: {helper:?}");
    let pid = String::from_utf8(helper.stdout).unwrap().trim().parse().unwrap();
    eventually(DEADLINE, "it ends", || !is_running(pid));
}

fn shell(script: &str) -> Worker {
    Worker::builder("/bin/sh").arg("-c").arg(script).start().unwrap()
}
