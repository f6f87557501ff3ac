//! Commands that show streams, groups, consumers and pending entries.

use std::time::Duration;

use serde_json::json;
use streamjobs_tests::server::RedisServer;

use crate::orders::{heartbeat, heartbeat_with, read, server};
use crate::program::run;

#[test]
fn a_stream_is_shown_with_its_ends_and_a_missing_one_is_an_error() {
    let server = server();
    let ran = run(&server, "info orders").ended(0);
    assert!(ran.out.contains("entries            6\n"), "{ran:?}");
    assert!(ran.out.contains("first              1-0  1970-01-01 00:00:00Z\n"), "{ran:?}");
    let document = run(&server, "info orders --json").ended(0).json();
    let fields = (&document["length"], &document["last"], &document["groups"]);
    assert_eq!(fields, (&json!(6), &json!("6-0"), &json!(1)));
    for command in ["info nothing", "groups nothing", "replay nothing"] {
        let missing = run(&server, command).ended(1);
        assert_eq!(
            (&*missing.out, &*missing.err),
            ("", "streamjobs: there is no stream nothing\n")
        );
    }
}

#[test]
fn unknown_values_of_groups_are_shown_as_unknown() {
    let server = server();
    let ran = run(&server, "groups orders").ended(0);
    let lines = ran.out.lines().collect::<Vec<_>>();
    assert_eq!(lines.len(), 2, "{ran:?}");
    let cells = lines[1].split("  ").map(str::trim).filter(|cell| !cell.is_empty());
    let cells = cells.collect::<Vec<_>>();
    assert_eq!((cells[0], cells[1], cells[2], cells[4]), ("billing", "3", "3", "3"), "{ran:?}");
    assert_eq!(cells[6..], ["0", "0", "0", "0", "-"], "{ran:?}");
    // After a deletion in the middle of the stream, the server does not know the lag.
    server.command(&["XDEL", "orders", "5-0"]);
    server.command(&["SET", "{orders}:dead:billing", "no stream"]);
    let ran = run(&server, "groups orders").ended(0);
    assert_eq!(ran.out.matches("unknown").count(), 2, "{ran:?}");
    let document = run(&server, "groups orders --json").ended(0).json();
    let group = &document["groups"][0];
    assert_eq!((&group["backlog"], &group["backlog_exact"]), (&json!(2), &json!(true)));
    assert!(group["lag"].is_null() && group["dead_letters"].is_null(), "{group}");
    assert_eq!((&group["pending"], &group["cursor"]), (&json!(3), &json!("3-0")));
}

#[test]
fn a_backlog_that_cannot_be_counted_says_at_least() {
    let server = server();
    let words = ["EVAL", "for i = 1, 1500 do redis.call('XADD', KEYS[1], '*', 'f', i) end", "1"];
    server.command(&[&words[..], &["orders"]].concat());
    server.command(&["XDEL", "orders", "5-0"]);
    let ran = run(&server, "groups orders").ended(0);
    assert!(ran.out.contains("at least 1000"), "{ran:?}");
    let document = run(&server, "groups orders --json").json();
    assert_eq!(document["groups"][0]["backlog_exact"], false);
}

#[test]
fn consumers_are_shown_with_their_heartbeats() {
    let server = server();
    read(&server, "other", 1);
    heartbeat(&server, "web-1");
    let ran = run(&server, "consumers orders billing").ended(0);
    let lines = ran.out.lines().collect::<Vec<_>>();
    assert!(lines[1].starts_with("other     unknown  1 "), "{ran:?}");
    assert!(lines[2].starts_with("web-1     alive    3        2          16 "), "{ran:?}");
    assert!(lines[2].contains("a\\u{1b}[1m") && lines[2].ends_with("2025-11-24 16:00:00Z"));
    let document = run(&server, "consumers orders billing --json").ended(0).json();
    let web = &document["consumers"][1];
    assert_eq!((&web["state"], &web["process"]), (&json!("alive"), &json!(7)));
    assert!(document["consumers"][0]["in_flight"].is_null(), "{document}");
    assert!(web["done"].is_null(), "an older version does not count: {document}");
}

