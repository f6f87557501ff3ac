//! A consumer that is deleted by hand while its jobs run, on streams in memory under a paused clock:
//! no job is lost, none runs twice, and it is reported.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::{Fault, MemoryStore};
use streamjobs::__store::raw_access::RawAccess;
use streamjobs::config::GroupOptions;
use streamjobs::runtime::Alert;
use streamjobs::stream::{Condition, PendingQuery};
use streamjobs::{Event, Job, JobError, Runtime, State, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Order {
    id: usize,
    fails: bool,
}

/// The orders whose attempts have started, in this order, and how long each takes.
#[derive(Clone)]
struct Work {
    started: Arc<Mutex<Vec<usize>>>,
    takes: Duration,
}

impl Work {
    fn new(takes: Duration) -> Self {
        Self { started: Arc::default(), takes }
    }

    fn started(&self, id: usize) -> usize {
        self.started.lock().unwrap().iter().filter(|started| **started == id).count()
    }

    fn count(&self) -> usize {
        self.started.lock().unwrap().len()
    }
}

#[handler(group = "work", max_attempts = 2, backoff = "1s")]
async fn work(order: Order, State(work): State<Work>) -> Result<(), JobError> {
    let attempt = {
        work.started.lock().unwrap().push(order.id);
        work.started(order.id)
    };
    sleep_until(Instant::now() + work.takes).await;
    if order.fails && attempt == 1 { Err(JobError::retry("not now")) } else { Ok(()) }
}

struct Stage {
    store: MemoryStore,
    work: Work,
    runtime: Runtime,
    alerts: Arc<Mutex<Vec<Alert>>>,
}

/// A runtime with six jobs running, of which every second one fails once.
async fn running(takes: Duration, lease: Duration) -> Stage {
    let (store, work) = (MemoryStore::new(), Work::new(takes));
    let client = streamjobs::__store::client(&store);
    for id in 0..6 {
        client.publish(&Order { id, fails: id % 2 == 0 }).await.unwrap();
    }
    let alerts = Arc::<Mutex<Vec<_>>>::default();
    let heard = Arc::clone(&alerts);
    let builder = Runtime::builder(&client).handlers(handlers![work]).state(work.clone());
    let builder = builder.group("work", GroupOptions::new().lease(lease));
    let builder = builder.on_alert(move |alert| heard.lock().unwrap().push(alert.clone()));
    let runtime = builder.start().await.unwrap();
    eventually_async(LIMIT, "all run", async || work.count() == 6).await;
    Stage { store, work, runtime, alerts }
}

impl Stage {
    fn delete_consumers(&self) {
        for key in ["orders", "{orders}:lane:work"] {
            for consumer in self.store.consumers(key, "work") {
                self.store.delete_consumer(key, "work", &consumer);
            }
        }
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        eventually_async(LIMIT, what, async || condition(self)).await;
    }

    fn is_alerted(&self) -> bool {
        let alerts = self.alerts.lock().unwrap();
        alerts.iter().any(|alert| alert.condition == Condition::RemovedInFlight && alert.raised)
    }

    /// All jobs are done: those that fail once in their second attempt, the others in their first.
    async fn all_are_done_once(self) {
        self.until("six are done", |stage| stage.runtime.counters().succeeded == 6).await;
        // A job that is delivered again would run by then.
        sleep_until(Instant::now() + LIMIT / 2).await;
        for id in 0..6 {
            assert_eq!(self.work.started(id), if id % 2 == 0 { 2 } else { 1 }, "order {id}");
        }
        self.until("alerted", Self::is_alerted).await;
        let counters = self.runtime.counters();
        assert_eq!((counters.leases_lost, counters.dead_lettered), (0, 0), "{counters:?}");
        let _ = self.runtime.shutdown().await;
    }
}

/// A renewal notices the deletion while the handlers run.
#[tokio::test(start_paused = true)]
async fn jobs_go_on_when_their_consumer_is_deleted_and_failures_are_retried() {
    let stage = running(Duration::from_secs(60), Duration::from_secs(3)).await;
    stage.delete_consumers();
    stage.until("noticed", |stage| stage.runtime.counters().removed_in_flight == 6).await;
    stage.all_are_done_once().await;
}

/// No renewal is due: only the settling notices it.
#[tokio::test(start_paused = true)]
async fn a_failure_is_retried_although_no_renewal_has_noticed_the_deletion() {
    let stage = running(Duration::from_secs(1), Duration::from_secs(30)).await;
    stage.delete_consumers();
    stage.until("noticed", |stage| stage.runtime.counters().removed_in_flight == 3).await;
    stage.all_are_done_once().await;
}

/// A shutdown hands over what runs, whether or not it is pending.
#[tokio::test(start_paused = true)]
async fn what_was_removed_is_handed_over_at_the_shutdown() {
    let stage = running(Duration::from_secs(3_600), Duration::from_secs(3)).await;
    stage.delete_consumers();
    stage.until("noticed", |stage| stage.runtime.counters().removed_in_flight == 6).await;
    let _ = stage.runtime.shutdown().await;
    let work = Work::new(Duration::from_secs(1));
    let client = streamjobs::__store::client(&stage.store);
    let builder = Runtime::builder(&client).handlers(handlers![crate::removed::work]);
    let runtime = builder.state(work.clone()).start().await.unwrap();
    eventually_async(LIMIT, "all run again", async || runtime.counters().succeeded == 6).await;
    let _ = runtime.shutdown().await;
}

/// An operator gives running jobs away, and they are done elsewhere before the next renewal: what their
/// first attempts come to changes nothing any more.
#[tokio::test(start_paused = true)]
async fn jobs_that_were_moved_and_done_elsewhere_are_not_run_again() {
    for renews_before_the_end in [false, true] {
        let takes = Duration::from_secs(if renews_before_the_end { 60 } else { 5 });
        let stage = running(takes, Duration::from_secs(30)).await;
        let client = streamjobs::__store::client(&stage.store);
        let group = client.stream("orders").unwrap().group("work").unwrap();
        // A renewal has told the first process how often entries were moved.
        sleep_until(Instant::now() + Duration::from_secs(1)).await;
        let quick = Work::new(Duration::ZERO);
        let builder = Runtime::builder(&client).handlers(handlers![crate::removed::work]);
        let other = builder.state(quick.clone()).start().await.unwrap();
        let pending = group.pending(PendingQuery::new()).await.unwrap();
        let ids = pending.entries.iter().map(|entry| entry.id).collect::<Vec<_>>();
        let given = group.claim(&ids, other.consumer()).await.unwrap();
        assert_eq!(given.moved.len(), 6);
        let done = || other.counters().succeeded + stage.runtime.counters().succeeded == 6;
        eventually_async(LIMIT, "done", async || done()).await;
        sleep_until(Instant::now() + 3 * takes).await;
        let runs = quick.count() + stage.work.count();
        assert_eq!(runs, 6 + 6 + 3, "six were cut off, and three failed once elsewhere");
        let counters = stage.runtime.counters();
        assert_eq!((counters.removed_in_flight, counters.dead_lettered), (0, 0), "{counters:?}");
        let _ = (stage.runtime.shutdown().await, other.shutdown().await);
    }
}

/// The operator says that they are done.
#[tokio::test(start_paused = true)]
async fn running_jobs_that_are_acknowledged_by_hand_are_not_run_again() {
    let stage = running(Duration::from_secs(60), Duration::from_secs(30)).await;
    let client = streamjobs::__store::client(&stage.store);
    let group = client.stream("orders").unwrap().group("work").unwrap();
    sleep_until(Instant::now() + Duration::from_secs(10)).await;
    let pending = group.pending(PendingQuery::new()).await.unwrap();
    let ids = pending.entries.iter().map(|entry| entry.id).collect::<Vec<_>>();
    assert_eq!(group.acknowledge(&ids).await.unwrap(), 6);
    sleep_until(Instant::now() + Duration::from_secs(200)).await;
    assert_eq!(stage.work.count(), 6);
    let counters = stage.runtime.counters();
    assert_eq!((counters.leases_lost, counters.removed_in_flight), (6, 0), "{counters:?}");
    let _ = stage.runtime.shutdown().await;
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.checked")]
struct Checked;

/// Fails twice, and takes a minute each time.
#[handler(group = "work", max_attempts = 3, backoff = "1s")]
async fn check(_: Checked, State(work): State<Work>, job: Job) -> Result<(), JobError> {
    work.started.lock().unwrap().push(0);
    sleep_until(Instant::now() + work.takes).await;
    if job.attempt() < 3 { Err(JobError::retry("not now")) } else { Ok(()) }
}

/// The promoter creates a lane again that was deleted or evicted, so that neither a read nor a renewal fails.
#[tokio::test(start_paused = true)]
async fn a_job_of_a_lane_that_was_deleted_goes_on_and_its_failure_is_retried() {
    let (store, work) = (MemoryStore::new(), Work::new(Duration::from_secs(60)));
    let client = streamjobs::__store::client(&store);
    let builder = Runtime::builder(&client).handlers(handlers![check]).state(work.clone());
    let runtime = builder.start().await.unwrap();
    client.publish(&Checked).await.unwrap();
    eventually_async(LIMIT, "runs from the lane", async || work.count() == 2).await;
    store.lose_key("{orders}:lane:work");
    eventually_async(LIMIT, "done", async || runtime.counters().succeeded == 1).await;
    let counters = runtime.counters();
    assert_eq!((work.count(), counters.leases_lost), (3, 0), "{counters:?}");
    assert_eq!(counters.removed_in_flight, 1);
    let _ = runtime.shutdown().await;
}

/// No promotion arrives that would create the lane again, so that its entries cannot be renewed.
#[tokio::test(start_paused = true)]
async fn a_lane_that_is_gone_costs_the_jobs_of_the_stream_no_lease() {
    let (store, work) = (MemoryStore::new(), Work::new(Duration::from_secs(60)));
    let client = streamjobs::__store::client(&store);
    let builder = Runtime::builder(&client).handlers(handlers![check]).state(work.clone());
    let runtime = builder.start().await.unwrap();
    client.publish(&Checked).await.unwrap();
    eventually_async(LIMIT, "runs from the lane", async || work.count() == 2).await;
    client.publish(&Checked).await.unwrap();
    eventually_async(LIMIT, "runs from the stream", async || work.count() == 3).await;
    (0..200).for_each(|_| store.fail_next("promote", Fault::Unreachable));
    store.lose_key("{orders}:lane:work");
    eventually_async(LIMIT, "lost", async || runtime.counters().leases_lost > 0).await;
    eventually_async(LIMIT, "fails", async || runtime.counters().failed == 2).await;
    let counters = runtime.counters();
    assert_eq!((work.count(), counters.leases_lost), (3, 1), "{counters:?}");
    let _ = runtime.shutdown().await;
}

const LIMIT: Duration = Duration::from_secs(3_600);
