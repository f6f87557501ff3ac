//! `streamjobs rate`: how many jobs of a group may start in a time.

use serde_json::json;

use crate::orders;
use crate::program::{run, run_at};

#[test]
fn a_rate_is_set_shown_and_reset_for_every_process() {
    let server = orders::server();
    let stored = || server.query::<Option<String>>(&["HGET", "{orders}:group:billing", "rate"]);
    let ran = run(&server, "rate set orders billing 100/1m --burst 20").ended(0);
    assert_eq!(ran.out, "set the rate of group billing on stream orders to 100/1m, burst 20\n");
    assert_eq!(stored().as_deref(), Some("100/60000000/20"));
    let again = run(&server, "rate set orders billing 100/60s --burst 20").ended(0);
    assert!(again.out.contains("already"), "{again:?}");
    let shown = run(&server, "rate show orders billing").ended(0);
    let rows = ["in the code        none", "set                100/1m, burst 20"];
    assert!(rows.iter().all(|row| shown.out.contains(row)), "{shown:?}");
    assert_eq!(shown.out.lines().count(), 4, "{shown:?}");
    server.command(&["HSET", "{orders}:group:billing", "limited", "0 253402300799999"]);
    let shown = run(&server, "rate show orders billing --json").ended(0).json();
    assert_eq!(shown["set"], json!("100/1m, burst 20"));
    assert_eq!(shown["limited_ms"], json!(86_400_000), "a day at most");
    run(&server, "rate set orders billing off").ended(0);
    assert_eq!(stored().as_deref(), Some("off"));
    let shown = run(&server, "rate show orders billing --json").ended(0).json();
    assert_eq!((&shown["set"], &shown["limited_ms"]), (&json!("unlimited"), &json!(null)));
    let ran = run(&server, "rate reset orders billing").ended(0);
    assert_eq!(ran.out, "group billing on stream orders has the rate of its code again\n");
    assert_eq!(stored(), None);
    assert_eq!(run(&server, "rate reset orders billing --json").ended(3).json()["done"], 0);
}

#[test]
fn what_is_no_rate_or_no_group_is_refused() {
    let server = orders::server();
    for (rate, fault) in [
        ("0/1m", "zero"),
        ("100", "is not a rate"),
        ("100/1y", "is not a rate"),
        ("1/31d", "1ms to 30d"),
        ("100/1m --burst 0", "--burst"),
    ] {
        let line = format!("rate set orders billing {rate}");
        let ran = run_at("redis://127.0.0.1:1", &line).ended(2);
        assert!(ran.err.contains(fault), "{ran:?}");
    }
    let ran = run(&server, "rate set orders billing 1/30d --burst 20").ended(1);
    assert!(ran.err.contains("worth at most 365 days"), "{ran:?}");
    for line in
        ["rate set orders refunds 1/1m", "rate show orders refunds", "rate reset refunds billing"]
    {
        run(&server, line).ended(1);
    }
    assert_eq!(server.query::<usize>(&["EXISTS", "{orders}:group:refunds"]), 0);
}
