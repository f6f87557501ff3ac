//! The framework's side, with every guarantee on.

use std::num::NonZeroU32;
use std::time::Duration;

use streamjobs::config::{GroupOptions, Retention};
use streamjobs::{Backoff, Client, JobError, Runtime, State, handler, handlers};
use streamjobs_tests::server::RedisServer;
use tokio::task::JoinSet;

use crate::by_hand;
use crate::job::{self, Counter, Order, order};
use crate::meter::{Cost, Meter};

/// Retention is off, as by hand.
pub async fn client(server: &RedisServer) -> Client {
    Client::builder(&server.url()).retention_default(Retention::Unlimited).connect().await.unwrap()
}

pub async fn publish_batches(server: &RedisServer, events: usize, bytes: usize) -> Cost {
    let (client, orders) = (client(server).await, orders(events, bytes));
    let meter = Meter::start(server);
    publish_in_batches(&client, &orders).await;
    meter.stop()
}

pub fn orders(events: usize, bytes: usize) -> Vec<Order> {
    (0..events).map(|number| order(number, bytes)).collect()
}

pub async fn publish_in_batches(client: &Client, orders: &[Order]) {
    for chunk in orders.chunks(by_hand::BATCH) {
        assert!(client.publish_all(chunk).await.iter().all(Result::is_ok));
    }
}

pub async fn publish_from(server: &RedisServer, tasks: usize, events: usize, bytes: usize) -> Cost {
    let client = client(server).await;
    let meter = Meter::start(server);
    publish_singly(&client, tasks, events, bytes).await;
    meter.stop()
}

pub async fn publish_singly(client: &Client, tasks: usize, events: usize, bytes: usize) {
    let mut publishing = JoinSet::new();
    for task in 0..tasks {
        let client = client.clone();
        publishing.spawn(async move {
            for number in (task..events).step_by(tasks) {
                client.publish(&order(number, bytes)).await.unwrap();
            }
        });
    }
    while let Some(ended) = publishing.join_next().await {
        ended.unwrap();
    }
}

pub async fn drain(server: &RedisServer, slots: NonZeroU32, events: usize, bytes: usize) -> Cost {
    by_hand::fill(server, events, bytes);
    let client = client(server).await;
    let counter = Counter::expect(events);
    let builder = Runtime::builder(&client).handlers(handlers![job::count]).state(counter.clone());
    let options = GroupOptions::new().concurrency(slots);
    let meter = Meter::start(server);
    let runtime = builder.group("bench", options).start().await.unwrap();
    counter.reached().await;
    let cost = meter.stop();
    let report = runtime.shutdown().await;
    assert!(report.abandoned.is_empty());
    cost
}

/// Fails at its first attempt.
#[handler(group = "failing")]
async fn fail_once(
    _order: Order,
    job: streamjobs::Job,
    State(counter): State<Counter>,
) -> Result<(), JobError> {
    if job.attempt() == 1 {
        return Err(JobError::retry("not yet"));
    }
    counter.add();
    Ok(())
}

pub async fn drain_failing(server: &RedisServer, slots: NonZeroU32, events: usize) -> Cost {
    by_hand::fill(server, events, 150);
    let client = client(server).await;
    let meter = Meter::start(server);
    let runtime = failing(&client, slots, events).await;
    let cost = meter.stop();
    let _ = runtime.shutdown().await;
    cost
}

/// Drains what waits, where each job fails once, and ends.
pub async fn fail_each_once(client: &Client, slots: NonZeroU32, events: usize) {
    let _ = failing(client, slots, events).await.shutdown().await;
}

/// A runtime that has done so many jobs, each at its second attempt.
async fn failing(client: &Client, slots: NonZeroU32, events: usize) -> Runtime {
    let counter = Counter::expect(events);
    let builder = Runtime::builder(client).handlers(handlers![fail_once]).state(counter.clone());
    let at_once = Backoff::exponential(Duration::from_millis(1), Duration::from_millis(1));
    let options = GroupOptions::new().concurrency(slots).backoff(at_once);
    let runtime = builder.group("failing", options).start().await.unwrap();
    counter.reached().await;
    runtime
}