#[test]
fn consumers_are_shown_with_the_slots_that_they_share() {
    let server = server();
    read(&server, "other", 1);
    let shared = json!({ "set": "mail", "weight": 5, "slots": 20, "in_use": 19 });
    heartbeat_with(&server, "web-1", &format!(",\"shared\":{shared}"));
    let document = run(&server, "consumers orders billing --json").ended(0).json();
    let consumers = document["consumers"].as_array().unwrap();
    assert_eq!(consumers[1]["shared_slots"], shared);
    assert!(consumers[0]["shared_slots"].is_null(), "{document}");
}

#[test]
fn consumers_are_shown_with_their_counters() {
    let server = server();
    heartbeat_with(&server, "web-1", ",\"done\":70,\"failed\":8,\"claimed\":9");
    let ran = run(&server, "consumers orders billing").ended(0);
    let lines = ran.out.lines().collect::<Vec<_>>();
    assert!(lines[0].contains("  SLOTS  DONE  FAILED  CLAIMED  "), "{ran:?}");
    assert!(lines[1].contains("  16     70    8       9        "), "{ran:?}");
    let document = run(&server, "consumers orders billing --json").ended(0).json();
    let web = &document["consumers"][0];
    let counters = (&web["done"], &web["failed"], &web["claimed"]);
    assert_eq!(counters, (&json!(70), &json!(8), &json!(9)));
}

#[test]
fn pending_entries_are_filtered_and_continue_after_the_last_one_shown() {
    let server = server();
    server.age("orders", "billing", "2-0", Duration::from_secs(7_260));
    let ran = run(&server, "pending orders billing --idle-min 2h").ended(0);
    let lines = ran.out.lines().collect::<Vec<_>>();
    assert!(lines.len() == 2 && lines[1].starts_with("2-0  web-1     2h 1m"), "{ran:?}");
    let cut = run(&server, "pending orders billing --limit 2").ended(0);
    assert_eq!((cut.out.lines().count(), cut.err.trim()), (3, "more results: --after 2-0"));
    let rest = run(&server, "pending orders billing --after 2-0 --json").ended(0).json();
    let (entries, more) = (rest["entries"].as_array().unwrap(), &rest["more_after"]);
    assert_eq!((entries.len(), &entries[0]["id"], more), (1, &json!("3-0"), &json!(null)));
    server.command(&["XCLAIM", "orders", "billing", "web-2", "0", "3-0"]);
    let of = |filter| run(&server, &format!("pending orders billing {filter} --json")).json();
    assert_eq!(of("--consumer web-2")["entries"][0]["id"], "3-0");
    let often = of("--deliveries-min 2");
    assert_eq!(often["entries"].as_array().unwrap().len(), 1, "{often}");
    assert_eq!(of("--lane")["entries"], json!([]), "no lane yet");
    let missing = run(&server, "pending orders missing --lane").ended(1);
    assert_eq!(missing.err, "streamjobs: stream orders has no group missing\n");
}

#[test]
fn the_progress_of_a_running_job_is_shown_with_its_age() {
    let server = server();
    let key = "{orders}:progress:billing";
    let at = server.query::<Vec<String>>(&["TIME"])[0].parse::<u64>().unwrap() - 60;
    let stored = format!("{at}000 1 web-1\n3 10 pages are written");
    server.command(&["HSET", key, "stream:2-0", &stored, "stream:3-0", "unreadable"]);
    let ran = run(&server, "pending orders billing").ended(0);
    let lines = ran.out.lines().collect::<Vec<_>>();
    assert!(lines[0].ends_with("PROGRESS"), "{ran:?}");
    assert!(lines[2].contains("3/10 pages are written (1m"), "{ran:?}");
    let document = run(&server, "pending orders billing --json").ended(0).json();
    let progress = &document["entries"][1]["progress"];
    assert_eq!((&progress["done"], &progress["of"]), (&json!(3), &json!(10)));
    assert_eq!(progress["text"], "pages are written");
    assert!(progress["age_ms"].as_u64().unwrap() >= 60_000, "{document}");
    assert!(document["entries"][2]["progress"].is_null(), "{document}");
}

