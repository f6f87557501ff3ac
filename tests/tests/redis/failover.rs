//! A replica that lags, and one that takes over: what was acknowledged may come again, and only that.

use std::time::{Duration, Instant};

use streamjobs::{Client, Runtime, handlers};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::proxy::{FaultProxy, Mode};
use streamjobs_tests::server::RedisServer;

use crate::app::{App, DEADLINE, Gate, Work, options, order, quick, settled, until, work};

/// A server that can follow another one, and sends a replica all it has without waiting for more.
fn server() -> RedisServer {
    let builder = RedisServer::builder().no_cluster().config("repl-diskless-sync-delay", "0");
    builder.start().unwrap()
}

/// A reader that waits is told at once, which the length of its wait shows.
#[tokio::test]
async fn a_reader_unblocked_by_a_demotion_goes_on_without_a_busy_loop() {
    let (app, primary) = (App::on(server()).await, server());
    let fine = Work::fine();
    let builder = app.runtime(&fine).block(Duration::from_secs(60));
    let runtime = builder.start().await.unwrap();
    app.publish(1).await;
    app.drained("work").await;
    let waits = |row: &streamjobs_tests::server::ClientRow| row.flags.contains('b');
    until(DEADLINE, "a reader waits", || app.server.client_list().iter().any(waits)).await;
    primary.follow(app.server.port());
    primary.promote();
    app.server.command(&["CONFIG", "RESETSTAT"]);
    let begun = Instant::now();
    app.server.follow(primary.port());
    assert!(app.server.info("errorstat_UNBLOCKED").is_some(), "the reader was told");
    until(DEADLINE, "refused", || runtime.counters().server_errors > 2).await;
    app.server.promote();
    app.client.publish(&order("after")).await.unwrap();
    fine.wait_for(2).await;
    let counters = runtime.counters();
    // Every loop meets an error twenty times a second at most, as often as its settings make it scan.
    let most = 60 + 100 * begun.elapsed().as_secs();
    assert!(counters.server_errors < most && counters.failed == 0, "{counters:?}");
    let _ = runtime.shutdown().await;
}

/// The link to the replica is cut, so that it knows five jobs as running that end afterwards, and
/// of the five that are published afterwards it knows nothing.
#[tokio::test]
async fn a_promoted_replica_that_lags_costs_its_tail_and_repeats_only_that() {
    let (app, replica) = (App::on(server()).await, server());
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let runtime = app.runtime(&gated).start().await.unwrap();
    app.client.publish_all(&(0..5).map(|n| order(format!("kept {n}"))).collect::<Vec<_>>()).await;
    gated.wait_for(5).await;
    let link = FaultProxy::start(&app.server).unwrap();
    replica.follow(link.port());
    link.set(Mode::BlackHole);
    gate.open();
    app.client.publish_all(&(0..5).map(|n| order(format!("tail {n}"))).collect::<Vec<_>>()).await;
    app.drained("work").await;
    let _ = runtime.shutdown().await;
    app.server.kill();
    replica.promote();
    assert_eq!((replica.length("orders"), replica.pending("orders", "work").len()), (5, 5));
    let promoted = App::on(replica).await;
    let again = Work::fine();
    let runtime = promoted.runtime(&again).start().await.unwrap();
    promoted.client.publish(&order("new")).await.unwrap();
    promoted.drained("work").await;
    settled(&runtime).await;
    let mut done: Vec<String> = again.runs().into_iter().map(|run| run.order).collect();
    done.sort();
    assert_eq!(done, ["kept 0", "kept 1", "kept 2", "kept 3", "kept 4", "new"]);
    let counters = runtime.counters();
    assert_eq!((counters.failed, counters.dead_lettered), (0, 0));
    let _ = runtime.shutdown().await;
}

/// Redis 7.0 and 7.2 do not send their replicas how much a group has read. What the group had done before
/// is not told as lost, and what is lost afterwards is.
#[tokio::test]
async fn a_promoted_replica_tells_no_loss_that_there_was_not() {
    let (app, replica) = (App::on(server()).await, server());
    let fine = Work::fine();
    let runtime = app.runtime(&fine).start().await.unwrap();
    app.publish(5).await;
    app.drained("work").await;
    replica.follow(app.server.port());
    app.publish(20).await;
    app.drained("work").await;
    let _ = runtime.shutdown().await;
    app.server.command(&["XTRIM", "orders", "MAXLEN", "3"]);
    until(DEADLINE, "replicated", || replica.length("orders") == 3).await;
    app.server.kill();
    replica.promote();
    let promoted = App::on(replica).await;
    let runtime = promoted.runtime(&fine).start().await.unwrap();
    promoted.publish(1).await;
    promoted.drained("work").await;
    // More heartbeats, after the group has read on.
    let _ = runtime.shutdown().await;
    let runtime = promoted.runtime(&fine).start().await.unwrap();
    assert_eq!(runtime.counters().trimmed_unread, 0);
    promoted.publish(1).await;
    promoted.drained("work").await;
    let _ = runtime.shutdown().await;
    promoted.publish(4).await;
    promoted.server.command(&["XTRIM", "orders", "MAXLEN", "0"]);
    let runtime = promoted.runtime(&fine).start().await.unwrap();
    assert_eq!(runtime.counters().trimmed_unread, 4);
    let _ = runtime.shutdown().await;
}

