//! A stream that is spread over partitions, as the program shows and changes it.

use serde_json::json;
use streamjobs_tests::server::RedisServer;

use crate::program::run;

const NAMES: [&str; 3] = ["orders", "orders:p1:{1801}", "orders:p2:{22348}"];

/// A stream with three partitions, as a client has stored it, with a group and one pending entry with the
/// same id in each of two.
fn server() -> RedisServer {
    let server = RedisServer::start().unwrap();
    server.command(&["HSET", "{orders}:partitions", "count", "3", "version", "1"]);
    for (name, ids) in NAMES.into_iter().zip([&["1-0", "2-0"][..], &["1-0"], &["3-0"]]) {
        server.command(&["XGROUP", "CREATE", name, "billing", "0", "MKSTREAM"]);
        for id in ids {
            server.command(&["XADD", name, id, "type", "order.placed", "data", "{}"]);
        }
    }
    for name in &NAMES[..2] {
        let words = ["XREADGROUP", "GROUP", "billing", "web-1", "COUNT", "1", "STREAMS", name, ">"];
        server.command(&words);
    }
    server
}

#[test]
fn the_whole_is_shown_with_its_partitions_and_one_of_them_by_its_number() {
    let server = server();
    let ran = run(&server, "info orders").ended(0);
    assert!(ran.out.contains("entries            4\n"), "{ran:?}");
    assert!(ran.out.contains("\n1          orders:p1:{1801}   1        1-0    1-0\n"), "{ran:?}");
    let document = run(&server, "info orders --json").ended(0).json();
    let lengths = document["partitions"].as_array().unwrap().iter().map(|part| &part["length"]);
    assert_eq!(lengths.collect::<Vec<_>>(), [&json!(2), &json!(1), &json!(1)]);
    let one = run(&server, "info orders --partition 2 --json").ended(0).json();
    assert_eq!((&one["stream"], &one["length"]), (&json!(NAMES[2]), &json!(1)));
    assert!(one["partitions"].is_null(), "{one}");
    let missing = run(&server, "info orders --partition 3").ended(1);
    assert_eq!(missing.err, "streamjobs: stream orders has no partition 3: it has 3 partitions\n");
    let groups = run(&server, "groups orders --json").ended(0).json();
    let group = &groups["groups"][0];
    assert_eq!(groups["groups"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&group["backlog"], &group["pending"], &group["partitions"]),
        (&json!(2), &json!(2), &json!(3))
    );
}

#[test]
fn rows_have_addresses_that_commands_take() {
    let server = server();
    let listed = run(&server, "pending orders billing --limit 1").ended(0);
    assert!(listed.out.contains("\n1-0@0  web-1"), "{listed:?}");
    assert_eq!(listed.err, "more results: --after 1-0@0\n");
    let rest = run(&server, "pending orders billing --after 1-0@0 --json").ended(0).json();
    assert_eq!(rest["entries"][0]["id"], "1-0@1");
    let refused = run(&server, "release orders billing 1-0 --yes").ended(1);
    assert!(refused.err.contains("partitions 0, 1 of stream orders have an id 1-0"), "{refused:?}");
    run(&server, "acknowledge orders billing 1-0@1 --yes").ended(0);
    assert_eq!(server.pending(NAMES[1], "billing").len(), 0);
    assert_eq!(server.pending(NAMES[0], "billing").len(), 1);
    // The partition alone, or the only one that has it.
    run(&server, "release orders billing 1-0 --partition 0 --yes").ended(0);
    run(&server, "acknowledge orders billing 1-0 --yes").ended(0);
    assert_eq!(server.pending(NAMES[0], "billing").len(), 0);
}

#[test]
fn the_history_of_all_partitions_is_printed_in_one_order() {
    let server = server();
    let ids = |line: &str| {
        let ran = run(&server, line).ended(0);
        let lines = ran.out.lines().map(serde_json::from_str::<serde_json::Value>);
        let ids = lines.map(|document| document.unwrap()["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    let all = ["1-0@0", "1-0@1", "2-0@0", "3-0@2"];
    assert_eq!(ids("replay orders --json"), all);
    assert_eq!(ids("replay orders --from 1-0@1 --to 2-0 --json"), all[1..3]);
    assert_eq!(ids("replay orders --partition 1 --json"), all[1..2]);
    assert_eq!(ids("tail orders --after 1-0@0 --count 3 --json"), all[1..]);
}

#[test]
fn a_pause_and_a_trim_reach_every_partition() {
    let server = server();
    run(&server, "pause orders billing --partition 1").ended(0);
    let some = run(&server, "groups orders").ended(0);
    assert!(some.out.trim_end().ends_with(" in 1 of 3"), "{some:?}");
    run(&server, "pause orders billing").ended(0);
    let all = run(&server, "groups orders --json").ended(0).json();
    assert_eq!(all["groups"][0]["paused_in"], 3);
    let words = "trim orders --length 0 --exact --lose-unfinished --yes";
    let trimmed = run(&server, &format!("{words} --json")).ended(0).json();
    assert_eq!((&trimmed["removed"], &trimmed["length"]), (&json!(4), &json!(0)));
}
