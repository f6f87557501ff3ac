//! Every control of the demo, over HTTP.

use std::time::{Duration, Instant};

use serde_json::json;
use streamjobs_tests::eventually::eventually;

use crate::harness::{DEADLINE, Demo};

#[test]
fn it_begins_with_the_seeded_workers_and_shows_everything_in_one_document() {
    let demo = Demo::start(&[]);
    demo.post("/produce", "count=100").json();
    let workers = || {
        demo.labels("notifications") == ["process-1", "process-2", "worker-a", "worker-b"]
            && demo.labels("analytics") == ["process-1", "process-2", "worker-c"]
    };
    eventually(DEADLINE, "all workers have got something", workers);
    for path in ["/", "/index.html"] {
        let page = demo.get(path);
        assert!(
            page.is(200).text.contains("<title>Orders demo") && page.head.contains("text/html")
        );
        assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    }
    assert_eq!(demo.post("/produce", "count=12").json()["produced"], 12);
    demo.wait_until_done("notifications");
    let state = demo.state();
    assert_eq!(
        (&state["stream"]["length"], state["tail"].as_array().unwrap().len()),
        (&json!(112), 10)
    );
    assert_eq!(
        (&state["stream"]["cap"], &state["stream"]["lease_ms"]),
        (&json!(2000), &json!(5000))
    );
    let newest = &state["tail"][0];
    assert_eq!(newest["id"], state["stream"]["last"]);
    for field in ["type", "order_id", "amount", "customer"] {
        assert!(newest["fields"][field].is_string(), "{newest}");
    }
    let group = demo.group("notifications");
    assert_eq!(
        (&group["backlog"], &group["paused"], &group["cursor"]),
        (&json!(0), &json!(false), &newest["id"])
    );
    for (answer, status) in [(demo.get("/elsewhere"), 404), (demo.get("/produce"), 405)] {
        assert!(answer.is(status).text.starts_with("{\"error\":"), "{}", answer.text);
    }
}