#[test]
fn a_group_without_problems_is_healthy_and_one_with_a_problem_ends_with_three() {
    let server = RedisServer::start().unwrap();
    let _ = run(&server, "group create orders billing").ended(0);
    let healthy = run(&server, "diagnose orders billing").ended(0);
    assert_eq!(healthy.out, "group billing on stream orders is healthy\n");
    assert_eq!(run(&server, "diagnose orders billing --json").ended(0).json()["healthy"], true);
    server.command(&["XADD", "orders", "*", "type", "order.placed"]);
    let unhealthy = run(&server, "diagnose orders billing").ended(3);
    assert!(unhealthy.out.contains("no consumer"), "{unhealthy:?}");
    let document = run(&server, "diagnose orders billing --json").ended(3).json();
    assert_eq!(document["problems"][0]["problem"], "stalled");
}

#[test]
fn a_group_whose_jobs_fail_is_not_healthy_and_the_error_is_said() {
    let server = RedisServer::start().unwrap();
    let _ = run(&server, "group create orders billing").ended(0);
    heartbeat_with(&server, "web-1", ",\"recent_done\":0,\"recent_failed\":60");
    let letter = ["sj-dead-reason", "rejected", "sj-dead-error", "no such card"];
    let dead = ["XADD", "{orders}:dead:billing", "*"];
    server.command(&[&dead[..], &letter[..]].concat());
    server.command(&["XGROUP", "CREATECONSUMER", "orders", "billing", "web-1"]);
    let ran = run(&server, "diagnose orders billing").ended(3);
    let failing =
        "60 of 60 attempts of the last five minutes failed, with the error: no such card;";
    assert!(ran.out.starts_with(failing), "{ran:?}");
    assert!(ran.out.contains("\n1 dead letters were stored within the last hour"), "{ran:?}");
    let document = run(&server, "diagnose orders billing --json").ended(3).json();
    let problems = document["problems"].as_array().unwrap().iter();
    let problems = problems.map(|problem| (&problem["problem"], &problem["severity"]));
    let expected = [("failing", "critical"), ("dead_letters", "warning")];
    let expected = expected.map(|(problem, severity)| (json!(problem), json!(severity)));
    assert!(problems.eq(expected.iter().map(|(problem, severity)| (problem, severity))));
}

/// The first entry is pending, with the only place of its key, for which two jobs wait.
#[test]
fn the_job_for_which_a_key_waits_is_named() {
    let server = server();
    let limits = "1 at once for each key, kept by retries";
    heartbeat_with(&server, "web-1", &format!(",\"limits\":\"{limits}\""));
    server.command(&["HSET", "{orders}:holds:billing", "s:1-0", "alice"]);
    for number in ["alice:1", "alice:2"] {
        server.command(&["ZADD", "{orders}:lines:billing", "0", number]);
    }
    server.command(&["ZADD", "{orders}:turns:billing", "2", "alice"]);
    let ran = run(&server, "diagnose orders billing").ended(3);
    let said = format!(
        "no more jobs run, because of the limit: {limits}; 2 jobs wait for their key, 2 of them for alice, whose job of \
         entry 1-0 runs in web-1 and has had its place for "
    );
    assert!(ran.out.contains(&said), "{ran:?}");
    let document = run(&server, "diagnose orders billing --json").ended(3).json();
    let problems = document["problems"].as_array().unwrap();
    let waits_for = problems.iter().map(|problem| (&problem["problem"], &problem["waits_for"]));
    let waits_for = waits_for.filter(|(_, line)| !line.is_null()).collect::<Vec<_>>();
    let [(problem, line)] = waits_for[..] else { panic!("{document}") };
    assert_eq!(*problem, "limit_reached");
    assert_eq!((&line["key"], &line["jobs"]), (&json!("alice"), &json!(2)));
    let (job, all) = (&line["job"], (&line["places_looked_at"], &line["all_looked_at"]));
    assert_eq!(all, (&json!(1), &json!(true)));
    assert_eq!((&job["entry"], &job["event_id"]), (&json!("1-0"), &json!(null)));
    assert_eq!((&job["state"], &job["consumer"]), (&json!("pending"), &json!("web-1")));
    assert!(job["idle_ms"].is_u64() && job["since_ms"].is_u64(), "{job}");
    assert_eq!((&job["due_in_ms"], &job["waited"]), (&json!(null), &json!(false)));
    // Without the place, the line is still said.
    server.command(&["DEL", "{orders}:holds:billing"]);
    let ran = run(&server, "diagnose orders billing").ended(3);
    assert!(ran.out.contains("2 of them for alice, whose place no job has now"), "{ran:?}");
}
