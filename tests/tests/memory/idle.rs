//! A group that has nothing to do, on streams in memory under a paused clock: how rarely it is
//! scanned, and how soon it is noticed that it has something to do again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::{Fault, MemoryStore, Passage, View, Watch};
use streamjobs::{Backoff, Client, Event, Job, JobError, Runtime, State, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Order {
    id: usize,
}

/// When each attempt started.
#[derive(Clone, Default)]
struct Starts(Arc<Mutex<Vec<(usize, Instant)>>>);

impl Starts {
    fn of(&self, order: usize) -> Vec<Instant> {
        let starts = self.0.lock().unwrap();
        starts.iter().filter(|(id, _)| *id == order).map(|(_, at)| *at).collect()
    }
}

/// Orders with an odd number fail once.
#[handler(group = "work")]
async fn work(order: Order, job: Job, State(starts): State<Starts>) -> Result<(), JobError> {
    starts.0.lock().unwrap().push((order.id, Instant::now()));
    match order.id % 2 == 1 && job.attempt() == 1 {
        true => Err(JobError::retry("not yet")),
        false => Ok(()),
    }
}

/// Counts what is asked of the store, and lets reads fail.
#[derive(Debug, Default)]
struct Requests {
    counts: Mutex<BTreeMap<&'static str, usize>>,
    reads_fail: AtomicBool,
}

impl Requests {
    fn take(&self) -> BTreeMap<&'static str, usize> {
        std::mem::take(&mut *self.counts.lock().unwrap())
    }
}

impl Watch for Requests {
    fn passage(&self, _caller: u64, operation: &'static str) -> Passage {
        if operation != "look" {
            *self.counts.lock().unwrap().entry(operation).or_default() += 1;
        }
        let fails = operation == "read" && self.reads_fail.load(Ordering::Relaxed);
        Passage { fault: fails.then_some(Fault::Unreachable), ..Passage::default() }
    }

    fn carried_out(&self, _caller: u64, _operation: &'static str, _view: View<'_>) {}
}

struct Stage {
    client: Client,
    requests: Arc<Requests>,
    starts: Starts,
    runtime: Runtime,
}

async fn stage() -> Stage {
    let (requests, starts) = (Arc::new(Requests::default()), Starts::default());
    let store = MemoryStore::new();
    let watched = streamjobs::__store::client(&store.watched(1, requests.clone()));
    let options = streamjobs::config::GroupOptions::new();
    let options = options.backoff(Backoff::fixed(Duration::from_millis(40)));
    let builder = Runtime::builder(&watched).handlers(handlers![work]).state(starts.clone());
    let runtime = builder.group("work", options).start().await.unwrap();
    Stage { client: streamjobs::__store::client(&store), requests, starts, runtime }
}

impl Stage {
    async fn pass(&self, seconds: u64) {
        sleep_until(Instant::now() + Duration::from_secs(seconds)).await;
    }

    async fn started(&self, order: usize, times: usize) -> Instant {
        let started = || self.starts.of(order).len() >= times;
        eventually_async(Duration::from_secs(60), "it has started", async || started()).await;
        *self.starts.of(order).get(times - 1).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_group_sends_less_than_a_request_a_second() {
    let stage = stage().await;
    stage.pass(15).await;
    stage.requests.take();
    stage.pass(600).await;
    let requests = stage.requests.take();
    assert!(requests.values().sum::<usize>() < 600, "{requests:?}");
    assert!(!requests.contains_key("has_idle"), "nothing is pending: {requests:?}");
    for operation in ["read", "promote", "heartbeat", "trim", "group_facts"] {
        assert!(requests.contains_key(operation), "it is still looked after: {requests:?}");
    }
    assert!(stage.runtime.health().is_healthy());
    let _ = stage.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_event_and_its_retry_do_not_wait_for_a_look() {
    let stage = stage().await;
    for round in 0..20 {
        stage.pass(30).await;
        let (order, published) = (2 * round + 1, Instant::now());
        stage.client.publish(&Order { id: order }).await.unwrap();
        let first = stage.started(order, 1).await;
        let second = stage.started(order, 2).await;
        let (waited, retried) = (first - published, second - first);
        assert!(waited < Duration::from_millis(50), "round {round}: {waited:?}");
        assert!(retried < Duration::from_millis(150), "round {round}: {retried:?}");
    }
    let _ = stage.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_brings_the_full_pace_back_for_a_lease() {
    let stage = stage().await;
    stage.pass(30).await;
    stage.client.publish(&Order { id: 2 }).await.unwrap();
    stage.started(2, 1).await;
    let scans = async || {
        stage.requests.take();
        stage.pass(8).await;
        stage.requests.take().get("promote").copied().unwrap_or(0)
    };
    let busy = scans().await;
    assert!((12..24).contains(&busy), "twice a second: {busy}");
    stage.pass(10).await;
    let idle = scans().await;
    assert!((2..4).contains(&idle), "every three seconds: {idle}");
    let _ = stage.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_requested_scan_is_made_however_idle_the_group_is() {
    let stage = stage().await;
    stage.pass(30).await;
    stage.requests.take();
    stage.runtime.reap_now("work").unwrap();
    stage.pass(1).await;
    assert_eq!(stage.requests.take().get("has_idle"), Some(&2), "on the stream and in the lane");
    let _ = stage.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_quiet_group_that_cannot_read_is_watched_at_full_pace() {
    let stage = stage().await;
    stage.pass(60).await;
    stage.requests.take();
    stage.requests.reads_fail.store(true, Ordering::Relaxed);
    stage.pass(30).await;
    let watched = stage.requests.take().get("group_facts").copied().unwrap_or(0);
    assert!((3..8).contains(&watched), "every five seconds, once a read has failed: {watched}");
    stage.requests.reads_fail.store(false, Ordering::Relaxed);
    let _ = stage.runtime.shutdown().await;
}
