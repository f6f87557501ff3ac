//! `streamjobs retries`: jobs that wait for a retry.

use serde_json::json;
use streamjobs_tests::server::RedisServer;

use crate::orders;
use crate::program::run;

/// A server with orders and jobs that wait for a retry, each due an hour after the one before.
fn server(jobs: u32) -> RedisServer {
    let server = orders::server();
    let script = "local now = redis.call('TIME')[1] * 1000
        for n = 1, ARGV[1] do
            local name = 's:' .. n .. '-7'
            redis.call('HSET', KEYS[1], name, cmsgpack.pack({'type', 'order.placed',
                'data', 'card 4711', 'sj-id', 'event-' .. n, 'sj-attempt', '2',
                'sj-origin', n .. '-0', 'sj-error', 'red ' .. string.char(27) .. '[31m alert'}))
            redis.call('ZADD', KEYS[2], string.format('%.0f', now + n * 3600000 + 60000), name)
        end";
    let keys = ["{orders}:retry-records:billing", "{orders}:retry:billing"];
    server.command(&["EVAL", script, "2", keys[0], keys[1], &jobs.to_string()]);
    server
}

#[test]
fn jobs_waiting_for_retry_are_shown_with_their_errors_and_without_their_payloads() {
    let server = server(2);
    let ran = run(&server, "retries orders billing").ended(0);
    let lines = ran.out.lines().collect::<Vec<_>>();
    assert_eq!((lines.len(), &*ran.err), (3, ""), "{ran:?}");
    assert!(lines[0].starts_with("ID     DUE IN"), "{ran:?}");
    assert!(lines[1].starts_with("s:1-7  1h "), "{ran:?}");
    let end = "  order.placed  event-1  2         red \\u{1b}[31m alert";
    assert!(lines[1].ends_with(end), "{ran:?}");
    let document = run(&server, "retries orders billing --json").ended(0).json();
    let job = &document["jobs"][1];
    assert_eq!((&job["id"], &job["event_id"]), (&json!("s:2-7"), &json!("event-2")));
    assert_eq!((&job["attempts"], &job["origin"]), (&json!(2), &json!("2-0")));
    let due_in = job["due_in_ms"].as_u64().unwrap();
    assert!(due_in > 7_200_000 && due_in <= 7_260_000, "{job}");
    assert!(!format!("{ran:?}{document}").contains("4711"), "no payload");
    let left = server.query::<Vec<String>>(&["ZRANGE", "{orders}:retry:billing", "0", "-1"]);
    assert_eq!(left, ["s:1-7", "s:2-7"], "listing moves nothing");
}

#[test]
fn jobs_without_their_record_are_shown_with_unknown_fields() {
    let server = server(1);
    server.command(&["DEL", "{orders}:retry-records:billing"]);
    server.command(&["ZADD", "{orders}:retry:billing", "0", "s:1-7"]);
    let ran = run(&server, "retries orders billing").ended(0);
    assert_eq!(ran.out.lines().nth(1), Some("s:1-7  0s      -     -      0         -"));
    let document = run(&server, "retries orders billing --json").ended(0).json();
    let job = &document["jobs"][0];
    assert_eq!((&job["type"], &job["due_in_ms"]), (&json!(null), &json!(0)));
}

#[test]
fn a_list_of_jobs_waiting_for_retry_continues_after_the_last_one_shown() {
    let server = server(3);
    let cut = run(&server, "retries orders billing --limit 2").ended(0);
    let (_, after) = cut.err.trim_end().split_once("more results: --after ").unwrap();
    assert!(cut.out.lines().count() == 3 && after.ends_with(":s:2-7"), "{cut:?}");
    let rest = run(&server, &format!("retries orders billing --after {after} --json"));
    let rest = rest.ended(0).json();
    let (jobs, more) = (rest["jobs"].as_array().unwrap(), &rest["more_after"]);
    assert_eq!((jobs.len(), &jobs[0]["id"], more), (1, &json!("s:3-7"), &json!(null)));
    let exact = run(&server, "retries orders billing --limit 3").ended(0);
    assert_eq!(exact.err, "");
    server.command(&["ZREM", "{orders}:retry:billing", "s:2-7"]);
    let gone = run(&server, &format!("retries orders billing --after {after} --json"));
    let gone = gone.ended(0).json();
    assert_eq!(gone["jobs"][0]["id"], "s:3-7", "nothing is skipped or listed again");
    run(&server, "retries orders billing --after s:2-7").ended(2);
}

#[test]
fn many_jobs_waiting_for_retry_are_listed_over_several_pages() {
    let server = server(2_500);
    let all = run(&server, "retries orders billing --limit 9000 --json").ended(0).json();
    let (jobs, more) = (all["jobs"].as_array().unwrap(), &all["more_after"]);
    assert_eq!((jobs.len(), &jobs[2_499]["id"], more), (2_500, &json!("s:2500-7"), &json!(null)));
    let cut = run(&server, "retries orders billing --limit 1000 --json").ended(0).json();
    let (jobs, more) = (cut["jobs"].as_array().unwrap(), &cut["more_after"]);
    assert_eq!(jobs.len(), 1_000);
    assert!(more.as_str().unwrap().ends_with(":s:1000-7"), "{more}");
}

#[test]
fn an_empty_list_of_retries_is_a_table_head_and_a_missing_group_is_an_error() {
    let server = orders::server();
    let none = run(&server, "retries orders billing").ended(0);
    assert_eq!(none.out.lines().count(), 1, "{none:?}");
    let missing = run(&server, "retries orders missing").ended(1);
    assert_eq!(missing.err, "streamjobs: stream orders has no group missing\n");
    assert_eq!(missing.out, "");
}
