//! Masters that are replaced, die, or come back.

use std::time::Duration;

use streamjobs_tests::server::{RedisCluster, RedisServer};

use super::{App, STREAMS};
use crate::app::{DEADLINE, Work, until};

fn with_replicas() -> RedisCluster {
    RedisCluster::builder().replicas(1).start().unwrap()
}

/// The master of the stream `orders`, and its replica once it has one that follows it.
async fn pair(cluster: &RedisCluster) -> (&RedisServer, &RedisServer) {
    let master = cluster.master_of(RedisCluster::slot("orders"));
    let follower = || {
        let follows =
            |node: &&&RedisServer| node.info("master_link_status").as_deref() == Some("up");
        let replicas = cluster.replicas_of(master);
        replicas.iter().find(follows).copied()
    };
    until(DEADLINE, "the master has a replica", || follower().is_some()).await;
    (master, follower().unwrap())
}

/// Publishes five events to each stream, and waits until they are done.
async fn five_more(app: &App, published: &mut usize) {
    for id in *published..*published + 5 {
        for stream in STREAMS {
            app.publish(stream, id).await;
        }
    }
    *published += 5;
    app.done(*published * STREAMS.len()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_takes_over_by_hand_is_followed_without_a_loss() {
    let (app, mut published) = (App::start(with_replicas(), Work::fine()).await, 0);
    five_more(&app, &mut published).await;
    // A third time in so short a time, Redis 8.10 takes over with the votes of the first, and the other
    // nodes never follow.
    for _ in 0..2 {
        let (_, replica) = pair(&app.cluster).await;
        app.cluster.fail_over(replica);
        five_more(&app, &mut published).await;
    }
    app.all_ran_once(published * STREAMS.len());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_go_on_after_a_master_was_killed_and_none_that_was_replicated_is_lost() {
    let (app, mut published) = (App::start(with_replicas(), Work::fine()).await, 0);
    five_more(&app, &mut published).await;
    let (master, replica) = pair(&app.cluster).await;
    let is_replicated = || replica.info("master_repl_offset") == master.info("master_repl_offset");
    until(DEADLINE, "replicated", is_replicated).await;
    master.kill();
    five_more(&app, &mut published).await;
    assert_eq!(app.cluster.master_of(RedisCluster::slot("orders")).port(), replica.port());
    assert_eq!(app.runtime.counters().failed, 0);
    // The former master comes back as a replica of the new one, and takes over again.
    master.restart().unwrap();
    let is_back =
        || app.cluster.replicas_of(replica).iter().any(|node| node.port() == master.port());
    until(DEADLINE, "it is back", is_back).await;
    let is_synchronized = || master.info("master_link_status").as_deref() == Some("up");
    until(DEADLINE, "it has all", is_synchronized).await;
    app.cluster.fail_over(master);
    five_more(&app, &mut published).await;
    app.stop().await;
}

/// Without a replica, the others say that the cluster is down until the master is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_master_without_a_replica_is_waited_for() {
    let cluster = RedisCluster::builder().append_only(true).start().unwrap();
    let (app, mut published) = (App::start(cluster, Work::fine()).await, 0);
    five_more(&app, &mut published).await;
    let master = app.cluster.master_of(RedisCluster::slot("orders"));
    let other = app.cluster.master_of(RedisCluster::slot("bills"));
    master.kill();
    let says_down = || other.try_query::<String>(&["GET", "bills-1"]).is_err();
    until(DEADLINE, "the cluster is down", says_down).await;
    let errors = app.runtime.counters().server_errors;
    until(DEADLINE, "noticed", || app.runtime.counters().server_errors > errors).await;
    master.restart().unwrap();
    five_more(&app, &mut published).await;
    app.all_ran_once(published * STREAMS.len());
    app.stop().await;
}

/// Where the cluster serves what it has, the streams of living masters go on.
#[tokio::test(flavor = "multi_thread")]
async fn streams_of_living_masters_go_on_while_another_one_is_dead() {
    let builder = RedisCluster::builder().append_only(true).full_coverage(false);
    let app = App::start(builder.start().unwrap(), Work::fine()).await;
    let master = app.cluster.master_of(RedisCluster::slot("orders"));
    master.kill();
    for id in 0..10 {
        app.publish("bills", id).await;
        app.publish("parcels", id).await;
    }
    until(DEADLINE, "done", || app.work.distinct() == 20).await;
    master.restart().unwrap();
    for id in 0..10 {
        app.publish("orders", id).await;
    }
    app.done(30).await;
    app.all_ran_once(30);
    app.stop().await;
}

/// A node that stops answering without closing its connections, for less than it takes until another one
/// takes over.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_master_is_waited_for() {
    let cluster = RedisCluster::builder().node_timeout(Duration::from_secs(30)).start().unwrap();
    let (app, mut published) = (App::start(cluster, Work::fine()).await, 0);
    five_more(&app, &mut published).await;
    let master = app.cluster.master_of(RedisCluster::slot("orders"));
    master.freeze();
    app.publish("bills", published).await;
    let jobs = published * STREAMS.len() + 1;
    until(DEADLINE, "others go on", || app.work.distinct() == jobs).await;
    master.thaw();
    app.publish("orders", published).await;
    app.done(jobs + 1).await;
    app.all_ran_once(jobs + 1);
    app.stop().await;
}
