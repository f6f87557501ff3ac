use serde_json::json;
use streamjobs_tests::server::RedisServer;

use crate::orders::{ids, server};
use crate::program::run;

#[test]
fn nothing_is_trimmed_without_yes() {
    let server = server();
    for (cut, wanted) in [
        ("--length 2 --exact", "to 2"),
        ("--age 1h", "to those younger than 1h"),
        ("--before 5-0 --lose-unfinished", "to those from 5-0 on, work that is not done included"),
    ] {
        let said = run(&server, &format!("trim orders {cut}")).ended(3);
        let would = format!("would trim stream orders of 6 entries {wanted}\n");
        assert!(said.out.starts_with(&would) && said.out.contains("--yes"), "{said:?}");
        let document = run(&server, &format!("trim orders {cut} --json")).ended(3).json();
        assert_eq!((&document["dry_run"], &document["removed"]), (&json!(true), &json!(0)));
    }
    assert_eq!(ids(&server).len(), 6);
}

#[test]
fn a_cut_that_a_group_holds_up_is_told_with_its_group_and_entry() {
    let server = server();
    server.command(&["XACK", "orders", "billing", "1-0"]);
    let said = run(&server, "trim orders --length 1 --exact --yes").ended(3);
    assert_eq!(said.out, "removed 1 entries of stream orders, 5 stay\n");
    let held = "streamjobs: group billing has not done entry 2-0: it and all after stay\n";
    assert_eq!(said.err, held);
    let document = run(&server, "trim orders --before 6-0 --exact --yes --json").ended(3).json();
    assert_eq!(document["blocked_by"], json!({ "group": "billing", "entry": "2-0" }));
    let lost = run(&server, "trim orders --before 6-0 --exact --yes --lose-unfinished").ended(0);
    assert_eq!(lost.out, "removed 4 entries of stream orders, 1 stay\n");
    assert_eq!(ids(&server), ["6-0"]);
}

#[test]
fn a_long_trim_goes_on_until_nothing_is_left_to_remove() {
    let server = RedisServer::start().unwrap();
    let words = ["EVAL", "for i = 1, 2500 do redis.call('XADD', KEYS[1], '*', 'f', i) end", "1"];
    server.command(&[&words[..], &["orders"]].concat());
    let document = run(&server, "trim orders --length 100 --exact --yes --json").ended(0).json();
    assert_eq!((&document["removed"], &document["length"]), (&json!(2_400), &json!(100)));
    assert_eq!(server.length("orders"), 100);
    let aged = run(&server, "trim orders --age 1h --exact --yes").ended(0);
    assert_eq!(aged.out, "removed 0 entries of stream orders, 100 stay\n");
}
