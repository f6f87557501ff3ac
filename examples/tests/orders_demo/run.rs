//! How the demo starts and stops, and what it keeps.

use std::process::Command;

use streamjobs_tests::eventually::eventually;
use streamjobs_tests::postgres::PgServer;
use streamjobs_tests::server::RedisServer;

use crate::harness::{DEADLINE, Demo};

fn demo(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_demo")).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn invalid_flags_are_refused_by_name_before_anything_is_changed() {
    for (arguments, named) in [
        (["--host", "0.0.0.0"].as_slice(), "this machine only"),
        (&["--port", "x"], "--port"),
        (&["--surprise"], "--surprise"),
        (&["--claim-idle-ms", "1"], "--claim-idle-ms"),
        (&["--maxlen", "many"], "--maxlen"),
    ] {
        let (code, text) = demo(arguments);
        assert!(code == Some(2) && text.contains(named), "{code:?} {text}");
    }
    let (code, help) = demo(&["--help"]);
    assert_eq!(code, Some(0));
    for flag in
        ["--redis-url", "--redis-host", "--redis-port", "--stream-key", "--maxlen", "--reset"]
    {
        assert!(help.contains(flag), "{help}");
    }
}

#[test]
fn an_unreachable_server_is_reported_without_the_password() {
    let arguments = ["--port", "0", "--redis-url", "redis://user:canary@127.0.0.1:1/2"];
    let (code, text) = demo(&arguments);
    assert!(code == Some(1) && text.contains("the demo failed"), "{code:?} {text}");
    assert!(!text.contains("canary"), "{text}");
}

#[test]
fn it_prints_its_addresses_keeps_data_and_stops_cleanly_on_a_signal() {
    let server = RedisServer::start().unwrap();
    server.command(&["SET", "other", "kept"]);
    let place = server.url();
    let demo = Demo::start_on(server, &["--stream-key", "tried:orders", "--maxlen", "500"]);
    demo.process.wait_for(|line| line.contains("3 in this process, 2 in processes"), DEADLINE);
    let lines = demo.process.lines().join("\n");
    for words in ["kept 0 entries of earlier runs", "/jobs", &place, "tried:orders", "500 entries"]
    {
        assert!(lines.contains(words), "{lines}");
    }
    assert_eq!(demo.post("/produce", "count=20").json()["produced"], 20);
    demo.wait_until_done("notifications");
    demo.wait_until_done("analytics");
    let Demo { mut process, server, .. } = demo;
    process.terminate();
    process.wait_for(|line| line.starts_with("stopped: 0 jobs released, 0 abandoned"), DEADLINE);
    assert_eq!(process.wait(DEADLINE).code(), Some(0));
    assert_eq!(server.length("tried:orders"), 20);
    let again = Demo::start_on(server, &["--stream-key", "tried:orders"]);
    let lines = again.process.lines().join("\n");
    assert!(lines.contains("kept 20 entries of earlier runs"), "{lines}");
    let Demo { process, server, .. } = again;
    drop(process);
    let anew = Demo::start_on(server, &["--stream-key", "tried:orders", "--reset"]);
    let lines = anew.process.lines().join("\n");
    assert!(lines.contains("deleting the stream tried:orders"), "{lines}");
    assert_eq!(anew.server.length("tried:orders"), 0);
    assert_eq!(anew.server.query::<String>(&["GET", "other"]), "kept", "only its own keys");
}

#[test]
fn jobs_that_a_killed_demo_left_pending_are_done_by_the_next_one() {
    let demo = Demo::start(&["--claim-idle-ms", "1000"]);
    demo.post("/settings", "latency_ms=20000").json();
    demo.post("/produce", "count=10").json();
    let pending = || demo.group("notifications")["pending"] == 10;
    eventually(DEADLINE, "all are in flight", pending);
    let Demo { mut process, server, .. } = demo;
    process.kill();
    let next = Demo::start_on(server, &["--claim-idle-ms", "1000"]);
    let done = || next.group("notifications")["pending"] == 0;
    eventually(DEADLINE, "others have done it", done);
    assert_eq!(next.group("notifications")["backlog"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_archive_keeps_its_letters_from_one_run_to_the_next() {
    let database = PgServer::shared().database().await;
    let arguments = ["--archive-url", &database.owner_url()].map(str::to_owned);
    let runs = tokio::task::spawn_blocking(move || {
        let arguments = arguments.each_ref().map(String::as_str);
        let demo = Demo::start(&arguments);
        demo.post("/poison", "").json();
        let archived = |demo: &Demo| demo.get("/jobs/archive").text.contains("poison order");
        eventually(DEADLINE, "it is archived", || archived(&demo));
        let Demo { process, server, .. } = demo;
        drop(process);
        let again = Demo::start_on(server, &arguments);
        assert!(archived(&again), "it was there before");
        let shown = again.process.lines().join("\n");
        assert!(!shown.contains("postgres://"), "an address may hold a password: {shown}");
    });
    runs.await.unwrap();
}
