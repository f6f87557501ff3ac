//! Streams on the nodes of a cluster: each is followed to the node that has its slot.

mod doctor;
mod failover;
mod moves;
mod refused;
mod servers;
mod whole;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use streamjobs::config::GroupOptions;
use streamjobs::{Client, EventId, Runtime, StreamName, handlers};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::{RedisCluster, RedisServer};

use crate::app::{DEADLINE, Work, order, quick, settled, until, work};

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

/// Outlasts what a busy machine takes to move a slot.
const LEASE: Duration = Duration::from_secs(3);

fn options() -> GroupOptions {
    GroupOptions::new().lease(LEASE).concurrency(NonZeroU32::new(16).unwrap())
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
