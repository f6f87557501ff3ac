//! Seeds one bug at a time and checks that a test notices it: `cargo seeded-bugs [NAME]`.
//!
//! A test that cannot fail proves nothing. Each patch in `tests/mutants` is a bug that systems of this
//! kind have had; the test that the patch names has to fail and print what the patch says. Sources are
//! copied to `target/seeded-bugs` and changed there. `--check` only checks that every patch applies.

#![allow(clippy::print_stdout, reason = "a test program reports by its output and its end")]

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;
use std::{env, fs, io};

use streamjobs_tests::seeded::SeededBug;

fn main() -> io::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let wanted = env::args().nth(1);
    let mut bugs = SeededBug::all(&root)?;
    if wanted.as_deref() == Some("--check") {
        return Ok(check(&root, &bugs));
    }
    bugs.retain(|bug| wanted.as_ref().is_none_or(|name| *name == bug.name));
    if bugs.is_empty() {
        println!("there is no such seeded bug: {}", wanted.unwrap_or_default());
        return Ok(ExitCode::from(2));
    }
    let copy = root.join("target/seeded-bugs/tree");
    copy_sources(&root, &copy)?;
    let mut sound = HashSet::new();
    for bug in &bugs {
        if sound.insert((&bug.target, &bug.test, &bug.cell)) {
            let run = Run::of(bug, &copy)?;
            if !run.passed {
                println!("{}: its test fails without the bug:\n{}", bug.name, run.text);
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    let mut caught = 0;
    for bug in &bugs {
        caught += usize::from(is_caught(bug, &copy)?);
    }
    println!("seeded bugs caught: {caught} of {}", bugs.len());
    Ok(if caught == bugs.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether every patch applies to the sources.
fn check(root: &Path, bugs: &[SeededBug]) -> ExitCode {
    let mut failed = 0;
    for bug in bugs {
        if let Err(reason) = bug.check(root) {
            println!("{} does not apply: {reason}", bug.name);
            failed += 1;
        }
    }
    println!("seeded bugs that apply: {} of {}", bugs.len() - failed, bugs.len());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the guarding test on sources with the bug.
fn is_caught(bug: &SeededBug, copy: &Path) -> io::Result<bool> {
    let begin = Instant::now();
    bug.apply(copy).map_err(io::Error::other)?;
    let run = Run::of(bug, copy);
    bug.revert(copy).map_err(io::Error::other)?;
    let run = run?;
    let named = run.failed && run.text.contains(&bug.fails_with);
    let verdict = match (named, run.passed, run.failed) {
        (true, ..) => "caught",
        (_, true, _) => "SURVIVED",
        (_, _, true) => "FAILED FOR ANOTHER REASON",
        _ => "DID NOT RUN",
    };
    let by = bug.cell.as_ref().unwrap_or(&bug.test);
    println!("{:22} {verdict} by {by} in {:.1?}", bug.name, begin.elapsed());
    if !named && !run.passed {
        println!("{}", run.text);
    }
    Ok(named)
}

/// The outcome of one test.
struct Run {
    passed: bool,
    failed: bool,
    text: String,
}

impl Run {
    /// Builds and runs a bug's guarding test on the sources in `copy`, whatever these are.
    fn of(bug: &SeededBug, copy: &Path) -> io::Result<Self> {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .args(["test", "--quiet", "--package", "streamjobs-tests", "--test", &bug.target])
            .args(["--", "--exact", &bug.test, "--nocapture"])
            // A folder of its own, so that a build with a bug is not taken for a sound one.
            .env("CARGO_TARGET_DIR", copy.with_file_name("build"))
            .current_dir(copy)
            .stdin(Stdio::null());
        if let Some(cell) = &bug.cell {
            command.env("GRID_CELL", cell);
        }
        let output = command.output()?;
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        // One test has to run: a name that no test has would pass and prove nothing.
        let passed = output.status.success() && text.contains("1 passed");
        let failed = !output.status.success() && text.contains("1 failed");
        Ok(Self { passed, failed, text: text.into_owned() })
    }
}

/// Makes `copy` hold the sources of `root` as they are now, uncommitted changes included. A file that
/// has not changed keeps its modification time, so that it is not built again.
fn copy_sources(root: &Path, copy: &Path) -> io::Result<()> {
    let words = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").args(words).current_dir(root).output()?;
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = listed.split('\0').filter(|name| !name.is_empty() && root.join(name).is_file());
    let names = names.map(PathBuf::from).collect::<HashSet<_>>();
    if names.is_empty() {
        return Err(io::Error::other("git lists no sources here"));
    }
    for name in &names {
        let (from, to) = (fs::read(root.join(name))?, copy.join(name));
        if fs::read(&to).ok().as_ref() != Some(&from) {
            fs::create_dir_all(to.parent().unwrap_or(copy))?;
            // Copies the permissions too, which scripts need.
            fs::copy(root.join(name), &to)?;
        }
    }
    remove_others(copy, copy, &names)
}

/// Removes files below `folder` that `names` does not list.
fn remove_others(copy: &Path, folder: &Path, names: &HashSet<PathBuf>) -> io::Result<()> {
    for item in fs::read_dir(folder)? {
        let path = item?.path();
        if path.is_dir() {
            remove_others(copy, &path, names)?;
        } else if path.strip_prefix(copy).is_ok_and(|name| !names.contains(name)) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
