//! `streamjobs scheduled`: events that wait until they are due.

use serde_json::json;
use streamjobs_tests::server::RedisServer;

use crate::orders;
use crate::program::run;

fn server() -> RedisServer {
    let server = orders::server();
    orders::schedule(&server, &[("e-1", 1), ("e-2", 2), ("e-3", 3)]);
    server
}

#[test]
fn waiting_events_are_listed_in_the_order_of_their_times_without_payloads() {
    let server = server();
    let ran = run(&server, "scheduled list orders").ended(0);
    let lines = ran.out.lines().collect::<Vec<_>>();
    assert_eq!((lines.len(), &*ran.err), (4, ""), "{ran:?}");
    assert!(lines[0].starts_with("ID   DUE  "), "{ran:?}");
    assert!(lines[1].starts_with("e-1  20") && lines[1].contains("  59m "), "{ran:?}");
    assert!(lines[1].contains("  order.placed  alice  "), "{ran:?}");
    let document = run(&server, "scheduled list orders --json").ended(0).json();
    let event = &document["events"][1];
    assert_eq!((&event["id"], &event["type"]), (&json!("e-2"), &json!("order.placed")));
    let due_in = event["due_in_ms"].as_u64().unwrap();
    assert!(due_in > 7_100_000 && due_in <= 7_200_000, "{event}");
    assert!(!format!("{ran:?}{document}").contains("4711"), "no payload");
    assert_eq!(run(&server, "scheduled count orders").ended(0).out, "3\n");
    let cut = run(&server, "scheduled list orders --limit 2").ended(0);
    let (_, after) = cut.err.trim_end().split_once("more results: --after ").unwrap();
    let rest = run(&server, &format!("scheduled list orders --after {after} --json")).ended(0);
    let rest = rest.json();
    assert_eq!((&rest["events"][0]["id"], &rest["more_after"]), (&json!("e-3"), &json!(null)));
    assert_eq!(run(&server, "scheduled list orders --limit 3").ended(0).err, "");
    run(&server, "scheduled list orders --after e-1").ended(2);
}

/// It waits under a name of its own, which the other commands take.
#[test]
fn a_debounced_event_is_listed_with_its_id_and_its_name() {
    let server = server();
    let script =
        "redis.call('HSET', KEYS[2], ARGV[1], cmsgpack.pack({'type', 'doc.saved', 'sj-id', \
                  'e-9', 'sj-due', '4000000000000'}))
        redis.call('ZADD', KEYS[1], '4000000000000', ARGV[1])";
    let (keys, name) = (["{orders}:later", "{orders}:later-records"], "unique:5f");
    server.command(&["EVAL", script, "2", keys[0], keys[1], name]);
    let ran = run(&server, "scheduled list orders").ended(0);
    let lines = ran.out.lines().collect::<Vec<_>>();
    assert!(lines[0].ends_with("  NAME") && lines[1].ends_with("  -"), "{ran:?}");
    assert!(lines[4].starts_with("e-9  20") && lines[4].ends_with("  unique:5f"), "{ran:?}");
    let document = run(&server, "scheduled list orders --json").ended(0).json();
    assert_eq!(document["events"][3]["name"], name);
    let ran = run(&server, "scheduled cancel orders e-9 unique:5f --yes").ended(3);
    assert_eq!((&*ran.out, &*ran.err), ("cancelled 1\n", "not scheduled: e-9\n"));
}

#[test]
fn cancelled_events_are_gone_and_those_that_do_not_wait_are_named() {
    let server = server();
    let planned = run(&server, "scheduled cancel orders e-1 e-9").ended(3);
    assert!(planned.out.starts_with("would cancel 2 scheduled events"), "{planned:?}");
    assert_eq!(run(&server, "scheduled count orders").ended(0).out, "3\n", "nothing has changed");
    let ran = run(&server, "scheduled cancel orders e-1 e-9 --yes").ended(3);
    assert_eq!((&*ran.out, &*ran.err), ("cancelled 1\n", "not scheduled: e-9\n"));
    let ran = run(&server, "scheduled cancel orders e-2 --yes --json").ended(0).json();
    assert_eq!((&ran["done"], &ran["not_scheduled"]), (&json!(1), &json!([])));
    assert_eq!(run(&server, "scheduled count orders --json").ended(0).json()["scheduled"], 1);
}

#[test]
fn events_are_run_and_rescheduled() {
    let server = server();
    let before = server.length("orders");
    let ran = run(&server, "scheduled run orders e-3 e-9").ended(3);
    assert_eq!((&*ran.out, &*ran.err), ("entered 1\n", "not scheduled: e-9\n"));
    assert_eq!(server.length("orders"), before + 1);
    let ran = run(&server, "scheduled reschedule orders e-1 4h").ended(0);
    assert!(ran.out.starts_with("due at 20"), "{ran:?}");
    let list = run(&server, "scheduled list orders --json").ended(0).json();
    assert_eq!(
        (&list["events"][0]["id"], &list["events"][1]["id"]),
        (&json!("e-2"), &json!("e-1"))
    );
    let ran = run(&server, "scheduled reschedule orders e-1 1 --json").ended(0).json();
    assert!(ran["entry"].as_str().unwrap().ends_with("-0") && ran["due_ms"].is_null(), "{ran}");
    let gone = run(&server, "scheduled reschedule orders e-1 1h").ended(3);
    assert_eq!(gone.out, "not scheduled\n");
    run(&server, "scheduled reschedule orders e-1 yesterday").ended(2);
}
