//! How many instructions of this process one job takes. That needs no idle machine, so it is kept
//! beside this file, and a run that takes more than that says so and fails.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::json;

use crate::child::Task;
use crate::table::Table;
use crate::work::server;
use crate::{Settings, by_hand};

/// What costs whatever is done: the difference between a long and a short run leaves it out.
const SHORT: usize = 2_000;
const LONG: usize = 12_000;
/// By how much a figure may differ from what is kept, in percent: threads take turns anew each time.
const TOLERANCE: f64 = 10.0;
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/speed/instructions.json");

type Scenario = (&'static str, fn(usize) -> Task);

const SCENARIOS: [Scenario; 7] = [
    ("drain, 100 in flight", |events| Task::Drain(events, 100)),
    ("drain, 1000 in flight", |events| Task::Drain(events, 1_000)),
    ("drain, 100 in flight, noted", |events| Task::DrainNoted(events, 100)),
    ("drain, 100 in flight, no trends", |events| Task::DrainUncharted(events, 100)),
    ("drain, each fails once", |events| Task::DrainFailing(events, 1_000)),
    ("publish batches of 500", Task::PublishBatches),
    ("publish one by one, 100 tasks", Task::Publish),
];

/// False if a scenario takes more than is kept.
pub fn run(settings: &Settings, table: &mut Table) -> bool {
    if !settings.wants("instructions") {
        return true;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        table.note("instructions", "not counted: valgrind is not here", json!(null));
        // Asked for alone, they have no answer.
        return settings.only.is_none();
    }
    let kept = std::fs::read_to_string(KEPT).unwrap_or_default();
    let mut kept = serde_json::from_str::<BTreeMap<String, u64>>(&kept).unwrap_or_default();
    let mut fine = true;
    for (name, task) in SCENARIOS {
        let each =
            (collected(task(LONG), LONG) - collected(task(SHORT), SHORT)) / (LONG - SHORT) as u64;
        let before = kept.get(name).copied();
        let more = before.map(|before| (each as f64 / before as f64 - 1.0) * 100.0);
        fine &= more.is_some_and(|more| more <= TOLERANCE);
        let beside = more.map_or("none are kept".to_owned(), |more| format!("{more:+.1} %"));
        let text = format!("{each} instructions, beside what is kept: {beside}");
        let figures = json!({ "instructions": each, "kept": before });
        table.note(&format!("instructions: {name}"), &text, figures);
        kept.insert(name.to_owned(), each);
    }
    if settings.keep {
        let text = serde_json::to_string_pretty(&kept).unwrap() + "\n";
        std::fs::write(KEPT, text).expect("the file can be written");
        return true;
    }
    if !fine {
        println!("  not within {TOLERANCE} % of what is kept in {KEPT}");
    }
    fine
}

/// The instructions of a child as valgrind counts them: those of the process, not of the kernel.
fn collected(task: Task, events: usize) -> u64 {
    let server = server(false);
    if !matches!(task, Task::Publish(..) | Task::PublishBatches(..)) {
        by_hand::fill(&server, events, 150);
    }
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    let output =
        command.arg(std::env::current_exe().unwrap()).args(task.words(&server)).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let line = told.lines().find_map(|line| line.split_once("Collected : ")).unwrap();
    line.1.trim().parse().unwrap()
}
