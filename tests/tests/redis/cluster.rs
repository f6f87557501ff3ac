//! Streams on the nodes of a cluster: each is followed to the node that has its slot.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use streamjobs::config::GroupOptions;
use streamjobs::{Client, EventId, Runtime, StreamName, handlers};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::{RedisCluster, RedisServer};

use crate::app::{DEADLINE, Order, Work, order, quick, settled, until, work};

/// One stream on each of three masters.
const STREAMS: [&str; 3] = ["orders", "bills", "parcels"];

/// Masters, and a process with one group on a stream of each.
struct App {
    cluster: RedisCluster,
    client: Client,
    work: Work,
    runtime: Runtime,
}

impl App {
    async fn start(cluster: RedisCluster, work: Work) -> Self {
        let client = Client::connect(&cluster.url()).await.unwrap();
        let builder = Runtime::builder(&client).handlers(handlers![self::work]).state(work.clone());
        let builder = quick(builder.group("work", options()).read_keys("orders", STREAMS));
        let runtime = builder.start().await.unwrap();
        Self { cluster, client, work, runtime }
    }

    /// Publishes to a stream, and again when the event is certainly not stored.
    async fn publish(&self, stream: &str, id: usize) {
        let stream = StreamName::new(stream).unwrap();
        let order = order(format!("{stream}-{id}"));
        let event = EventId::new(order.id.clone()).unwrap();
        eventually_async(DEADLINE, "published", async || {
            match self.client.publish_to(&stream, &order, event.clone()).await {
                Ok(_) => true,
                Err(error) => {
                    assert!(!error.is_unconfirmed(), "{error:?}");
                    false
                }
            }
        })
        .await;
    }

    /// Waits until so many different jobs are done, and nothing is pending.
    async fn done(&self, jobs: usize) {
        until(DEADLINE, &format!("{jobs} jobs"), || self.work.distinct() >= jobs).await;
        settled(&self.runtime).await;
        until(DEADLINE, "nothing pending", || STREAMS.iter().all(|key| self.pending(key) == 0))
            .await;
    }

    fn pending(&self, stream: &str) -> usize {
        let summary = self.cluster.query::<redis::Value>(stream, &["XPENDING", stream, "work"]);
        match summary.as_sequence().and_then(|summary| summary.first()) {
            Some(redis::Value::Int(number)) => usize::try_from(*number).unwrap(),
            other => panic!("XPENDING: {other:?}"),
        }
    }

    /// Each job ran once, at its first delivery, and nothing was taken for lost.
    fn all_ran_once(&self, jobs: usize) {
        let mut starts = HashMap::<String, usize>::new();
        for run in self.work.runs() {
            *starts.entry(run.order).or_default() += 1;
            assert_eq!(run.delivery_count, 1);
        }
        let repeated = starts.iter().filter(|(_, starts)| **starts > 1).collect::<Vec<_>>();
        assert!(repeated.is_empty(), "{repeated:?}");
        assert_eq!(starts.len(), jobs);
        let counters = self.runtime.counters();
        assert_eq!(
            (counters.leases_lost, counters.groups_recreated, counters.claimed, counters.failed),
            (0, 0, 0, 0),
            "{counters:?}"
        );
        assert_eq!((counters.trimmed, counters.trimmed_unread), (0, 0), "{counters:?}");
    }

    async fn stop(self) {
        let _ = self.runtime.shutdown().await;
    }
}

/// A lease that outlasts what a busy machine takes to move a slot.
fn options() -> GroupOptions {
    GroupOptions::new().lease(Duration::from_secs(3)).concurrency(NonZeroU32::new(16).unwrap())
}

/// Another master than the one that has the stream.
fn other_master<'c>(cluster: &'c RedisCluster, stream: &str) -> &'c RedisServer {
    let owner = cluster.master_of(RedisCluster::slot(stream)).port();
    cluster.nodes().iter().find(|node| node.port() != owner).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_all_masters_are_published_to_and_worked_on() {
    let app = App::start(RedisCluster::start().unwrap(), Work::fine()).await;
    for id in 0..20 {
        for stream in STREAMS {
            app.publish(stream, id).await;
        }
    }
    app.done(60).await;
    app.all_ran_once(60);
    for (stream, node) in STREAMS.into_iter().zip(app.cluster.nodes()) {
        assert_eq!(node.length(stream), 20, "{stream}");
    }
    app.stop().await;
}

