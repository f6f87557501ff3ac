//! `--watch`, and colours.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use streamjobs_tests::server::RedisServer;

use crate::orders;
use crate::program::{program, run};

const DEADLINE: Duration = Duration::from_secs(20);

/// A program that runs until it is ended, and the lines that it prints.
pub struct Watching {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Watching {
    pub fn start(server: &RedisServer, line: &str) -> Self {
        let mut command = program(&server.url());
        command.args(line.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (send, lines) = std::sync::mpsc::sync_channel(1_000);
        let out = BufReader::new(child.stdout.take().unwrap());
        let errors = BufReader::new(child.stderr.take().unwrap());
        let other = send.clone();
        std::thread::spawn(move || {
            out.lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        std::thread::spawn(move || {
            errors.lines().map_while(Result::ok).try_for_each(|line| other.send(line))
        });
        Self { child, lines }
    }

    /// The next line that contains a text.
    #[track_caller]
    pub fn says(&self, text: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            match line {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(error) => panic!("{text}: {error}"),
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_command_runs_again_and_again_until_it_is_ended() {
    let server = orders::server();
    let mut watching = Watching::start(&server, "--watch=200ms groups orders");
    watching.says("every 200 ms, last at ");
    watching.says("billing");
    server.command(&["XGROUP", "CREATE", "orders", "added-meanwhile", "0"]);
    watching.says("added-meanwhile");
    assert!(!watching.says("every 200 ms").contains('\u{1b}'), "the output is no terminal");
    let pid = watching.child.id().to_string();
    // Where tests run in the background, programs ignore the interrupt of a terminal.
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let status = watching.child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
}

#[test]
fn a_round_that_fails_is_said_and_the_next_is_tried() {
    let server = orders::server();
    let watching = Watching::start(&server, "--watch=200ms info orders");
    watching.says("added in total");
    server.command(&["DEL", "orders"]);
    watching.says("streamjobs: there is no stream orders");
    server.command(&["XADD", "orders", "*", "type", "t", "data", "{}"]);
    watching.says("added in total");
}

#[test]
fn each_round_is_one_document_in_json() {
    let server = orders::server();
    let watching = Watching::start(&server, "--json --watch=200ms groups orders");
    for _ in 0..3 {
        let line = watching.lines.recv_timeout(DEADLINE).unwrap();
        assert!(line.starts_with('{') || line.starts_with('['), "{line}");
    }
}

#[test]
fn only_commands_that_read_can_be_watched() {
    let server = orders::server();
    for line in [
        "pause orders billing",
        "tail orders",
        "dead purge orders billing --all --yes",
        "completions bash",
    ] {
        let ran = run(&server, &format!("--watch {line}")).ended(2);
        assert!(ran.err.contains("--watch is for commands that only read"), "{ran:?}");
    }
    for pause in ["1ms", "2d", "x"] {
        let ran = run(&server, &format!("--watch={pause} info orders")).ended(2);
        assert!(ran.err.contains("expected a duration"), "{ran:?}");
    }
}

#[test]
fn text_is_coloured_when_it_is_asked_for_and_json_never() {
    let server = orders::server();
    orders::heartbeat(&server, "web-1");
    let plain = run(&server, "consumers orders billing").ended(0).out;
    assert!(!plain.contains('\u{1b}'), "{plain}");
    let coloured = run(&server, "--color always consumers orders billing").ended(0).out;
    assert!(coloured.starts_with("\u{1b}[1mCONSUMER"), "{coloured}");
    assert!(coloured.contains("\u{1b}[32malive"), "{coloured}");
    // The colours are all that differs.
    let mut text = coloured.clone();
    for sign in [1, 32, 33, 31, 0] {
        text = text.replace(&format!("\u{1b}[{sign}m"), "");
    }
    // Figures may differ, and with them the widths of columns.
    let columns = |text: &str| {
        let first = text.lines().next().unwrap();
        first.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(columns(&text), columns(&plain));
    let json = run(&server, "--color always --json consumers orders billing").ended(0).out;
    assert!(!json.contains('\u{1b}'), "{json}");
    let problems = run(&server, "--color always diagnose orders billing").ended(3).out;
    assert!(problems.contains("\u{1b}[33m") || problems.contains("\u{1b}[31m"), "{problems}");
}

/// What the program prints on a terminal that `script` makes, with this environment.
#[cfg(target_os = "linux")]
fn on_a_terminal(server: &RedisServer, environment: &[(&str, &str)]) -> String {
    let line = format!("{} groups orders", env!("CARGO_BIN_EXE_streamjobs"));
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).stdin(Stdio::null());
    command.env("STREAMJOBS_URL", server.url()).env("TERM", "xterm").env_remove("NO_COLOR");
    let output = command.envs(environment.iter().copied()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_terminal_has_colours_unless_its_user_wants_none() {
    let server = orders::server();
    let shown = on_a_terminal(&server, &[]);
    assert!(shown.contains("\u{1b}[1mGROUP"), "{shown}");
    for none in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let shown = on_a_terminal(&server, &[none]);
        assert!(shown.contains("GROUP") && !shown.contains('\u{1b}'), "{none:?}: {shown}");
    }
}
