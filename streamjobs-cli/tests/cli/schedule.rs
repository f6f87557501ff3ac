//! `streamjobs schedule`: what publishes again and again.

use serde_json::json;
use streamjobs_tests::server::RedisServer;

use crate::orders;
use crate::program::run;

fn server() -> RedisServer {
    let server = orders::server();
    orders::put_schedules(&server, &[("b-hourly", "0 * * * *"), ("a-daily", "30 2 * * *")]);
    server
}

#[test]
fn schedules_are_listed_and_shown_in_words() {
    let server = server();
    let ran = run(&server, "schedule list orders").ended(0);
    let lines = ran.out.lines().collect::<Vec<_>>();
    assert_eq!((lines.len(), &*ran.err), (3, ""), "{ran:?}");
    assert!(lines[0].starts_with("NAME ") && lines[1].starts_with("a-daily   active"), "{ran:?}");
    assert!(lines[1].contains("At 02:30 every day (UTC)"), "{ran:?}");
    let cut = run(&server, "schedule list orders --limit 1").ended(0);
    assert_eq!(cut.err, "more results: --after a-daily\n");
    let rest = run(&server, "schedule list orders --after a-daily --json").ended(0).json();
    let row = &rest["schedules"][0];
    assert_eq!((&row["name"], &rest["more_after"]), (&json!("b-hourly"), &json!(null)));
    assert_eq!(row["type"], json!("order.placed"));
    assert_eq!((&row["timing"], &row["origin"]), (&json!("0 * * * *"), &json!("stored")));
    assert!(row["next_in_ms"].as_u64().unwrap() <= 3_600_000, "{row}");
    let shown = run(&server, "schedule show orders b-hourly").ended(0);
    assert!(shown.out.contains("timing") && shown.out.contains("0 * * * *"), "{shown:?}");
    assert!(shown.out.contains("overlap") && shown.out.contains("allowed"), "{shown:?}");
    let document = run(&server, "schedule show orders a-daily --json").ended(0).json();
    assert_eq!((&document["fired"], &document["missed"]), (&json!(0), &json!(0)));
    assert_eq!((&document["skipped"], &document["overlap"]), (&json!(0), &json!(null)));
    assert!(!format!("{ran:?}{shown:?}{document}").contains("4711"), "no payload");
    let missing = run(&server, "schedule show orders c").ended(1);
    assert!(missing.err.contains("stream orders has no schedule c"), "{missing:?}");
    run(&server, "schedule list missing").ended(1);
    run(&server, "schedule show orders a/b").ended(2);
}

#[test]
fn a_schedule_is_run_paused_resumed_and_removed() {
    let server = server();
    let before = server.length("orders");
    let ran = run(&server, "schedule run orders a-daily").ended(0);
    assert!(ran.out.starts_with("published 1"), "{ran:?}");
    assert_eq!(server.length("orders"), before + 1);
    let history = run(&server, "schedule history orders a-daily --json").ended(0).json();
    let firing = &history["firings"][0];
    assert_eq!((&firing["due_ms"], &firing["published"]), (&json!(null), &json!(1)));
    let history = run(&server, "schedule history orders").ended(0);
    assert!(history.out.contains("a-daily  by hand"), "{history:?}");
    assert_eq!(run(&server, "schedule pause orders a-daily").ended(0).out, "paused a-daily\n");
    let shown = run(&server, "schedule show orders a-daily --json").ended(0).json();
    assert_eq!((&shown["state"], &shown["next_ms"]), (&json!("paused"), &json!(null)));
    assert_eq!(run(&server, "schedule resume orders a-daily").ended(0).out, "resumed a-daily\n");
    let again = run(&server, "schedule resume orders a-daily").ended(3);
    assert_eq!(again.out, "not paused: a-daily\n");
    let planned = run(&server, "schedule remove orders a-daily").ended(3);
    assert!(planned.out.starts_with("would remove schedule a-daily"), "{planned:?}");
    let removed = run(&server, "schedule remove orders a-daily --yes").ended(0);
    assert_eq!(removed.out, "removed a-daily\n");
    let gone = run(&server, "schedule remove orders a-daily --yes --json").ended(3).json();
    assert_eq!(gone["done"], json!(false));
    run(&server, "schedule pause orders a-daily").ended(1);
}
