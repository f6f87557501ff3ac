use std::time::Duration;

use serde_json::json;
use streamjobs_tests::server::RedisServer;

use crate::orders::{beat_with, heartbeat, read, server};
use crate::program::run;

#[test]
fn a_stream_is_shown_with_its_ends_and_a_missing_one_is_an_error() {
    let server = server();
    let said = run(&server, "info orders").ended(0);
    assert!(said.out.contains("entries        6\n"), "{said:?}");
    assert!(said.out.contains("first          1-0  1970-01-01 00:00:00Z\n"), "{said:?}");
    let document = run(&server, "info orders --json").ended(0).json();
    let told = (&document["length"], &document["last"], &document["groups"]);
    assert_eq!(told, (&json!(6), &json!("6-0"), &json!(1)));
    for command in ["info nothing", "groups nothing", "replay nothing"] {
        let missing = run(&server, command).ended(1);
        assert_eq!(
            (&*missing.out, &*missing.err),
            ("", "streamjobs: there is no stream nothing\n")
        );
    }
}

#[test]
fn groups_are_shown_with_what_is_known_of_them_and_no_more() {
    let server = server();
    let said = run(&server, "groups orders").ended(0);
    let lines = said.out.lines().collect::<Vec<_>>();
    assert_eq!(lines.len(), 2, "{said:?}");
    let cells = lines[1].split("  ").map(str::trim).filter(|cell| !cell.is_empty());
    let cells = cells.collect::<Vec<_>>();
    assert_eq!((cells[0], cells[1], cells[2], cells[4]), ("billing", "3", "3", "3"), "{said:?}");
    assert_eq!(cells[6..], ["0", "0", "0", "-"], "{said:?}");
    // Deleted in the midst, the server does not know its lag.
    server.command(&["XDEL", "orders", "5-0"]);
    server.command(&["SET", "{orders}:dead:billing", "no stream"]);
    let said = run(&server, "groups orders").ended(0);
    assert_eq!(said.out.matches("unknown").count(), 2, "{said:?}");
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
    let said = run(&server, "groups orders").ended(0);
    assert!(said.out.contains("at least 1000"), "{said:?}");
    let document = run(&server, "groups orders --json").json();
    assert_eq!(document["groups"][0]["backlog_exact"], false);
}

#[test]
fn consumers_are_shown_with_their_signs_of_life() {
    let server = server();
    read(&server, "stranger", 1);
    heartbeat(&server, "web-1");
    let said = run(&server, "consumers orders billing").ended(0);
    let lines = said.out.lines().collect::<Vec<_>>();
    assert!(lines[1].starts_with("stranger  unknown  1 "), "{said:?}");
    assert!(lines[2].starts_with("web-1     alive    3        2     16 "), "{said:?}");
    assert!(lines[2].contains("a\\u{1b}[1m") && lines[2].ends_with("2025-11-24 16:00:00Z"));
    let document = run(&server, "consumers orders billing --json").ended(0).json();
    let web = &document["consumers"][1];
    assert_eq!((&web["state"], &web["process"]), (&json!("alive"), &json!(7)));
    assert!(document["consumers"][0]["held"].is_null(), "{document}");
    assert!(web["done"].is_null(), "an older version does not count: {document}");
}

#[test]
fn consumers_are_shown_with_what_they_have_done() {
    let server = server();
    beat_with(&server, "web-1", ",\"done\":70,\"failed\":8,\"claimed\":9");
    let said = run(&server, "consumers orders billing").ended(0);
    let lines = said.out.lines().collect::<Vec<_>>();
    assert!(lines[0].contains("  SLOTS  DONE  FAILED  CLAIMED  "), "{said:?}");
    assert!(lines[1].contains("  16     70    8       9        "), "{said:?}");
    let document = run(&server, "consumers orders billing --json").ended(0).json();
    let web = &document["consumers"][0];
    let told = (&web["done"], &web["failed"], &web["claimed"]);
    assert_eq!(told, (&json!(70), &json!(8), &json!(9)));
}

#[test]
fn pending_entries_are_filtered_and_go_on_where_they_were_cut() {
    let server = server();
    server.age("orders", "billing", "2-0", Duration::from_secs(7_260));
    let said = run(&server, "pending orders billing --idle-min 2h").ended(0);
    let lines = said.out.lines().collect::<Vec<_>>();
    assert!(lines.len() == 2 && lines[1].starts_with("2-0  web-1     2h 1m"), "{said:?}");
    let cut = run(&server, "pending orders billing --limit 2").ended(0);
    assert_eq!((cut.out.lines().count(), cut.err.trim()), (3, "there are more: --after 2-0"));
    let rest = run(&server, "pending orders billing --after 2-0 --json").ended(0).json();
    let (entries, more) = (rest["entries"].as_array().unwrap(), &rest["more_after"]);
    assert_eq!((entries.len(), &entries[0]["id"], more), (1, &json!("3-0"), &json!(null)));
    server.command(&["XCLAIM", "orders", "billing", "web-2", "0", "3-0"]);
    let of = |filter| run(&server, &format!("pending orders billing {filter} --json")).json();
    assert_eq!(of("--consumer web-2")["entries"][0]["id"], "3-0");
    let often = of("--deliveries-min 2");
    assert_eq!(often["entries"].as_array().unwrap().len(), 1, "{often}");
    assert_eq!(of("--lane")["entries"], json!([]), "no lane yet");
    let missing = run(&server, "pending orders nobody --lane").ended(1);
    assert_eq!(missing.err, "streamjobs: stream orders has no group nobody\n");
}

#[test]
fn a_group_without_trouble_is_well_and_one_in_trouble_ends_with_three() {
    let server = RedisServer::start().unwrap();
    let _ = run(&server, "group create orders billing").ended(0);
    let well = run(&server, "diagnose orders billing").ended(0);
    assert_eq!(well.out, "group billing on stream orders is well\n");
    assert_eq!(run(&server, "diagnose orders billing --json").ended(0).json()["well"], true);
    server.command(&["XADD", "orders", "*", "type", "order.placed"]);
    let ill = run(&server, "diagnose orders billing").ended(3);
    assert!(ill.out.starts_with("work waits and the group has no consumer"), "{ill:?}");
    let document = run(&server, "diagnose orders billing --json").ended(3).json();
    assert_eq!(document["troubles"][0]["trouble"], "stalled");
}
