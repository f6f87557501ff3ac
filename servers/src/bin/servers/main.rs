//! Runs the tests that need a Redis against every server that is available: `cargo servers`.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test program reports by its output and its end"
)]

mod find;
mod provide;
mod suite;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, io};

use self::find::Server;
use self::suite::Run;

/// The servers that the library promises to work on, as `Server::is` understands them.
const WANTED: [&str; 7] =
    ["Redis 7.0", "Redis 7.2", "Redis 7.4", "Redis 8.2", "Redis 8.10", "Valkey 8", "Valkey 9"];

const HELP: &str = "\
usage: cargo servers [--list] [--offline] [--only KIND-AND-VERSION] [-- WORDS FOR CARGO TEST]

Finds every redis-server and valkey-server in PATH, in well-known folders and among the paths of
STREAMJOBS_SERVERS (path:path), fetches those that are wanted and missing, and runs the tests on each.

  --list      only says which servers there are and which are missing
  --offline   fetches nothing
  --only      only servers whose name contains this, such as `Valkey` or `7.2`; may be repeated
  --          what `cargo test` is given instead of the whole suite, such as `-p streamjobs-tests \
--test redis`";

/// A wanted server that is not available, and why.
type Missing = (&'static str, String);

/// The options of the command line.
#[derive(Debug, Default)]
struct Asked {
    list: bool,
    offline: bool,
    only: Vec<String>,
    tests: Vec<String>,
}

impl Asked {
    /// Reads the command line; `None` if it is wrong or asks for help.
    fn read(words: impl Iterator<Item = String>) -> Option<Self> {
        let mut asked = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--list" => asked.list = true,
                "--offline" => asked.offline = true,
                "--only" => asked.only.push(words.next()?),
                "--" => asked.tests = words.by_ref().collect(),
                _ => return None,
            }
        }
        Some(asked)
    }

    fn covers(&self, server: &Server) -> bool {
        let name = server.to_string();
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part))
    }
}

fn main() -> io::Result<ExitCode> {
    let Some(asked) = Asked::read(env::args().skip(1)) else {
        println!("{HELP}");
        return Ok(ExitCode::from(2));
    };
    let (servers, missing) = gather(&asked)?;
    println!("\nservers:");
    for server in &servers {
        println!("  {server:<14} {}", server.program.display());
    }
    for (wanted, reason) in &missing {
        println!("  {wanted:<14} missing: {reason}");
    }
    if asked.list {
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = servers.iter().filter(|server| asked.covers(server)).collect::<Vec<_>>();
    if chosen.is_empty() {
        println!("\nthere is no server to test on");
        return Ok(ExitCode::FAILURE);
    }
    suite::build(&root(), &asked.tests)?;
    let mut runs = Vec::new();
    for server in chosen {
        println!("\n== {server}");
        let run = suite::run(&root(), server, &asked.tests)?;
        println!("{}", run.line());
        runs.push(run);
    }
    summarise(&runs, &missing);
    Ok(match runs.iter().all(Run::passed) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// All available servers, and the wanted ones that are missing, each with its reason.
fn gather(asked: &Asked) -> io::Result<(Vec<Server>, Vec<Missing>)> {
    let kept = root().join("target/servers");
    let mut servers = find::all();
    let mut missing = Vec::new();
    for wanted in WANTED {
        if servers.iter().any(|server| server.is(wanted)) {
            continue;
        }
        let answer = match asked.offline {
            true => provide::kept(wanted, &kept),
            false => provide::fetch(wanted, &kept),
        };
        match answer.and_then(|program| Server::ask(&program)) {
            Ok(server) if server.is(wanted) => servers.push(server),
            Ok(server) => missing.push((wanted, format!("what was fetched for it is {server}"))),
            Err(reason) => missing.push((wanted, reason)),
        }
    }
    servers.sort_by(|one, other| one.order().cmp(&other.order()));
    servers.dedup_by(|one, other| one.order() == other.order());
    Ok((servers, missing))
}

fn summarise(runs: &[Run], missing: &[Missing]) {
    println!("\n| Server | Passed | Failed | Seconds |\n|---|---|---|---|");
    for run in runs {
        println!("| {} | {} | {} | {} |", run.server, run.passed, run.failed, run.seconds);
    }
    for (wanted, reason) in missing {
        println!("| {wanted} | missing | | {reason} |");
    }
    for run in runs.iter().filter(|run| !run.passed()) {
        println!("\n{} failed; all it printed is in {}", run.server, run.log.display());
        run.failures.iter().for_each(|name| println!("  {name}"));
    }
}

/// The workspace's own folder.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_understood_or_refused() {
        let read = |text: &str| Asked::read(text.split_whitespace().map(str::to_owned));
        let asked = read("--offline --only Valkey -- --test redis --list").unwrap();
        assert!(asked.offline && !asked.list);
        assert_eq!((asked.only, asked.tests.len()), (vec!["Valkey".to_owned()], 3));
        assert!(read("--only").is_none() && read("--every").is_none());
    }
}
