//! The small examples, run as a user runs them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "tests say what is wrong by failing"
)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use streamjobs_tests::process::Worker;
use streamjobs_tests::server::RedisServer;

const WITHIN: Duration = Duration::from_secs(30);

const AXUM_APP: [(&str, &str); 2] =
    [("ADDRESS", "127.0.0.1:0"), ("DASHBOARD_PASSWORD", "a long random text")];

fn start(program: &str, server: &RedisServer, more: &[(&str, &str)]) -> Worker {
    let mut builder = Worker::builder(program).env("REDIS_URL", server.url());
    for (name, value) in more {
        builder = builder.env(name, value);
    }
    builder.start().unwrap()
}

/// Asks it to end, and checks that it ended well and left no job.
fn stop(mut program: Worker) {
    program.terminate();
    program.wait_for(|line| line.contains("0 released, 0 abandoned"), WITHIN);
    assert!(program.wait(WITHIN).success(), "{program:?}");
}

#[test]
fn the_first_example_of_the_readme_mails_and_stops_at_ctrl_c() {
    let server = RedisServer::start().unwrap();
    let mut program = start(env!("CARGO_BIN_EXE_first"), &server, &[]);
    program.wait_for(|line| line == "alice: your order o-1 was placed", WITHIN);
    program.interrupt();
    program.wait_for(|line| line.contains("abandoned: []"), WITHIN);
    assert!(program.wait(WITHIN).success(), "{program:?}");
}

#[test]
fn the_readme_prints_the_first_example_as_it_is_run() {
    let run = include_str!("../src/bin/first.rs").split("// readme: begin\n").nth(1).unwrap();
    let run = run.split("// readme: end").next().unwrap();
    assert_eq!(bare(first_of_the_readme()), bare(run));
}

#[test]
fn the_readme_needs_ten_lines_for_the_job() {
    // What an application has in any case: imports, its mailer, the frame of `main`.
    let frame = ["use ", "async fn main", "#[tokio::main]", "let url", "tokio::signal", "Ok(())"];
    let (job, rest) = first_of_the_readme().split_once("#[derive(Clone)]\nstruct Mailer;").unwrap();
    let (_, main) = rest.split_once("#[tokio::main]").unwrap();
    let lines = job.lines().chain(main.lines()).map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && *line != "}");
    let lines = lines.filter(|line| !frame.iter().any(|known| line.starts_with(known)));
    let lines = lines.collect::<Vec<_>>();
    assert!(lines.len() <= 10, "{lines:#?}");
}

fn first_of_the_readme() -> &'static str {
    let readme = include_str!("../../README.md");
    readme.split("```rust\n").nth(1).unwrap().split("```").next().unwrap()
}

/// The code without comments, white space and trailing commas, which are the formatter's.
fn bare(code: &str) -> String {
    let lines = code.lines().map(|line| line.split(" // ").next().unwrap_or_default());
    let lines = lines.map(|line| line.split("   //").next().unwrap_or_default());
    let dense = lines.flat_map(str::chars).filter(|letter| !letter.is_whitespace());
    dense.collect::<String>().replace(",}", "}").replace(",)", ")")
}

/// The status line of the answer to one request.
fn ask(address: &str, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WITHIN)).unwrap();
    let length = body.len();
    let kind = "content-type: application/json\r\nconnection: close";
    write!(
        stream,
        "{head} HTTP/1.1\r\nhost: x\r\n{kind}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn the_axum_application_accepts_a_user_mails_and_stops_cleanly() {
    let server = RedisServer::start().unwrap();
    let program = start(env!("CARGO_BIN_EXE_axum_app"), &server, &AXUM_APP);
    let line = program.wait_for(|line| line.starts_with("listening on "), WITHIN);
    let address = line.trim_start_matches("listening on ").to_owned();
    let answer = ask(&address, "POST /users", "{\"email\":\"alice@example.org\"}");
    assert_eq!(answer, "HTTP/1.1 202 Accepted");
    program.wait_for(|line| line == "welcome, alice@example.org", WITHIN);
    assert_eq!(ask(&address, "GET /ready", ""), "HTTP/1.1 200 OK");
    stop(program);
}

#[test]
fn programs_with_servers_of_their_own_end_well() {
    for (program, line) in [
        (env!("CARGO_BIN_EXE_quickstart"), "stopped, 0 jobs abandoned"),
        (env!("CARGO_BIN_EXE_own_extractor"), "o-1 placed, failed before: 0"),
        (env!("CARGO_BIN_EXE_once_per_id_effect"), "o-1 published 3 times, charged 1 time(s)"),
    ] {
        let mut program = Worker::builder(program).start().unwrap();
        program.wait_for(|printed| printed == line, 2 * WITHIN);
        assert!(program.wait(WITHIN).success(), "{program:?}");
    }
}

#[test]
fn a_busy_receiver_of_a_webhook_costs_no_attempt() {
    let program = Worker::builder(env!("CARGO_BIN_EXE_webhook")).start().unwrap();
    program.wait_for(|line| line == "with its event id: 429 Too Many Requests", WITHIN);
    program.wait_for(|line| line == "with its event id: 200 OK", WITHIN);
    program.wait_for(|line| line == "snoozed 1, failed 0", WITHIN);
}

#[test]
fn a_worker_runs_the_groups_of_its_environment_alone() {
    let server = RedisServer::start().unwrap();
    let settings = [("GROUPS", "billing"), ("BILLING_CONCURRENCY", "3"), ("GRACE_SECONDS", "5")];
    let program = start(env!("CARGO_BIN_EXE_job_worker"), &server, &settings);
    program.wait_for(|line| line == "3 jobs of billing at once", WITHIN);
    let order = ["XADD", "orders", "*", "type", "order.placed", "order_id", "o-1", "customer", "a"];
    server.command(&order);
    program.wait_for(|line| line == "charged o-1", WITHIN);
    assert!(program.find(|line| line.contains("mailed") || line.contains("notif")).is_none());
    stop(program);
}
