//! `streamjobs event show` and `publish`.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};
use streamjobs_tests::server::RedisServer;

use crate::orders;
use crate::program::{program, run};

/// The job of the group `billing` on an event, in JSON.
fn job(server: &RedisServer, id: &str) -> (Value, Value) {
    let report = run(server, &format!("event show orders {id} --json")).ended(0).json();
    assert_eq!(report["jobs"][0]["group"], "billing", "{report}");
    (report["jobs"][0].clone(), report)
}

#[test]
fn every_state_of_a_job_is_shown() {
    let server = orders::server();
    let (pending, report) = job(&server, "1-0");
    assert_eq!((&pending["state"], &report["entry"]), (&json!("pending"), &json!("1-0")));
    assert_eq!(pending["delivery"]["consumer"], "web-1");
    assert_eq!((&pending["failures"], &report["type"]), (&json!(0), &json!("order.placed")));
    assert_eq!(job(&server, "5-0").0["state"], "waiting");
    server.command(&["XACK", "orders", "billing", "2-0"]);
    assert_eq!(job(&server, "2-0").0["state"], "ended");

    let retry = "local now = redis.call('TIME')[1] * 1000
        redis.call('HSET', KEYS[1], 's:1-7', cmsgpack.pack({'type', 'order.placed', 'data', '1',
            'sj-id', 'e-2', 'sj-attempt', '2', 'sj-origin', '1-7', 'sj-error', 'declined'}))
        redis.call('ZADD', KEYS[2], string.format('%.0f', now + 3600000), 's:1-7')";
    let keys = ["{orders}:retry-records:billing", "{orders}:retry:billing"];
    server.command(&["EVAL", retry, "2", keys[0], keys[1]]);
    let (retrying, report) = job(&server, "e-2");
    assert_eq!((&retrying["state"], &retrying["failures"]), (&json!("retrying"), &json!(2)));
    assert_eq!((&retrying["retry"]["id"], &report["entry"]), (&json!("s:1-7"), &json!(null)));
    let text = run(&server, "event show orders e-2").ended(0).out;
    let line = text.lines().last().unwrap();
    assert!(line.starts_with("billing  retrying  2         due in 59m"), "{text}");
    assert!(line.ends_with("declined"), "{text}");

    let letter = ["sj-dead-reason", "exhausted", "sj-dead-attempts", "5", "sj-dead-event", "e-3"];
    let letter = [&["XADD", "{orders}:dead:billing", "7-0"], &letter[..], &["type", "t"]].concat();
    server.command(&letter);
    let (dead, _) = job(&server, "e-3");
    assert_eq!((&dead["state"], &dead["failures"]), (&json!("dead"), &json!(5)));
    assert_eq!(dead["dead_letter"], json!({ "id": "7-0", "reason": "exhausted" }));

    let lane = "{orders}:lane:billing";
    server.command(&["XGROUP", "CREATE", lane, "billing", "0", "MKSTREAM"]);
    server.command(&["XADD", lane, "8-0", "type", "t", "sj-id", "e-4", "sj-attempt", "1"]);
    let (due, _) = job(&server, "e-4");
    assert_eq!((&due["state"], &due["failures"]), (&json!("lane"), &json!(1)));
    assert_eq!(due["delivery"], json!(null));
    server.command(&["XREADGROUP", "GROUP", "billing", "web-2", "STREAMS", lane, ">"]);
    assert_eq!(job(&server, "e-4").0["delivery"]["consumer"], "web-2");

    orders::schedule(&server, &[("e-5", 1)]);
    let (_, report) = job(&server, "e-5");
    assert!(report["scheduled_due_ms"].as_u64().unwrap() > 1_764_000_000_000, "{report}");
    let _ = run(&server, "cancel orders e-6 --group billing --yes").ended(0);
    let (_, report) = job(&server, "e-6");
    assert_eq!(report["cancelled"][0]["group"], "billing");
    let text = run(&server, "event show orders e-6").ended(0).out;
    assert!(text.contains("\ncancelled  billing at 20"), "{text}");
}

#[test]
fn a_result_is_shown_by_its_size_and_time_and_not_by_what_is_in_it() {
    let server = orders::server();
    assert_eq!(job(&server, "1-0").0["result"], json!(null));
    let key = |id: &str| format!("{{orders}}:result:billing:{{{id}}}");
    server.command(&["SET", &key("e-7"), "{\"card\":4711}", "PX", "600000"]);
    let ran = run(&server, "event show orders e-7 --json").ended(0);
    assert!(!ran.out.contains("4711"), "{ran:?}");
    let result = &ran.json()["jobs"][0]["result"];
    let rest = result["kept_for_ms"].as_u64().unwrap();
    assert!(result["bytes"] == 13 && rest > 500_000 && rest <= 600_000, "{result}");
    let text = run(&server, "event show orders e-7").ended(0).out;
    let line = text.lines().last().unwrap();
    assert!(line.contains("result of 13 bytes, kept for 9m"), "{text}");
    server.command(&["SET", &key("e-8"), "!memory", "PX", "600000"]);
    assert_eq!(job(&server, "e-8").0["result"]["bytes"], json!(null));
    let text = run(&server, "event show orders e-8").ended(0).out;
    assert!(text.contains("the server had no memory for the result"), "{text}");
}