/// Before a process sends a heartbeat there, or where none runs. The replica has the count of its last
/// full synchronization.
#[tokio::test]
async fn a_group_on_a_promoted_replica_shows_no_loss_that_there_was_not() {
    let (app, replica) = (App::on(server()).await, server());
    let fine = Work::fine();
    // The primary's data set has another name from the first replica on.
    replica.follow(app.server.port());
    let runtime = app.runtime(&fine).start().await.unwrap();
    app.publish(5).await;
    app.drained("work").await;
    replica.promote();
    replica.follow(app.server.port());
    app.publish(20).await;
    app.drained("work").await;
    let _ = runtime.shutdown().await;
    app.publish(4).await;
    app.server.command(&["XTRIM", "orders", "MAXLEN", "4"]);
    until(DEADLINE, "replicated", || replica.length("orders") == 4).await;
    app.server.kill();
    replica.promote();
    let promoted = App::on(replica).await;
    let stream = promoted.client.stream("orders").unwrap();
    let group = stream.groups().await.unwrap().remove(0);
    assert_eq!((group.trimmed_unread, group.backlog.entries), (0, 4));
    let runtime = promoted.runtime(&fine).start().await.unwrap();
    promoted.drained("work").await;
    let _ = runtime.shutdown().await;
    // The count is known again after a heartbeat, and what is lost since then is shown.
    promoted.publish(4).await;
    promoted.server.command(&["XTRIM", "orders", "MAXLEN", "1"]);
    assert_eq!(stream.groups().await.unwrap().remove(0).trimmed_unread, 3);
}

/// A primary that keeps nothing comes back empty, and its replica becomes as empty.
#[tokio::test]
async fn replicas_emptied_by_their_primary_get_their_groups_back_and_tell_of_it() {
    let (app, primary) = (App::on(server()).await, server());
    let fine = Work::fine();
    let runtime = app.runtime(&fine).start().await.unwrap();
    app.publish(5).await;
    app.drained("work").await;
    primary.follow(app.server.port());
    primary.promote();
    app.server.follow(primary.port());
    primary.kill();
    // What it was sent as a replica is all that is on its disk.
    std::fs::remove_file(primary.dir().join("dump.rdb")).unwrap();
    primary.restart().unwrap();
    until(DEADLINE, "emptied", || app.server.length("orders") == 0).await;
    app.server.promote();
    let next = order("next");
    eventually_async(DEADLINE, "published", async || app.client.publish(&next).await.is_ok()).await;
    fine.wait_for(6).await;
    app.drained("work").await;
    assert!(runtime.counters().groups_recreated >= 1, "{:?}", runtime.counters());
    let _ = runtime.shutdown().await;
}

/// The address stays, and what answers there becomes another server, as Sentinel and DNS do it.
#[tokio::test]
async fn an_address_that_leads_to_another_primary_is_followed() {
    let (app, successor) = (App::on(server()).await, server());
    let address = FaultProxy::start(&app.server).unwrap();
    let client = Client::connect(address.url()).await.unwrap();
    let fine = Work::fine();
    let builder = Runtime::builder(&client).handlers(handlers![work]).state(fine.clone());
    let runtime = quick(builder.group("work", options())).start().await.unwrap();
    app.publish(5).await;
    app.drained("work").await;
    successor.follow(app.server.port());
    successor.promote();
    address.aim(&successor);
    app.server.follow(successor.port());
    let next = order("next");
    eventually_async(DEADLINE, "published", async || client.publish(&next).await.is_ok()).await;
    fine.wait_for(6).await;
    until(DEADLINE, "acknowledged there", || successor.pending("orders", "work").is_empty()).await;
    assert_eq!((successor.length("orders"), fine.distinct()), (6, 6));
    assert_eq!(runtime.counters().failed, 0);
    let _ = runtime.shutdown().await;
}