/// In each state of a slot that is moved by hand, jobs are published, done and acknowledged: before its
/// keys are moved, when some of them are on either node, when all are on the new one, and after.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_moved_step_by_step_costs_no_job_its_lease() {
    let slow = Work::new(|_, _| async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok(())
    });
    let app = App::start(RedisCluster::start().unwrap(), slow).await;
    let (slot, mut published) = (RedisCluster::slot("orders"), 0);
    let to = other_master(&app.cluster, "orders");
    let step = async |published: &mut usize| {
        for id in *published..*published + 10 {
            app.publish("orders", id).await;
        }
        *published += 10;
    };
    step(&mut published).await;
    app.cluster.begin_migration(slot, to);
    step(&mut published).await;
    app.cluster.move_keys(slot, to);
    step(&mut published).await;
    // Jobs that are done while the slot is on its way.
    until(DEADLINE, "done on the way", || app.work.distinct() >= published).await;
    app.cluster.end_migration(slot, to);
    step(&mut published).await;
    app.done(published).await;
    assert_eq!(to.length("orders"), published);
    app.all_ran_once(published);
    app.stop().await;
}

/// Jobs of two leases run while their slot moves away and back, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_back_and_forth_loses_no_lease_and_no_group() {
    let long = Work::new(|order: Order, _| async move {
        let wait = if order.id.ends_with('0') { 6_000 } else { 20 };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        Ok(())
    });
    let app = App::start(RedisCluster::start().unwrap(), long).await;
    let slot = RedisCluster::slot("orders");
    for round in 0..8 {
        let to = other_master(&app.cluster, "orders");
        app.cluster.begin_migration(slot, to);
        for id in round * 5..round * 5 + 5 {
            app.publish("orders", id).await;
        }
        app.cluster.move_keys(slot, to);
        app.publish("bills", round).await;
        app.cluster.end_migration(slot, to);
        until(DEADLINE, "some are done", || app.work.distinct() > round * 5).await;
    }
    app.done(48).await;
    app.all_ran_once(48);
    app.stop().await;
}

/// The server says neither that the key is elsewhere nor to try again: only, at the end, that it has
/// moved.
#[tokio::test(flavor = "multi_thread")]
async fn slots_that_move_in_one_step_are_followed() {
    let app = App::start(RedisCluster::start().unwrap(), Work::fine()).await;
    let slot = RedisCluster::slot("orders");
    for round in 0..4 {
        let to = other_master(&app.cluster, "orders");
        if app.cluster.migrate_atomically(slot..=slot, to).is_none() {
            println!("this server moves slots key by key only");
            break;
        }
        for id in round * 5..round * 5 + 5 {
            app.publish("orders", id).await;
        }
        app.done(round * 5 + 5).await;
        app.all_ran_once(round * 5 + 5);
    }
    app.stop().await;
}

/// Chunks of a batch are on their way to the old node when the slot moves.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_stored_once_and_in_order_while_its_slot_moves() {
    let cluster = RedisCluster::start().unwrap();
    let client = Client::connect(&cluster.url()).await.unwrap();
    let orders = (0..20_000).map(order).collect::<Vec<_>>();
    client.publish(&order("first")).await.unwrap();
    let slot = RedisCluster::slot("orders");
    let publishing = client.publish_all(&orders);
    let moving = async {
        tokio::task::yield_now().await;
        tokio::task::block_in_place(|| {
            let to = other_master(&cluster, "orders");
            cluster.migrate(slot, to);
        });
    };
    let (answers, ()) = tokio::join!(publishing, moving);
    let refused = answers.iter().filter(|answer| answer.is_err()).count();
    assert_eq!(refused, 0, "{:?}", answers.iter().find(|answer| answer.is_err()));
    let entries = cluster.master_of(slot).entries("orders");
    let stored = entries.iter().skip(1).map(|entry| entry.text("data").unwrap());
    let expected = orders.iter().map(|order| serde_json::to_string(order).unwrap());
    assert!(stored.eq(expected), "stored once each, in order");
}