#[test]
fn events_are_produced_of_one_type_or_of_any_and_the_count_is_clamped() {
    let demo = Demo::start(&[]);
    assert_eq!(demo.post("/produce", "").json()["produced"], 1);
    assert_eq!(demo.post("/produce", "count=0&type=order.paid").json()["produced"], 1);
    let many = demo.post("/produce", "count=100000&type=order.shipped").json();
    assert_eq!((&many["produced"], many["ids"].as_array().unwrap().len()), (&json!(500), 500));
    let types = demo.state()["tail"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["fields"]["type"].clone())
        .collect::<Vec<_>>();
    assert!(types.iter().all(|event_type| event_type == "order.shipped"), "{types:?}");
    demo.post("/produce", "type=order.unknown").is(400);
    let refused = demo.post("/produce", "count=-1");
    assert!(refused.is(400).text.starts_with("{\"error\":"), "{}", refused.text);
    let json = [("content-type", "application/json")];
    let paid = demo.ask("POST", "/produce", &json, r#"{"count":2,"type":"order.paid"}"#).json();
    assert_eq!(paid["produced"], 2);
    demo.ask("POST", "/produce", &json, r#"{"count":"two"}"#).is(400);
    assert_eq!(demo.state()["stream"]["length"], 504);
    demo.wait_until_done("notifications");
    assert_eq!(
        (demo.figure("notifications", "done"), demo.figure("notifications", "lost")),
        (504, 0)
    );
}

#[test]
fn history_is_replayed_within_limits_and_invalid_ranges_are_refused() {
    let demo = Demo::start(&[]);
    let ids = demo.post("/produce", "count=30").json()["ids"].clone();
    let all = demo.get("/replay").json();
    assert_eq!((&all["limit"], all["entries"].as_array().unwrap().len()), (&json!(20), 20));
    let path = format!(
        "/replay?start={}&end={}&count=500000",
        ids[3].as_str().unwrap(),
        ids[5].as_str().unwrap()
    );
    let some = demo.get(&path).json();
    assert_eq!((&some["limit"], some["entries"].as_array().unwrap().len()), (&json!(500), 3));
    assert_eq!(
        demo.get("/replay?start=-&end=%2B&count=0").json()["entries"].as_array().unwrap().len(),
        1
    );
    for bad in ["start=x", "end=1-2-3", "start=%3Cscript%3E"] {
        let refused = demo.get(&format!("/replay?{bad}"));
        assert!(refused.is(400).text.contains("error") && !refused.text.contains("script"));
    }
    demo.wait_until_done("notifications");
    assert_eq!(demo.figure("notifications", "done"), 30, "reading runs no handler a second time");
    assert_eq!(demo.figure("notifications", "duplicates"), 0);
}

#[test]
fn workers_come_and_go_and_names_are_taken_once() {
    let demo = Demo::start(&[]);
    demo.post("/add-worker", "group=%20notifications%20&name=%20worker-d%20").is(200);
    eventually(DEADLINE, "it reads", || {
        demo.labels("notifications").contains(&"worker-d".to_owned())
    });
    demo.post("/add-worker", "group=notifications&name=worker-d").is(409);
    for missing in ["group=notifications", "name=x", "group=%20&name=x", "group=a%7Bb&name=x"] {
        let status = demo.post("/add-worker", missing).status;
        assert!(status == 400 || status == 409, "{missing}: {status}");
    }
    let removed = demo.post("/remove-worker", "group=notifications&name=worker-d").json();
    assert_eq!((&removed["removed"], &removed["abandoned"]), (&json!(true), &json!(0)));
    let again = demo.post("/remove-worker", "group=notifications&name=worker-d").json();
    assert_eq!(again, json!({ "removed": false, "reason": "not-found" }));
    // A new group starts with the first event.
    demo.post("/produce", "count=15").json();
    demo.post("/add-worker", "group=audit&name=worker-x").is(200);
    eventually(DEADLINE, "it has done all of history", || demo.figure("audit", "done") == 15);
    demo.post("/delete-group", "group=audit").is(400);
    demo.post("/delete-group", "group=audit&confirm=delete").is(200);
    assert!(demo.group("audit").is_null());
    demo.post("/delete-group", "group=audit&confirm=delete").is(404);
}

#[test]
fn trimmed_entries_before_a_new_group_and_uncountable_entries_are_not_lost() {
    let demo = Demo::start(&["--maxlen", "0"]);
    demo.post("/produce", "count=60").json();
    demo.wait_until_done("notifications");
    demo.wait_until_done("analytics");
    assert_eq!(demo.post("/trim", "maxlen=50&exact=1").json()["deleted"], 10);
    demo.post("/add-worker", "group=audit&name=worker-x").is(200);
    eventually(DEADLINE, "it has done what there is", || demo.figure("audit", "done") == 50);
    assert_eq!((demo.figure("audit", "published"), demo.figure("audit", "lost")), (50, 0));
    // Older servers do not know how many entries follow a position within the stream, and at most a
    // thousand entries are counted.
    demo.pause("notifications", &["worker-a", "worker-b"]);
    for _ in 0..3 {
        demo.post("/produce", "count=500").json();
    }
    let waiting = demo.figure("notifications", "waiting");
    assert_eq!((waiting, demo.figure("notifications", "lost")), (1_500, 0));
    demo.post("/resume", "group=notifications").is(200);
    demo.wait_until_done("notifications");
    assert_eq!(
        (demo.figure("notifications", "done"), demo.figure("notifications", "lost")),
        (1_560, 0)
    );
}

#[test]
fn a_group_is_deleted_while_workers_run_and_a_new_one_processes_history_again() {
    let demo = Demo::start(&[]);
    demo.post("/produce", "count=50").json();
    demo.wait_until_done("notifications");
    // A process that only begins to work for the group would create it once more.
    let all_work = || demo.labels("notifications").len() == 4;
    eventually(DEADLINE, "two workers and two processes work for the group", all_work);
    demo.post("/delete-group", "group=notifications&confirm=delete").is(200);
    assert!(demo.group("notifications").is_null());
    // Neither existing nor new processes create it again.
    assert_eq!(demo.post("/start-process", "").json()["started"], "process-3");
    eventually(DEADLINE, "the process works", || {
        demo.post("/produce", "count=10").json();
        demo.labels("analytics").contains(&"process-3".to_owned())
    });
    assert!(demo.group("notifications").is_null());
    demo.post("/add-worker", "group=notifications&name=worker-a").is(200);
    let published = demo.state()["published"].as_u64().unwrap();
    eventually(DEADLINE, "it does all", || demo.figure("notifications", "done") == published);
    assert_eq!(
        (demo.figure("notifications", "duplicates"), demo.figure("notifications", "lost")),
        (0, 0)
    );
    assert_eq!(demo.labels("notifications"), ["worker-a"]);
}

#[test]
fn crashed_deliveries_stay_pending_until_they_are_claimed() {
    let demo = Demo::start(&["--claim-idle-ms", "2000"]);
    demo.post("/crash", "group=notifications&name=missing").is(404);
    demo.post("/crash", "group=notifications").is(400);
    let queued = demo.post("/crash", "group=notifications&name=worker-a&count=3").json();
    assert_eq!(queued["queued"], 3);
    assert_eq!(
        demo.post("/crash", "group=notifications&name=worker-b&count=100000").json()["queued"],
        500
    );
    assert_eq!(demo.consumer("notifications", "worker-a")["will_drop"], 3);
    demo.post("/produce", "count=200").json();
    let dropped = || demo.consumer("notifications", "worker-a")["dropped"] == 3;
    eventually(DEADLINE, "three are dropped", dropped);
    let recent = &demo.consumer("notifications", "worker-a")["recent"];
    assert!(!recent.as_array().unwrap().is_empty());
    demo.wait_until_done("notifications");
    assert_eq!(
        (
            demo.figure("notifications", "done") + demo.figure("notifications", "dead"),
            demo.figure("notifications", "lost")
        ),
        (200, 0)
    );
}

#[test]
fn a_chosen_consumer_claims_what_is_idle() {
    // So long that no process claims entries by itself during the test.
    let demo = Demo::start(&["--claim-idle-ms", "600000"]);
    demo.post("/crash", "group=analytics&name=worker-c&count=500").json();
    demo.post("/kill", "name=process-1").json();
    demo.post("/kill", "name=process-2").json();
    demo.post("/produce", "count=5").json();
    eventually(DEADLINE, "all are dropped", || {
        demo.consumer("analytics", "worker-c")["dropped"] == 5
    });
    let key = "streamjobs-demo:shop";
    for row in demo.server.pending(key, "analytics") {
        demo.server.age(key, "analytics", &row.id, Duration::from_secs(1_000));
    }
    demo.post("/add-worker", "group=analytics&name=rescuer").is(200);
    eventually(DEADLINE, "it reads", || demo.labels("analytics").contains(&"rescuer".to_owned()));
    let name = demo.consumer("analytics", "rescuer")["name"].as_str().unwrap().to_owned();
    let reaped = demo.post("/reap", &format!("group=analytics&consumer={name}")).json();
    assert_eq!(
        (reaped["claimed"].as_array().unwrap().len(), &reaped["min_idle_ms"]),
        (5, &json!(600_000))
    );
    eventually(DEADLINE, "it has done them", || {
        demo.consumer("analytics", "rescuer")["processed"] == 5
    });
    demo.wait_until_done("analytics");
    assert_eq!(demo.figure("analytics", "lost"), 0);
    demo.post("/reap", "group=analytics").is(400);
    demo.post("/reap", "group=analytics&consumer=missing").is(404);
}

#[test]
fn a_paused_group_waits_and_handlers_follow_the_settings() {
    let demo = Demo::start(&[]);
    demo.pause("notifications", &["worker-a", "worker-b"]);
    assert_eq!(demo.group("notifications")["paused"], true);
    assert_eq!(demo.post("/pause", "group=notifications").json()["changed"], false);
    demo.post("/produce", "count=10").json();
    demo.wait_until_done("analytics");
    assert_eq!(demo.figure("notifications", "waiting"), 10);
    demo.post("/settings", "latency_ms=1&failure_percent=100").json();
    assert_eq!(demo.post("/resume", "group=notifications").json()["changed"], true);
    eventually(DEADLINE, "all are dead", || demo.group("notifications")["dead_letters"] == 10);
    let set = demo.post("/settings", "latency_ms=999999&failure_percent=0").json();
    assert_eq!((&set["latency_ms"], &set["failure_percent"]), (&json!(30000), &json!(0)));
    demo.post("/settings", "latency_ms=1").json();
    assert_eq!(demo.post("/redrive", "group=notifications").json()["redriven"], 10);
    eventually(DEADLINE, "all are done", || demo.figure("notifications", "done") == 10);
    assert_eq!(demo.figure("notifications", "lost"), 0);
    demo.post("/pause", "group=missing").is(404);
    demo.post("/pause", "").is(400);
    demo.post("/settings", "latency_ms=x").is(400);
}

#[test]
fn poison_becomes_a_dead_letter_and_is_done_once_it_is_repaired() {
    let demo = Demo::start(&[]);
    demo.post("/poison", "").json();
    for group in ["notifications", "analytics"] {
        eventually(DEADLINE, "it is dead", || demo.figure(group, "dead") == 1);
    }
    demo.post("/settings", "repaired=perhaps").is(400);
    demo.post("/settings", "repaired=1").json();
    demo.post("/redrive", "group=notifications&id=x").is(400);
    demo.post("/redrive", "group=notifications&id=1-1").is(404);
    demo.post("/redrive", "group=missing").is(404);
    let letter = demo.server.query::<Vec<(String, Vec<String>)>>(&[
        "XRANGE",
        "{streamjobs-demo:shop}:dead:analytics",
        "-",
        "+",
    ]);
    let one = format!("group=analytics&id={}", letter[0].0);
    assert_eq!(demo.post("/redrive", &one).json()["redriven"], 1);
    assert_eq!(demo.post("/redrive", "group=notifications").json()["redriven"], 1);
    for group in ["notifications", "analytics"] {
        eventually(DEADLINE, "it is done", || demo.figure(group, "done") == 1);
        assert_eq!((demo.figure(group, "dead"), demo.figure(group, "lost")), (0, 0));
    }
}

#[test]
fn a_trim_keeps_unfinished_jobs_unless_told_otherwise_and_the_counter_shows_the_loss() {
    let demo = Demo::start(&["--maxlen", "0"]);
    demo.post("/produce", "count=300").json();
    demo.wait_until_done("notifications");
    demo.wait_until_done("analytics");
    let trimmed = demo.post("/trim", "maxlen=50").json();
    let length = trimmed["length"].as_u64().unwrap();
    assert!((50..=150).contains(&length) && trimmed["deleted"] == 300 - length, "{trimmed}");
    let exact = demo.post("/trim", "maxlen=10&exact=1").json();
    assert_eq!(exact["length"], 10);
    demo.pause("notifications", &["worker-a", "worker-b"]);
    demo.post("/produce", "count=200").json();
    demo.wait_until_done("analytics");
    let kept = demo.post("/trim", "maxlen=0&exact=1").json();
    assert_eq!((&kept["length"], &kept["blocked_by"]), (&json!(200), &json!("notifications")));
    demo.post("/trim", "older_than_s=3600&exact=1").is(200);
    assert_eq!(demo.figure("notifications", "lost"), 0);
    demo.post("/trim", "maxlen=0&exact=1&lose=1").is(200);
    eventually(DEADLINE, "the loss is seen", || demo.figure("notifications", "lost") == 200);
    demo.post("/trim", "").is(400);
    demo.post("/trim", "maxlen=1&older_than_s=1").is(400);
    demo.post("/trim", "maxlen=-1").is(400);
}

#[test]
fn a_reset_needs_confirmation_and_deletes_only_the_demos_own_keys() {
    let demo = Demo::start(&[]);
    demo.server.command(&["SET", "other", "kept"]);
    demo.post("/produce", "count=20").json();
    demo.post("/poison", "").json();
    eventually(DEADLINE, "it is dead", || demo.group("notifications")["dead_letters"] == 1);
    demo.post("/reset", "").is(400);
    demo.post("/reset", "confirm=yes").is(400);
    assert_eq!(demo.post("/reset", "confirm=reset").json()["consumers"], 3);
    let state = demo.state();
    assert_eq!((&state["stream"]["length"], &state["published"]), (&json!(0), &json!(0)));
    assert_eq!(demo.group("notifications")["dead_letters"], 0);
    assert_eq!(demo.server.query::<String>(&["GET", "other"]), "kept");
    demo.post("/produce", "count=5").json();
    eventually(DEADLINE, "all is done", || demo.figure("notifications", "done") == 5);
}

#[test]
fn twelve_workers_come_and_go_and_a_process_is_killed_under_load_and_nothing_is_lost() {
    let demo = Demo::start(&["--claim-idle-ms", "2000"]);
    let began = Instant::now();
    let mut produced = 0;
    for cycle in 0..12 {
        let worker = format!("group=notifications&name=comer-{cycle}");
        demo.post("/add-worker", &worker).is(200);
        produced += demo.post("/produce", "count=20").json()["produced"].as_u64().unwrap();
        if cycle == 6 {
            demo.post("/kill", "name=process-1").is(200);
        }
        produced += demo.post("/produce", "count=20").json()["produced"].as_u64().unwrap();
        let removed = demo.post("/remove-worker", &worker).json();
        assert_eq!((&removed["removed"], &removed["abandoned"]), (&json!(true), &json!(0)));
    }
    let rate = produced as f64 / began.elapsed().as_secs_f64();
    assert!(rate >= 33.0, "{rate} events/s are too few for this test");
    for group in ["notifications", "analytics"] {
        demo.wait_until_done(group);
        assert_eq!((demo.figure(group, "done"), demo.figure(group, "lost")), (produced, 0));
    }
    assert_eq!(demo.post("/kill", "name=process-1").status, 404);
    assert_eq!(demo.post("/start-process", "").json()["started"], "process-3");
}

#[test]
fn only_the_demos_own_page_is_accepted_and_bodies_are_limited() {
    let demo = Demo::start(&[]);
    for headers in [
        [("sec-fetch-site", "cross-site")].as_slice(),
        &[("sec-fetch-site", "same-site")],
        &[("origin", "null")],
        &[("origin", "http://evil.example")],
        &[("host", "evil.example")],
    ] {
        demo.ask("POST", "/produce", headers, "count=1").is(403);
    }
    demo.ask("GET", "/state", &[("host", "rebound.example")], "").is(403);
    demo.ask("GET", "/jobs", &[("host", "rebound.example")], "").is(403);
    let own = format!("http://{}", demo.address);
    demo.ask("POST", "/produce", &[("origin", &own), ("sec-fetch-site", "same-origin")], "count=1")
        .is(200);
    let large = format!("type={}", "x".repeat(100_000));
    demo.post("/produce", &large).is(413);
    assert!(demo.get("/jobs").is(200).text.contains("Overview"));
    demo.server.kill();
    let unreachable = demo.get("/state");
    assert!(unreachable.is(503).text.contains("error"), "{}", unreachable.text);
}

#[test]
fn dead_letters_of_a_demo_with_an_archive_are_counted_and_redriven_from_there() {
    let demo = Demo::start_alone(&["--archive"]);
    demo.post("/poison", "").json();
    for group in ["notifications", "analytics"] {
        eventually(DEADLINE, "it is dead", || demo.figure(group, "dead") == 1);
        eventually(DEADLINE, "it is archived", || demo.group(group)["dead_letters"] == 0);
        assert_eq!((demo.figure(group, "dead"), demo.figure(group, "lost")), (1, 0));
    }
    let archive = demo.get("/jobs/archive");
    assert!(archive.is(200).text.contains("no handler can process it"), "{}", archive.text);
    demo.post("/settings", "repaired=1").json();
    assert_eq!(demo.post("/redrive", "group=notifications").json()["redriven"], 1);
    eventually(DEADLINE, "it is done", || demo.figure("notifications", "done") == 1);
    assert_eq!(
        (demo.figure("notifications", "dead"), demo.figure("notifications", "lost")),
        (0, 0)
    );
}
