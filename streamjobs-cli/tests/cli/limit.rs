//! `streamjobs limit`: how many jobs of a group may run at once in all processes.

use serde_json::json;

use crate::orders;
use crate::program::{run, run_at};

pub const CODE: &str = ",\"limits\":\"4 at once for each group\",\"limit\":\"group 4\"";

#[test]
fn a_limit_is_set_shown_and_reset_for_every_process() {
    let server = orders::server();
    orders::heartbeat_with(&server, "web-1", CODE);
    let stored = || server.query::<Option<String>>(&["HGET", "{orders}:group:billing", "limit"]);
    let shown = run(&server, "limit show orders billing").ended(0);
    let rows = ["in the code        4 at once for each group", "set                none"];
    assert!(rows.iter().all(|row| shown.out.contains(row)), "{shown:?}");
    assert_eq!(shown.out.lines().collect::<Vec<_>>(), rows);
    let ran = run(&server, "limit set orders billing 8 --by alice --why faster").ended(0);
    assert_eq!(ran.out, "set the limit of group billing on stream orders to 8\n");
    let kept = stored().unwrap();
    assert!(kept.starts_with("group 8 ") && kept.contains("alice"), "{kept}");
    let again = run(&server, "limit set orders billing 8 --by bob --why again").ended(0);
    assert!(again.out.contains("already"), "{again:?}");
    let shown = run(&server, "limit show orders billing").ended(0);
    let expected = "set                concurrency_total is changed from 4 to 8 by bob: again";
    assert!(shown.out.contains(expected), "{shown:?}");
    let shown = run(&server, "limit show orders billing --json").ended(0).json();
    assert_eq!((&shown["set"]["limit"], &shown["set"]["from"]), (&json!(8), &json!(4)));
    assert!(shown["set"]["at_ms"].as_u64() > Some(1_600_000_000_000), "{shown}");
    assert_eq!(shown["followed"], true);
    // The code has an order now.
    let ordered = ",\"limits\":\"1 at once for each key, kept by retries\"";
    orders::heartbeat_with(&server, "web-1", ordered);
    let shown = run(&server, "limit show orders billing").ended(0);
    assert!(shown.out.ends_with("by bob: again, which no live process follows\n"), "{shown:?}");
    let ran = run(&server, "limit reset orders billing").ended(0);
    assert_eq!(ran.out, "group billing on stream orders has the limit of its code again\n");
    assert_eq!(stored(), None);
    assert_eq!(run(&server, "limit reset orders billing --json").ended(3).json()["done"], 0);
}

#[test]
fn a_limit_that_no_process_has_and_what_is_no_limit_are_refused() {
    let server = orders::server();
    let line = "limit set orders billing 8 --by alice --why faster";
    let ordered = ",\"limits\":\"1 at once for each key, kept by retries\"";
    for code in ["", ordered] {
        orders::heartbeat_with(&server, "web-1", code);
        let ran = run(&server, line).ended(1);
        assert!(ran.err.contains("no live process says"), "{ran:?}");
    }
    for wrong in ["limit set orders billing 0 --by a --why x", "limit set orders billing 8 --by a"]
    {
        run_at("redis://127.0.0.1:1", wrong).ended(2);
    }
    orders::heartbeat_with(&server, "web-1", CODE);
    let long = format!("limit set orders billing 8 --by a --why {}", "x".repeat(1_001));
    let ran = run(&server, &long).ended(1);
    assert!(ran.err.contains("a reason of 1 to 1,000 bytes"), "{ran:?}");
    for line in ["limit show orders refunds", "limit reset refunds billing"] {
        run(&server, line).ended(1);
    }
    let exists = server.query::<usize>(&["HEXISTS", "{orders}:group:billing", "limit"]);
    assert_eq!(exists, 0);
}
