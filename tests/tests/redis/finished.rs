//! Jobs that are done are noted on a server.

use std::time::Duration;

use streamjobs::stream::{FinishedQuery, Unfinished};

use crate::app::{App, DEADLINE, Gate, Work, options, order, until};

const KEY: &str = "{orders}:done:work";

#[tokio::test]
async fn jobs_that_are_done_are_noted_for_a_while_beside_the_stream() {
    let (app, work) = (App::start().await, Work::fine());
    let keep = options().keep_done(Duration::from_secs(3_600));
    let runtime = app.bare(&work).group("work", keep).start().await.unwrap();
    for number in 1..=40 {
        app.client.publish(&order(number)).await.unwrap();
    }
    app.drained("work").await;
    until(DEADLINE, "all are noted", || app.number(&["XLEN", KEY]) == 40).await;
    let rest = app.number(&["PTTL", KEY]);
    assert!(rest > 3_500_000 && rest <= 3_600_000, "{rest}");
    let group = app.client.stream("orders").unwrap().group("work").unwrap();
    let page = group.finished(FinishedQuery::new().limit(30)).await.unwrap();
    assert_eq!((page.jobs.len(), page.next.is_some()), (30, true));
    assert!(page.jobs.iter().all(|job| job.attempt == 1 && job.origin.is_some()));
    let _ = runtime.shutdown().await;
    group.destroy(Unfinished::Keep).await.unwrap();
    assert_eq!(app.number(&["EXISTS", KEY]), 0, "they go with the group");
}

#[tokio::test]
async fn a_full_server_and_a_key_of_another_type_take_no_notes_and_fail_no_job() {
    let (app, work) = (App::start().await, Work::fine());
    app.server.command(&["RPUSH", KEY, "x"]);
    let keep = options().keep_done(Duration::from_secs(3_600));
    let runtime = app.bare(&work).group("work", keep).start().await.unwrap();
    app.client.publish(&order(1)).await.unwrap();
    app.drained("work").await;
    let _ = runtime.shutdown().await;
    app.server.command(&["DEL", KEY]);
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let keep = options().keep_done(Duration::from_secs(3_600));
    let runtime = app.bare(&gated).group("work", keep).start().await.unwrap();
    app.client.publish(&order(2)).await.unwrap();
    gated.wait_for(1).await;
    app.server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    gate.open();
    app.drained("work").await;
    let counters = runtime.counters();
    assert_eq!((counters.succeeded, counters.failed, counters.leases_lost), (1, 0, 0));
    // What is left is written then.
    let _ = runtime.shutdown().await;
    let refused = app.server.query::<String>(&["INFO", "errorstats"]);
    assert!(refused.contains("errorstat_OOM"), "it was tried: {refused}");
    assert_eq!(app.number(&["EXISTS", KEY]), 0);
    app.server.command(&["CONFIG", "SET", "maxmemory", "0"]);
}
