//! `streamjobs cancel`, `uncancel` and `cancelled`.

use serde_json::json;

use crate::orders;
use crate::program::run;

#[test]
fn events_are_cancelled_for_all_groups_or_one_listed_and_let_run_again() {
    let server = orders::server();
    orders::schedule(&server, &[("e-1", 1)]);
    let planned = run(&server, "cancel orders e-1 e-9").ended(3);
    assert!(
        planned.out.starts_with("would cancel 2 events for all groups of stream orders"),
        "{planned:?}"
    );
    assert_eq!(run(&server, "cancelled orders --json").ended(0).json()["events"], json!([]));
    let ran = run(&server, "cancel orders e-1 e-9 --yes").ended(0);
    assert_eq!(ran.out, "cancelled 2, of which 1 waited until they were due\n");
    let ran = run(&server, "cancel orders e-8 --group billing --yes --json").ended(0).json();
    assert_eq!((&ran["done"], &ran["group"]), (&json!(1), &json!("billing")));
    let list = run(&server, "cancelled orders").ended(0);
    let lines = list.out.lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!((lines.len(), &*list.err), (3, ""), "{list:?}");
    assert!(lines[1].starts_with("e-9  (all)    20") && lines[2].starts_with("e-8  billing  20"));
    let cut = run(&server, "cancelled orders --limit 1").ended(0);
    let (_, after) = cut.err.trim_end().split_once("more results: --after ").unwrap();
    let rest = run(&server, &format!("cancelled orders --after {after} --json")).ended(0).json();
    assert_eq!((&rest["events"][0]["id"], &rest["more_after"]), (&json!("e-8"), &json!(null)));
    let ran = run(&server, "uncancel orders e-9 e-8").ended(3);
    assert_eq!((&*ran.out, &*ran.err), ("uncancelled 1\n", "not cancelled: e-8\n"));
    let ran = run(&server, "uncancel orders e-8 --group billing --json").ended(0).json();
    assert_eq!((&ran["done"], &ran["not_cancelled"]), (&json!(1), &json!([])));
    assert_eq!(run(&server, "cancelled orders --json").ended(0).json()["events"], json!([]));
}

#[test]
fn a_stream_that_does_not_exist_is_named() {
    let server = orders::server();
    let ran = run(&server, "cancel no-such-stream e-1 --yes").ended(1);
    assert!(ran.err.contains("no-such-stream"), "{ran:?}");
    assert_eq!(run(&server, "cancelled no-such-stream").ended(1).out, "");
}
