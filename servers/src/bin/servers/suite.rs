//! The tests, run on one server and counted.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{env, fs, io};

use crate::find::Server;

/// Which tests run: everything that starts a Redis of its own, except the demo's browser tests.
const SUITE: &str = "-p streamjobs-tests -p streamjobs-cli --test redis --test crash --test cli \
    --test dashboard --test postgres --test pages --test once_page";

/// The outcome of a run on one server.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) server: String,
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) failures: Vec<String>,
    pub(crate) seconds: u64,
    pub(crate) log: PathBuf,
    succeeded: bool,
}

impl Run {
    /// Whether every test passed and there was at least one.
    pub(crate) fn passed(&self) -> bool {
        self.succeeded && self.failed == 0 && self.passed > 0
    }

    pub(crate) fn line(&self) -> String {
        let Self { passed, failed, seconds, .. } = self;
        let ending = if self.passed() { "" } else { ", FAILED" };
        format!("{passed} passed, {failed} failed in {seconds} s{ending}")
    }
}

/// Builds the tests first, so that the time measured on a server is only that of the tests.
pub(crate) fn build(root: &Path, words: &[String]) -> io::Result<()> {
    match cargo_test(root, words).arg("--no-run").status()?.success() {
        true => Ok(()),
        false => Err(io::Error::other("the tests do not build")),
    }
}

/// Runs the tests on one server. Everything that they print is kept in a file.
pub(crate) fn run(root: &Path, server: &Server, words: &[String]) -> io::Result<Run> {
    let name = server.to_string();
    let log = root.join("target/servers").join(format!("{}.log", name.replace(' ', "-")));
    fs::create_dir_all(root.join("target/servers"))?;
    let file = fs::File::create(&log)?;
    let mut command = cargo_test(root, words);
    command.arg("--no-fail-fast").env("STREAMJOBS_REDIS_SERVER", &server.program);
    // Otherwise a server of the user would be tested instead.
    command.env_remove("REDIS_URL").stdout(file.try_clone()?).stderr(file);
    let began = Instant::now();
    let succeeded = command.status()?.success();
    let (passed, failed, failures) = counted(&fs::read_to_string(&log)?);
    let seconds = began.elapsed().as_secs();
    Ok(Run { server: name, passed, failed, failures, seconds, log, succeeded })
}

fn cargo_test(root: &Path, words: &[String]) -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.arg("test").current_dir(root).stdin(Stdio::null());
    match words {
        [] => command.args(SUITE.split_whitespace()),
        words => command.args(words),
    };
    command
}

/// How many tests passed and failed according to what they printed, and the names of the failed
/// ones.
fn counted(text: &str) -> (u64, u64, Vec<String>) {
    let (mut passed, mut failed, mut failures) = (0, 0, Vec::new());
    for line in text.lines() {
        if let Some(result) = line.strip_prefix("test result: ") {
            let of = |what: &str| {
                let part = result.split([';', '.']).find(|part| part.ends_with(what));
                part.and_then(|part| part.split_whitespace().next()?.parse::<u64>().ok())
            };
            passed += of(" passed").unwrap_or(0);
            failed += of(" failed").unwrap_or(0);
        } else if let Some(name) =
            line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED"))
        {
            failures.push(name.to_owned());
        }
    }
    (passed, failed, failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_targets_are_added_up() {
        let text = "test a::b ... FAILED\ntest c ... ok\n\
            test result: FAILED. 7 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n\
            test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out\n";
        assert_eq!(counted(text), (12, 1, vec!["a::b".to_owned()]));
        assert_eq!(counted("no test at all"), (0, 0, vec![]));
    }
}