#[test]
fn an_event_of_which_nothing_is_known_ends_with_three() {
    let server = orders::server();
    let ran = run(&server, "event show orders e-9").ended(3);
    assert!(ran.out.contains("billing  unknown"), "{ran:?}");
    assert_eq!(ran.err, "no event e-9 is known of stream orders\n");
    let ran = run(&server, "event show orders e-9 --json").ended(3).json();
    assert_eq!((&ran["known"], &ran["searched"]), (&json!(false), &json!(true)));
    let ran = run(&server, "event show no-such-stream e-9").ended(1);
    assert!(ran.err.contains("no-such-stream"), "{ran:?}");
}

#[test]
fn an_event_is_published_from_the_argument_or_standard_input_and_found() {
    let server = RedisServer::start().unwrap();
    server.command(&["XGROUP", "CREATE", "orders", "billing", "0", "MKSTREAM"]);
    let line = "publish orders order.placed {\"order_id\":\"o-1\"} --key alice --json";
    let first = run(&server, line).ended(0).json();
    let entry = &server.entries("orders")[0];
    assert_eq!(first["entry"], entry.id.as_str());
    let id = first["event_id"].as_str().unwrap();
    let fields = [
        ("type", "order.placed"),
        ("data", "{\"order_id\":\"o-1\"}"),
        ("sj-id", id),
        ("sj-key", "alice"),
    ];
    let fields = fields.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    assert_eq!(entry.fields, fields);
    let (waiting, report) = job(&server, id);
    assert_eq!((&waiting["state"], &report["entry"]), (&json!("waiting"), &first["entry"]));

    let mut command = program(&server.url());
    command.args(["publish", "orders", "order.placed", "-", "--id", "e-2", "--delay", "2h"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b" {\"n\": 1.50}\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.starts_with("scheduled event e-2 for 20"), "{text}");
    assert_eq!(run(&server, "scheduled count orders").ended(0).out, "1\n");

    for (line, why) in [
        ("publish order t 1", "there is no stream order"),
        ("publish orders t {card:4711}", "the payload is not JSON: line 1, column 2"),
        (
            "publish orders t 1 --id e-2 --delay 2h",
            "event e-2: an event with this id already waits; it stays, and this one was not stored",
        ),
    ] {
        let ran = run(&server, line).ended(1);
        assert!(ran.err.contains(why) && !ran.err.contains("4711"), "{ran:?}");
    }
    assert_eq!(server.length("order"), 0);
    let _ = run(&server, "publish refunds t 1 --new-stream").ended(0);
    assert_eq!(server.length("refunds"), 1);
}

#[test]
fn past_attempts_are_shown_with_each_job_wherever_it_is() {
    let server = orders::server();
    let first = r#"{"n":4,"attempt":1,"end":"failed","at":1764000000000,"ms":3200,"by":"web-1","deliveries":1,"next":1764000005000,"error":"declined"}"#;
    let last = r#"{"n":5,"attempt":2,"end":"timed_out","at":1764000006000,"ms":30000,"by":"web-2","deliveries":3}"#;
    let letter = ["sj-dead-reason", "exhausted", "sj-dead-event", "e-3", "sj-dead-attempt", last];
    let letter = [&["XADD", "{orders}:dead:billing", "7-0"], &letter[..]].concat();
    server.command(&[&letter[..], &["type", "t", "sj-history", first]].concat());
    let history = json!({ "left_out": 3, "attempts": [
        { "attempt": 1, "end": "failed", "began_ms": 1_764_000_000_000_u64, "took_ms": 3_200, "process": "web-1",
          "lost_before": 0, "retry_ms": 1_764_000_005_000_u64, "error": "declined" },
        { "attempt": 2, "end": "timed_out", "began_ms": 1_764_000_006_000_u64, "took_ms": 30_000, "process": "web-2",
          "lost_before": 2, "retry_ms": null, "error": null },
    ] });
    assert_eq!(job(&server, "e-3").0["history"], history);
    let document = run(&server, "dead show orders billing 7-0 --json").ended(0).json();
    assert_eq!(document["history"], history);
    for command in ["event show orders e-3", "dead show orders billing 7-0"] {
        let text = run(&server, command).ended(0).out;
        assert!(text.contains("\nattempts"), "{text}");
        assert!(text.contains("3 earlier ones are not kept"), "{text}");
        let rows = text.lines().rev().take(2).collect::<Vec<_>>();
        assert!(rows[1].starts_with("1        2025-11-24 16:00:00Z  3.2s   failed"), "{text}");
        assert!(rows[1].ends_with("2025-11-24 16:00:05Z  declined"), "{text}");
        assert!(rows[0].contains("30.0s  timed_out  web-2"), "{text}");
        assert!(!text.contains("sj-history"), "{text}");
    }
    let (waiting, _) = job(&server, "1-0");
    assert_eq!(waiting["history"], json!({ "left_out": 0, "attempts": [] }));
}

#[test]
fn finished_jobs_are_listed_filtered_and_shown_with_their_event() {
    let server = orders::server();
    let none = run(&server, "finished orders billing --json").ended(0).json();
    assert_eq!(none, json!({ "jobs": [], "compared": 0, "more_before": null }));
    let done = "{orders}:done:billing";
    for (note, id, key) in [("11-0", "e-1", "alice"), ("12-0", "e-2", "bob")] {
        let words =
            ["id", id, "type", "order.placed", "key", key, "origin", "1-7", "at", "1764000000000"];
        let words =
            [&["XADD", done, note], &words[..], &["ms", "3200", "attempt", "2", "by", "web-1"]];
        server.command(&words.concat());
    }
    let text = run(&server, "finished orders billing").ended(0).out;
    let rows = text.lines().skip(1).collect::<Vec<_>>();
    assert_eq!(rows.len(), 2, "{text}");
    assert!(
        rows[0]
            .starts_with("2025-11-24 16:00:03Z  e-2    order.placed  bob    2        3.2s  web-1"),
        "{text}"
    );
    let one = run(&server, "finished orders billing --key alice --json").ended(0).json();
    let job = json!({ "id": "11-0", "event_id": "e-1", "type": "order.placed", "key": "alice", "origin": "1-7",
        "began_ms": 1_764_000_000_000_u64, "ended_ms": 1_764_000_003_200_u64, "took_ms": 3_200, "attempt": 2,
        "process": "web-1" });
    assert_eq!(one, json!({ "jobs": [job], "compared": 2, "more_before": null }));
    let page = run(&server, "finished orders billing --limit 1 --json").ended(0).json();
    assert_eq!(page["more_before"], "12-0");
    let rest =
        run(&server, "finished orders billing --before 12-0 --event e-1 --json").ended(0).json();
    assert_eq!(rest["jobs"][0]["id"], "11-0");
    let (of_event, _) = self::job(&server, "e-1");
    assert_eq!(of_event["finished"], job);
    let text = run(&server, "event show orders e-1").ended(0).out;
    assert!(text.contains("at 2025-11-24 16:00:03Z, done in 3.2s by web-1, attempt 2"), "{text}");
    let missing = run(&server, "finished orders nothing").ended(1);
    assert!(missing.err.contains("nothing"), "{missing:?}");
}

#[test]
fn the_trend_of_a_group_is_a_table_by_minutes_or_quarters_of_an_hour() {
    let server = orders::server();
    let none = run(&server, "trend orders billing --json").ended(0).json();
    assert_eq!((&none["points"], &none["step_ms"]), (&json!([]), &json!(60_000)));
    let now = server.query::<Vec<u64>>(&["TIME"])[0];
    for (ring, step, places) in [("minutes", 60, 360), ("quarters", 900, 672)] {
        let key = format!("{{orders}}:trend-{ring}:billing");
        for (ago, text) in [(2, "70 1 9 61000 0:1 24:70"), (1, "80 0 0 0 - -")] {
            let number = now / step - ago;
            let text = format!("{number} {text}");
            server.command(&["HSET", &key, &(number % places).to_string(), &text]);
        }
    }
    let text = run(&server, "trend orders billing").ended(0).out;
    let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let rows = rows.collect::<Vec<_>>();
    assert_eq!(
        rows[1][2..],
        ["70", "1", "9", "1m", "1s", "62µs", "118µs", "123µs", "430ms", "503ms", "510ms"]
    );
    assert_eq!(rows[2][2..], ["80", "0", "0", "-", "-", "-", "-", "-", "-", "-"]);
    let days = run(&server, "trend orders billing --days --limit 1 --json").ended(0).json();
    assert_eq!((&days["left_out"], &days["step_ms"]), (&json!(1), &json!(900_000)));
    let times = json!({ "count": 0, "p50_us": null, "p95_us": null, "p99_us": null });
    let last = json!({ "began_ms": (now / 900 - 1) * 900_000, "done": 80, "failed": 0, "waiting": 0, "oldest_ms": 0,
        "queue_time": times, "run_time": times });
    assert_eq!(days["points"], json!([last]));
    let missing = run(&server, "trend orders nothing").ended(1);
    assert!(missing.err.contains("nothing"), "{missing:?}");
}
