//! Faults of the server that last for a while: nothing is lost, nothing runs twice.

use std::time::Duration;

use streamjobs_tests::server::RedisServer;

use crate::app::{App, DEADLINE, Gate, Work, options, order, settled, until};

#[tokio::test]
async fn a_primary_that_becomes_a_replica_is_waited_for_and_charges_no_job() {
    let (app, primary) = (App::start().await, RedisServer::start().unwrap());
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let long = options().lease(Duration::from_secs(30));
    let runtime = app.bare(&gated).group("work", long).start().await.unwrap();
    app.publish(5).await;
    gated.wait_for(5).await;
    // It follows a server that follows it first, so that both have the same data.
    primary.follow(app.server.port());
    primary.promote();
    app.server.follow(primary.port());
    gate.open();
    until(DEADLINE, "refused", || runtime.counters().server_errors > 0).await;
    app.server.promote();
    app.drained("work").await;
    settled(&runtime).await;
    let counters = runtime.counters();
    assert_eq!((gated.count(), counters.failed, counters.buried), (5, 0, 0));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn writes_that_are_paused_are_waited_for_and_nothing_runs_again() {
    let app = App::start().await;
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let long = options().lease(Duration::from_secs(30));
    let runtime = app.bare(&gated).group("work", long).start().await.unwrap();
    app.publish(5).await;
    gated.wait_for(5).await;
    app.server.command(&["CLIENT", "PAUSE", "1000", "WRITE"]);
    gate.open();
    app.client.publish(&order("later")).await.unwrap();
    gated.wait_for(6).await;
    app.drained("work").await;
    settled(&runtime).await;
    assert_eq!((gated.count(), runtime.counters().failed), (6, 0));
    let _ = runtime.shutdown().await;
}
