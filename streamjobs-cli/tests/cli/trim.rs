//! `streamjobs trim`: dry runs, what stops a trim, long trims.

use serde_json::json;
use streamjobs_tests::server::RedisServer;

use crate::orders::{ids, server};
use crate::program::run;

#[test]
fn nothing_is_trimmed_without_yes() {
    let server = server();
    for (cut, wanted) in [
        ("--length 2 --exact", "to 2"),
        ("--age 1h", "to entries younger than 1h"),
        ("--before 5-0 --lose-unfinished", "to entries from 5-0 on, including unfinished jobs"),
    ] {
        let ran = run(&server, &format!("trim orders {cut}")).ended(3);
        let would = format!("would trim stream orders with 6 entries {wanted}\n");
        assert!(ran.out.starts_with(&would) && ran.out.contains("--yes"), "{ran:?}");
        let document = run(&server, &format!("trim orders {cut} --json")).ended(3).json();
        assert_eq!((&document["dry_run"], &document["removed"]), (&json!(true), &json!(0)));
    }
    assert_eq!(ids(&server).len(), 6);
}

#[test]
fn a_trim_that_a_group_stops_reports_the_group_and_the_entry() {
    let server = server();
    server.command(&["XACK", "orders", "billing", "1-0"]);
    for cut in ["--length 1 --exact", "--before 6-0 --exact", "--age 1s --exact"] {
        let dry = run(&server, &format!("trim orders {cut}")).ended(3);
        assert!(dry.out.ends_with("\nwould remove 1 entries\n"), "{dry:?}");
        assert!(dry.err.starts_with("streamjobs: stopped at entry 2-0: group billing"), "{dry:?}");
        let document = run(&server, &format!("trim orders {cut} --json")).ended(3).json();
        assert_eq!(document["blocked_by"], json!({ "group": "billing", "entry": "2-0" }));
        assert_eq!((&document["would_remove"], &document["length"]), (&json!(1), &json!(6)));
        let lost = run(&server, &format!("trim orders {cut} --lose-unfinished --json")).ended(3);
        assert!(lost.json()["blocked_by"].is_null());
    }
    let dry = run(&server, "trim orders --length 5 --exact").ended(3);
    assert!(dry.err.is_empty() && dry.out.ends_with("would remove 1 entries\n"), "{dry:?}");
    let ran = run(&server, "trim orders --length 1 --exact --yes").ended(3);
    assert_eq!(ran.out, "removed 1 entries from stream orders, 5 remain\n");
    let stopped = "streamjobs: stopped at entry 2-0: group billing has not finished it; \
                   --lose-unfinished allows it\n";
    assert_eq!(ran.err, stopped);
    let document = run(&server, "trim orders --before 6-0 --exact --yes --json").ended(3).json();
    assert_eq!(document["blocked_by"], json!({ "group": "billing", "entry": "2-0" }));
    let lost = run(&server, "trim orders --before 6-0 --exact --yes --lose-unfinished").ended(0);
    assert_eq!(lost.out, "removed 4 entries from stream orders, 1 remain\n");
    assert_eq!(ids(&server), ["6-0"]);
}

#[test]
fn a_long_trim_runs_until_nothing_is_left_to_remove() {
    let server = RedisServer::start().unwrap();
    let words = ["EVAL", "for i = 1, 2500 do redis.call('XADD', KEYS[1], '*', 'f', i) end", "1"];
    server.command(&[&words[..], &["orders"]].concat());
    let document = run(&server, "trim orders --length 100 --exact --yes --json").ended(0).json();
    assert_eq!((&document["removed"], &document["length"]), (&json!(2_400), &json!(100)));
    assert_eq!(server.length("orders"), 100);
    let aged = run(&server, "trim orders --age 1h --exact --yes").ended(0);
    assert_eq!(aged.out, "removed 0 entries from stream orders, 100 remain\n");
}
