//! Publish, drain and publish-to-start latency beside a hand-written loop over the `redis` crate.
//!
//! `cargo bench -p streamjobs-tests`; `-- --events 50000 --rounds 3` for a shorter run. Both sides
//! alternate on the same private server, and what counts is the ratio of their medians.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark reports on its output and fails by stopping"
)]

mod by_hand;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use streamjobs::config::{GroupOptions, Retention};
use streamjobs::{Client, Event, Runtime, State, handler, handlers};
use streamjobs_tests::figures::{Pairs, percentiles};
use streamjobs_tests::server::RedisServer;
use tokio::sync::Notify;

/// An event of about 150 bytes as JSON.
#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
pub struct Order {
    pub number: usize,
    pub order_id: String,
    pub customer: String,
    pub note: String,
}

pub fn order(number: usize) -> Order {
    Order {
        number,
        order_id: format!("o-{number:08}"),
        customer: "alice@example.com".to_owned(),
        note: "two pounds of coffee, whole beans, to be left with the neighbour".to_owned(),
    }
}

/// Counts jobs, and tells when all are done.
#[derive(Clone, Default)]
pub struct Counter {
    done: Arc<AtomicUsize>,
    wanted: Arc<AtomicUsize>,
    reached: Arc<Notify>,
    starts: Arc<Mutex<Vec<Instant>>>,
}

impl Counter {
    pub fn add(&self) {
        if self.done.fetch_add(1, Ordering::Relaxed) + 1 == self.wanted.load(Ordering::Relaxed) {
            self.reached.notify_one();
        }
    }

    pub fn start(&self, number: usize) {
        let now = Instant::now();
        let mut starts = self.starts.lock().unwrap();
        starts[number] = now;
        drop(starts);
        self.add();
    }

    fn expect(wanted: usize) -> Self {
        let counter = Self::default();
        counter.wanted.store(wanted, Ordering::Relaxed);
        *counter.starts.lock().unwrap() = vec![Instant::now(); wanted];
        counter
    }

    async fn reached(&self) {
        self.reached.notified().await;
    }
}

#[handler(group = "bench", concurrency = 1000)]
async fn count(_order: Order, State(counter): State<Counter>) {
    counter.add();
}

#[handler(group = "latency", concurrency = 16)]
async fn note_start(order: Order, State(counter): State<Counter>) {
    counter.start(order.number);
}

struct Settings {
    events: usize,
    rounds: usize,
    latencies: usize,
}

fn settings() -> Settings {
    let arguments = std::env::args().collect::<Vec<_>>();
    let after = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name)?;
        arguments.get(place + 1)?.parse().ok()
    };
    Settings {
        events: after("--events").unwrap_or(100_000),
        rounds: after("--rounds").unwrap_or(5),
        latencies: after("--latencies").unwrap_or(500),
    }
}

#[tokio::main]
async fn main() {
    let settings = settings();
    println!(
        "events {}, rounds {}, payload {} bytes",
        settings.events,
        settings.rounds,
        payload_bytes()
    );
    let (mut published, mut drained) = (Pairs::default(), Pairs::default());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..settings.rounds {
        let server = RedisServer::start().unwrap();
        published.push(
            publish(&server, settings.events).await,
            by_hand::publish(&server, settings.events).await,
        );
        let server = RedisServer::start().unwrap();
        // Which side goes first alternates too.
        if round % 2 == 0 {
            let first = drain(&server, settings.events).await;
            drained.push(first, by_hand::drain(&server, settings.events).await);
        } else {
            let second = by_hand::drain(&server, settings.events).await;
            drained.push(drain(&server, settings.events).await, second);
        }
        ours.extend(latency(&server, settings.latencies).await);
        theirs.extend(by_hand::latency(&server, settings.latencies).await);
    }
    println!("{}", published.line("publish in batches", settings.events));
    println!("{}", drained.line("drain", settings.events));
    println!("publish to start, streamjobs:   {}", percentiles(ours));
    println!("publish to start, by hand:      {}", percentiles(theirs));
}

fn payload_bytes() -> usize {
    serde_json::to_vec(&order(1)).unwrap().len()
}

async fn client(server: &RedisServer) -> Client {
    Client::builder(&server.url()).retention_default(Retention::Unlimited).connect().await.unwrap()
}

async fn publish(server: &RedisServer, events: usize) -> Duration {
    server.command(&["FLUSHALL"]);
    let client = client(server).await;
    let orders = (0..events).map(order).collect::<Vec<_>>();
    let started = Instant::now();
    for chunk in orders.chunks(500) {
        assert!(client.publish_all(chunk).await.iter().all(Result::is_ok));
    }
    started.elapsed()
}

async fn drain(server: &RedisServer, events: usize) -> Duration {
    by_hand::fill(server, events);
    let client = client(server).await;
    let counter = Counter::expect(events);
    let builder = Runtime::builder(&client).handlers(handlers![count]).state(counter.clone());
    let started = Instant::now();
    let runtime = builder.start().await.unwrap();
    counter.reached().await;
    let took = started.elapsed();
    let report = runtime.shutdown().await;
    assert!(report.abandoned.is_empty());
    took
}

async fn latency(server: &RedisServer, events: usize) -> Vec<Duration> {
    server.command(&["FLUSHALL"]);
    let client = client(server).await;
    let counter = Counter::expect(events);
    let options = GroupOptions::new().concurrency(NonZeroU32::new(16).unwrap());
    let builder = Runtime::builder(&client).handlers(handlers![note_start]).state(counter.clone());
    let runtime = builder.group("latency", options).start().await.unwrap();
    let published = paced(events, async |number| {
        client.publish(&order(number)).await.unwrap();
    });
    let published = published.await;
    counter.reached().await;
    let _ = runtime.shutdown().await;
    since(&published, &counter)
}

/// Calls at a hundred a second, each at its own time whatever the one before took.
pub async fn paced(events: usize, call: impl AsyncFn(usize)) -> Vec<Instant> {
    let mut interval = tokio::time::interval(Duration::from_millis(10));
    let mut called = Vec::with_capacity(events);
    for number in 0..events {
        interval.tick().await;
        called.push(Instant::now());
        call(number).await;
    }
    called
}

pub fn since(published: &[Instant], counter: &Counter) -> Vec<Duration> {
    let starts = counter.starts.lock().unwrap();
    published
        .iter()
        .zip(starts.iter())
        .map(|(published, start)| start.saturating_duration_since(*published))
        .collect()
}
