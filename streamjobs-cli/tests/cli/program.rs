//! Runs the program and keeps its output.

use std::process::{Command, Stdio};

use serde_json::Value;
use streamjobs_tests::server::RedisServer;

/// The output and the exit code of a run.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// A command that starts the program.
pub fn program(url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamjobs"));
    command.env("STREAMJOBS_URL", url).stdin(Stdio::null());
    command
}

/// Runs the program to its end, with the words of a line as its arguments.
pub fn run_at(url: &str, line: &str) -> Ran {
    let output = program(url).args(line.split_whitespace()).output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

pub fn run(server: &RedisServer, line: &str) -> Ran {
    run_at(&server.url(), line)
}

impl Ran {
    /// The single document that was printed.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}
