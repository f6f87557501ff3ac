use std::time::Duration;

use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::RedisServer;

use crate::app::{App, DEADLINE, Gate, Work, options, order, settled, until};

#[tokio::test]
async fn a_killed_and_restarted_server_with_a_log_loses_nothing() {
    let server =
        RedisServer::builder().append_only(true).config("appendfsync", "always").start().unwrap();
    let app = App::on(server).await;
    let counted = Work::fine();
    let long = options().lease(Duration::from_secs(2));
    let runtime = app.bare(&counted).group("work", long).start().await.unwrap();
    for round in 1..=3 {
        let batch = (0..100).map(|number| order(format!("{round}/{number}"))).collect::<Vec<_>>();
        for answer in app.client.publish_all(&batch).await {
            answer.unwrap();
        }
        app.server.kill();
        app.server.restart().unwrap();
        // The client's own connection finds the server again by itself.
        let last = order(format!("{round}/last"));
        eventually_async(DEADLINE, "published", async || app.client.publish(&last).await.is_ok())
            .await;
        until(DEADLINE, "done", || counted.distinct() == round * 101).await;
        app.drained("work").await;
    }
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_full_server_refuses_publishing_and_still_drains() {
    let app = App::start().await;
    app.publish(200).await;
    app.server.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    app.server.command(&["XGROUP", "CREATE", "orders", "work", "0"]);
    let counted = Work::fine();
    let runtime = app.runtime(&counted).start().await.unwrap();
    app.drained("work").await;
    let gate = Gate::default();
    let _ = runtime.shutdown().await;
    let gated = Work::gated(&gate);
    app.client.publish_all(&(1_000..1_010).map(order).collect::<Vec<_>>()).await;
    let runtime = app.runtime(&gated).start().await.unwrap();
    gated.wait_for(10).await;
    app.server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = app.client.publish(&order("too much")).await.unwrap_err();
    assert!(!error.is_unconfirmed());
    assert!(format!("{:?}", std::error::Error::source(&error)).contains("OOM"), "{error:?}");
    gate.open();
    until(DEADLINE, "drained while full", || app.pending("work") == 0).await;
    assert_eq!(gated.count(), 10);
    assert_eq!(runtime.counters().leases_lost, 0, "leases are renewed while full");
    app.server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_server_that_cannot_write_is_waited_for_and_nothing_runs_again() {
    let app = App::start().await;
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let long = options().lease(Duration::from_secs(30));
    let runtime = app.bare(&gated).group("work", long).start().await.unwrap();
    app.publish(5).await;
    gated.wait_for(5).await;
    app.server.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    gate.open();
    until(DEADLINE, "refused", || runtime.counters().server_errors > 0).await;
    assert_eq!(app.pending("work"), 5);
    app.server.command(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    app.drained("work").await;
    settled(&runtime).await;
    assert_eq!((gated.count(), runtime.counters().acknowledged), (5, 5));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_failing_snapshot_is_waited_for_and_nothing_runs_again() {
    let server = RedisServer::builder().config("enable-protected-configs", "yes").start().unwrap();
    let app = App::on(server).await;
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let long = options().lease(Duration::from_secs(30));
    let runtime = app.bare(&gated).group("work", long).start().await.unwrap();
    app.publish(5).await;
    gated.wait_for(5).await;
    // A snapshot cannot be written where a folder stands.
    std::fs::create_dir(app.server.dir().join("folder")).unwrap();
    app.server.command(&["CONFIG", "SET", "save", "3600 1", "dbfilename", "folder"]);
    app.server.command(&["BGSAVE"]);
    until(DEADLINE, "writes are refused", || {
        let answer = app.server.try_query::<redis::Value>(&["SET", "probe", "1"]);
        answer.is_err_and(|error| error.code() == Some("MISCONF"))
    })
    .await;
    gate.open();
    until(DEADLINE, "refused", || runtime.counters().server_errors > 0).await;
    app.server.command(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]);
    app.drained("work").await;
    settled(&runtime).await;
    assert_eq!((gated.count(), runtime.counters().acknowledged), (5, 5));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn forgotten_scripts_are_loaded_again_unnoticed() {
    let app = App::start().await;
    let flaky =
        Work::new(
            |_, job| async move { if job.attempt() == 1 { Err("again".into()) } else { Ok(()) } },
        );
    let runtime = app.runtime(&flaky).start().await.unwrap();
    for round in 0..10 {
        app.server.command(&["SCRIPT", "FLUSH"]);
        app.client.publish(&order(round)).await.unwrap();
        flaky.wait_for((round + 1) * 2).await;
    }
    app.drained("work").await;
    settled(&runtime).await;
    assert_eq!((runtime.counters().server_errors, runtime.counters().retried), (0, 10));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_stored_leaves_its_job_pending() {
    let app = App::start().await;
    app.server.command(&["SET", "{orders}:dead:work", "not a stream"]);
    let rejecting = Work::new(|_, _| async { Err(streamjobs::JobError::dead("no")) });
    let runtime = app.runtime(&rejecting).start().await.unwrap();
    app.client.publish(&order(1)).await.unwrap();
    until(DEADLINE, "refused", || runtime.counters().server_errors > 2).await;
    assert_eq!((app.pending("work"), rejecting.count()), (1, 1), "pending, and not run again");
    app.server.command(&["DEL", "{orders}:dead:work"]);
    until(DEADLINE, "stored once", || app.server.length("{orders}:dead:work") == 1).await;
    app.drained("work").await;
    assert_eq!(rejecting.count(), 1);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_verdict_that_has_to_wait_holds_no_other_up() {
    let app = App::start().await;
    app.server.command(&["SET", "{orders}:dead:work", "not a stream"]);
    let mixed = Work::new(|order, job| async move {
        match order.id.as_str() {
            "dead" => Err(streamjobs::JobError::dead("no")),
            "flaky" if job.attempt() == 1 => Err("once more".into()),
            _ => Ok(()),
        }
    });
    let runtime = app.runtime(&mixed).start().await.unwrap();
    app.client.publish(&order("dead")).await.unwrap();
    until(DEADLINE, "storing its dead letter is refused", || runtime.counters().server_errors > 2)
        .await;
    for id in ["flaky", "fine"] {
        app.client.publish(&order(id)).await.unwrap();
    }
    until(DEADLINE, "only the dead one is left", || app.left("work") == 1).await;
    let counters = runtime.counters();
    assert_eq!((counters.retried, counters.succeeded, counters.dead_lettered), (1, 2, 0));
    app.server.command(&["DEL", "{orders}:dead:work"]);
    app.drained("work").await;
    let _ = runtime.shutdown().await;
}
