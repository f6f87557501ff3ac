//! `streamjobs group`: creating, moving and destroying groups.

use serde_json::json;
use streamjobs_tests::server::RedisServer;

use crate::orders::{heartbeat, read, server};
use crate::program::run;

/// The id after which the group continues.
fn cursor(server: &RedisServer) -> String {
    let document = run(server, "groups orders --json").ended(0).json();
    document["groups"][0]["cursor"].as_str().unwrap().to_owned()
}

#[test]
fn a_group_is_created_once_at_the_given_position() {
    let server = RedisServer::start().unwrap();
    server.command(&["XADD", "orders", "5-0", "f", "v"]);
    let ran = run(&server, "group create orders billing --start $").ended(0);
    assert_eq!(ran.out, "created group billing on stream orders, starting at the end\n");
    assert_eq!(cursor(&server), "5-0");
    let again = run(&server, "group create orders billing").ended(0);
    assert_eq!(again.out, "group billing on stream orders already exists\n");
    let document = run(&server, "group create orders billing --json").ended(0).json();
    assert_eq!((&document["done"], cursor(&server)), (&json!(0), "5-0".to_owned()));
}

/// Its processes may come to an added partition later than the events.
#[test]
fn a_group_is_created_in_an_added_partition_with_all_that_came_since_it_exists() {
    let server = RedisServer::start().unwrap();
    server.command(&["HSET", "{orders}:partitions", "count", "2", "version", "1"]);
    let old = ["orders", "orders:p1:{1801}"];
    for partition in old {
        server.command(&["XADD", partition, "5-0", "f", "v"]);
    }
    let _ = run(&server, "group create orders billing --start $").ended(0);
    server.command(&["HSET", "{orders}:partitions", "count", "3"]);
    server.command(&["XADD", "orders:p2:{22348}", "6-0", "f", "v"]);
    for group in ["billing", "mail"] {
        let created = run(&server, &format!("group create orders {group} --start $")).ended(0);
        assert!(created.out.starts_with("created group"), "{created:?}");
    }
    let document = run(&server, "groups orders --json").ended(0).json();
    let lag = |place: usize| &document["groups"][place]["lag"];
    assert_eq!((lag(0), lag(1)), (&json!(1), &json!(0)), "{document}");
}

#[test]
fn a_group_is_moved_only_with_yes_and_skips_only_with_lose_unfinished() {
    let server = server();
    let would = run(&server, "group move orders billing $ --lose-unfinished").ended(3);
    assert!(would.out.starts_with("would move group billing on stream orders"), "{would:?}");
    let dry = run(&server, "group move orders billing $").ended(3);
    let refused = run(&server, "group move orders billing $ --yes").ended(3);
    assert!(
        refused.err.contains("undelivered entries; --lose-unfinished allows it"),
        "{refused:?}"
    );
    assert!(refused.out.is_empty() && (dry.err, dry.out) == (refused.err, refused.out));
    for (line, dry_run) in [("", true), (" --yes", false)] {
        let line = format!("group move orders billing $ --json{line}");
        let document = run(&server, &line).ended(3).json();
        assert!(document["reason"].as_str().unwrap().contains("undelivered"), "{document}");
        assert_eq!(document["dry_run"], dry_run);
    }
    assert_eq!(cursor(&server), "3-0");
    let moved = run(&server, "group move orders billing $ --yes --lose-unfinished").ended(0);
    assert_eq!(moved.out, "moved group billing on stream orders: it continues at the end\n");
    assert_eq!(cursor(&server), "6-0");
    let document = run(&server, "group move orders billing 0 --yes --json").ended(0).json();
    assert_eq!((&document["done"], cursor(&server)), (&json!(1), "0-0".to_owned()));
}

#[test]
fn a_group_moved_to_a_time_continues_with_its_first_entry() {
    let server = server();
    let _ = run(&server, "group move orders billing 2 --yes").ended(0);
    read(&server, "web-2", 1);
    let pending = run(&server, "pending orders billing --consumer web-2 --json").json();
    assert_eq!(pending["entries"][0]["id"], "2-0");
}

#[test]
fn a_group_is_destroyed_only_with_yes_and_loses_work_only_with_lose_unfinished() {
    let server = server();
    let would = run(&server, "group destroy orders billing --lose-unfinished").ended(3);
    assert!(would.out.contains("with backlog 3, pending 3, retries 0"), "{would:?}");
    let dry = run(&server, "group destroy orders billing").ended(3);
    let refused = run(&server, "group destroy orders billing --yes").ended(3);
    assert!(refused.err.contains("3 pending entries"), "{refused:?}");
    assert!(refused.err.ends_with("; --lose-unfinished allows it\n"), "{refused:?}");
    assert_eq!((dry.err, dry.out), (refused.err, refused.out));
    heartbeat(&server, "web-1");
    let line = "group destroy orders billing --lose-unfinished --yes";
    let dry = run(&server, "group destroy orders billing --lose-unfinished").ended(3);
    let alive = run(&server, line).ended(3);
    assert!(alive.err.contains("consumer web-1 of group billing is alive"), "{alive:?}");
    assert!(!alive.err.contains("allows"), "no flag allows it: {alive:?}");
    assert_eq!((dry.err, dry.out), (alive.err, alive.out));
    server.command(&["HDEL", "{orders}:group:billing", "beat:web-1"]);
    let document = run(&server, &format!("{line} --json")).ended(0).json();
    assert_eq!((&document["action"], &document["done"]), (&json!("destroy"), &json!(1)));
    let missing = run(&server, line).ended(1);
    assert_eq!(missing.err, "streamjobs: stream orders has no group billing\n");
    assert_eq!(server.length("orders"), 6);
}
