//! `streamjobs unique`: unique events that stand.

use serde_json::json;
use streamjobs::unique::UniqueDigest;
use streamjobs_tests::server::RedisServer;

use crate::orders;
use crate::program::run;

fn digest() -> UniqueDigest {
    UniqueDigest::of_key("order.placed", Some("alice"), "a").unwrap()
}

/// A stream in which an event stands for an hour.
fn server() -> RedisServer {
    let server = orders::server();
    let lock = format!("{{orders}}:unique:{}", digest());
    server.command(&["SET", &lock, "1-0 e-1", "PX", "3600000"]);
    server
}

const KEY: &str = "a --type order.placed --event-key alice";

#[test]
fn the_event_that_stands_is_shown_by_its_digest_or_its_key() {
    let server = server();
    for key in [digest().as_str(), KEY] {
        let ran = run(&server, &format!("unique show orders {key}")).ended(0);
        assert!(ran.out.starts_with("e-1, entry 1-0, refuses equal events for 59m"), "{ran:?}");
    }
    let shown = run(&server, &format!("unique show orders {KEY} --json")).ended(0).json();
    assert_eq!((&shown["event_id"], &shown["entry"]), (&json!("e-1"), &json!("1-0")));
    assert_eq!(shown["digest"], digest().as_str());
    let rest = shown["rest_ms"].as_u64().unwrap();
    assert!(rest > 3_500_000 && rest <= 3_600_000, "{shown}");
    let none = run(&server, "unique show orders b --type order.placed").ended(3);
    assert_eq!(none.out, "there is no such event\n");
    let wrong = run(&server, "unique show orders b").ended(1);
    assert!(wrong.err.contains("not a digest") && wrong.err.contains("--type"), "{wrong:?}");
    run(&server, "unique show refunds b --type order.placed").ended(1);
    run(&server, "unique show orders b --event-key alice").ended(2);
}

#[test]
fn a_released_event_stands_no_more_and_another_one_is_left() {
    let server = server();
    let release = |options: &str| run(&server, &format!("unique release orders {KEY} {options}"));
    let planned = release("").ended(3);
    assert!(
        planned.out.starts_with("would release e-1, entry 1-0, refuses equal events"),
        "{planned:?}"
    );
    assert_eq!(release("--event e-2 --yes").ended(3).out, "there is no such event\n");
    run(&server, &format!("unique show orders {KEY}")).ended(0);
    assert_eq!(release("--event e-1 --yes").ended(0).out, "released e-1\n");
    run(&server, &format!("unique show orders {KEY}")).ended(3);
    let again = release("--yes --json").ended(3).json();
    assert_eq!((&again["done"], &again["event_id"]), (&json!(0), &json!(null)));
}
