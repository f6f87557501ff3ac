//! Commands that move, release and acknowledge pending entries, and pause groups.

use serde_json::json;

use crate::orders::{heartbeat, ids, owned, owners, read, server};
use crate::program::run;

#[test]
fn nothing_is_moved_without_yes() {
    let server = server();
    let before = owners(&server);
    for (line, would) in [
        ("claim orders billing web-2 1-0 2-0 2-0", "move 2 entries of {} to consumer web-2"),
        ("release orders billing 1-0", "release 1 entry of {}"),
        ("acknowledge orders billing 1-0", "acknowledge 1 entry of {}"),
        (
            "hand-over orders billing web-1 web-2",
            "move 3 entries of consumer web-1 of {} to consumer web-2",
        ),
        (
            "remove-consumer orders billing web-1",
            "remove consumer web-1 of {} and release 3 entries",
        ),
    ] {
        let ran = run(&server, line).ended(3);
        let would = would.replace("{}", "group billing on stream orders");
        let expected = format!("would {would}\nnothing was changed; add --yes to apply\n");
        assert_eq!(ran.out, expected);
        let document = run(&server, &format!("{line} --json")).ended(3).json();
        assert_eq!((&document["dry_run"], &document["done"]), (&json!(true), &json!(0)));
        assert_eq!(owners(&server), before);
    }
    for line in ["claim orders missing web-2 1-0 --yes", "acknowledge orders missing 1-0 --yes"] {
        let missing = run(&server, line).ended(1);
        assert_eq!(missing.err, "streamjobs: stream orders has no group missing\n");
    }
}

#[test]
fn claimed_and_released_entries_are_reported_one_by_one() {
    let server = server();
    let ran = run(&server, "claim orders billing web-2 1-0 9-0 --yes").ended(3);
    assert_eq!(
        ran.out,
        "moved 1 of 2 entries of group billing on stream orders to consumer web-2\n"
    );
    assert_eq!(ran.err, "streamjobs: entry 9-0 is not pending\n");
    assert_eq!(owners(&server), owned(&[("1-0", "web-2"), ("2-0", "web-1"), ("3-0", "web-1")]));
    server.command(&["XDEL", "orders", "3-0"]);
    let document = run(&server, "release orders billing 2-0 3-0 --yes --json").ended(3).json();
    assert_eq!((&document["moved"], &document["trimmed"]), (&json!(["2-0"]), &json!(["3-0"])));
    assert_eq!(server.length("{orders}:dead:billing"), 1);
    assert_eq!(owners(&server), owned(&[("1-0", "web-2"), ("2-0", "streamjobs-released")]));
    let all = run(&server, "claim orders billing web-3 1-0 2-0 --yes --json").ended(0).json();
    assert_eq!((&all["selected"], &all["done"]), (&json!(2), &json!(2)));
    let lane = run(&server, "claim orders billing web-3 1-0 --lane --yes --json").ended(3).json();
    assert_eq!(lane["missing"], json!(["1-0"]), "it is in the stream, not in the lane");
}

#[test]
fn acknowledged_entries_count_as_done() {
    let server = server();
    let ran = run(&server, "acknowledge orders billing 1-0 9-0 --yes").ended(3);
    assert_eq!(ran.out, "acknowledged 1 of 2 entries of group billing on stream orders\n");
    assert_eq!(ran.err, "streamjobs: not pending: 1 entry\n");
    let document = run(&server, "acknowledge orders billing 2-0 --yes --json").ended(0).json();
    assert_eq!(document["done"], 1);
    assert_eq!(owners(&server), owned(&[("3-0", "web-1")]));
    assert_eq!(ids(&server).len(), 6, "history is kept");
}

#[test]
fn a_hand_over_and_a_removal_lose_nothing_and_warn_about_a_live_consumer() {
    let server = server();
    heartbeat(&server, "web-1");
    let ran = run(&server, "hand-over orders billing web-1 web-2 --yes").ended(0);
    assert!(ran.out.starts_with("moved 3 of 3 entries of group billing"), "{ran:?}");
    assert!(ran.err.starts_with("consumer web-1 is alive"), "{ran:?}");
    assert!(owners(&server).iter().all(|(_, owner)| owner == "web-2"));
    read(&server, "web-1", 1);
    let ran = run(&server, "remove-consumer orders billing web-1 --yes").ended(0);
    let expected = "removed consumer web-1 of group billing on stream orders\n\
                    released 1 of 1 entry of group billing on stream orders\n";
    assert_eq!(ran.out, expected);
    assert_eq!(server.pending("orders", "billing").len(), 4);
    let document =
        run(&server, "remove-consumer orders billing web-2 --yes --json").ended(0).json();
    assert_eq!(document["done"], 3);
    let left = run(&server, "consumers orders billing --json").json();
    let names = left["consumers"].as_array().unwrap().iter().map(|one| one["consumer"].clone());
    assert!(!names.clone().any(|name| name == "web-1" || name == "web-2"), "{left}");
    let unknown = run(&server, "remove-consumer orders billing web-1 --yes").ended(1);
    let missing = "streamjobs: group billing on stream orders has no consumer web-1\n";
    assert_eq!(unknown.err, missing, "a misspelt name is not removed");
}

#[test]
fn reap_needs_a_group_and_no_yes() {
    let server = server();
    let ran = run(&server, "reap orders billing").ended(0);
    assert!(ran.out.contains("group billing on stream orders to claim"), "{ran:?}");
    let called: u64 = server.query(&["HGET", "{orders}:group:billing", "released"]);
    assert_eq!(called, 1);
    assert_eq!(run(&server, "reap orders billing --json").ended(0).json()["action"], "reap");
    let _ = run(&server, "reap orders missing").ended(1);
}

#[test]
fn a_group_is_paused_and_resumed_in_every_process() {
    let server = server();
    let paused = || server.query::<Option<u64>>(&["HGET", "{orders}:group:billing", "paused"]);
    let ran = run(&server, "pause orders billing").ended(0);
    assert!(ran.out.starts_with("paused group billing on stream orders"), "{ran:?}");
    assert!(paused().is_some());
    assert_eq!(run(&server, "pause orders billing --json").ended(0).json()["done"], 0);
    let groups = run(&server, "groups orders --json").ended(0).json();
    assert!(groups.to_string().contains("paused"), "{groups}");
    let ran = run(&server, "resume orders billing").ended(0);
    assert!(ran.out.starts_with("resumed group billing") && paused().is_none(), "{ran:?}");
    assert_eq!(run(&server, "resume orders billing --json").ended(0).json()["done"], 0);
    let _ = run(&server, "pause orders missing").ended(1);
}
