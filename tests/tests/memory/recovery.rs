//! What a dead process leaves behind, on streams in memory under a paused clock: all of it is claimed
//! in time, however much it is, and new work goes on meanwhile.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::{Fault, MemoryStore, Passage, View, Watch};
use streamjobs::__store::{Consume, GroupUpkeep, Inlet, Queue, ReadRequest, ReaderSetup};
use streamjobs::config::GroupOptions;
use streamjobs::{
    ConsumerName, Event, GroupName, Job, Runtime, State, StreamName, handler, handlers,
};
use streamjobs_tests::eventually::eventually_async;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Order {
    id: usize,
}

/// How long a job takes.
#[derive(Clone, Copy)]
struct Takes(Duration);

/// When each attempt started, and whether its entry was claimed from another consumer.
#[derive(Clone, Default)]
struct Starts(Arc<Mutex<Vec<(Instant, bool)>>>);

impl Starts {
    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    async fn all(&self, count: usize) -> Vec<(Instant, bool)> {
        let limit = Duration::from_secs(3_600);
        eventually_async(limit, "all have started", async || self.count() >= count).await;
        self.0.lock().unwrap().clone()
    }
}

#[handler(group = "work")]
async fn work(_order: Order, job: Job, State(takes): State<Takes>, State(starts): State<Starts>) {
    starts.0.lock().unwrap().push((Instant::now(), job.delivery_count() > 1));
    sleep_until(Instant::now() + takes.0).await;
}

fn queue() -> Queue {
    let (stream, group) = (StreamName::new("orders"), GroupName::new("work"));
    Queue { stream: stream.unwrap(), group: group.unwrap() }
}

fn slots_of(count: usize) -> NonZeroU32 {
    u32::try_from(count).unwrap().try_into().unwrap()
}

async fn publish(store: &MemoryStore, count: usize) {
    let client = streamjobs::__store::client(store);
    for id in 0..count {
        client.publish(&Order { id }).await.unwrap();
    }
}

/// Has this many entries delivered to a consumer that does nothing with them and says nothing.
async fn leave_behind(store: &MemoryStore, count: usize) {
    let queue = queue();
    store.prepare(&queue, streamjobs::config::Start::Beginning).await.unwrap();
    publish(store, count).await;
    let dead = ConsumerName::new("dead").unwrap();
    let mut reader =
        store.reader(&queue, &dead, ReaderSetup::waiting(Duration::from_secs(2))).await.unwrap();
    let request = ReadRequest { acks: &[], inlet: Inlet::STREAM, count, block: None };
    assert_eq!(reader.read(request).await.unwrap().deliveries.unwrap().len(), count);
}

async fn runtime(
    store: &MemoryStore,
    starts: &Starts,
    takes: Duration,
    options: GroupOptions,
) -> Runtime {
    let client = streamjobs::__store::client(store);
    let builder = Runtime::builder(&client).handlers(handlers![work]);
    let builder = builder.state(starts.clone()).state(Takes(takes));
    builder.group("work", options).start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_last_job_of_a_dead_process_starts_as_soon_as_the_first() {
    for lease in [3, 10].map(Duration::from_secs) {
        for jobs in [1, 16, 64, 200, 1_000, 5_000] {
            let (store, starts) = (MemoryStore::new(), Starts::default());
            leave_behind(&store, jobs).await;
            let died = Instant::now();
            let options = GroupOptions::new().lease(lease).concurrency(slots_of(jobs));
            let runtime = runtime(&store, &starts, Duration::from_secs(60), options).await;
            let starts = starts.all(jobs).await;
            let last = starts.iter().map(|(at, _)| *at - died).max().unwrap();
            let promised = lease + lease / 3 * 6 / 5 + Duration::from_secs(1);
            assert!(last < promised, "{jobs} jobs, lease of {lease:?}: the last after {last:?}");
            let _ = runtime.shutdown().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn recovered_and_new_jobs_share_the_slots() {
    for slots in [1, 2, 7, 100] {
        let (jobs, takes) = (40 * slots, Duration::from_millis(100));
        let (store, starts) = (MemoryStore::new(), Starts::default());
        leave_behind(&store, 2 * jobs).await;
        let lease = Duration::from_secs(3);
        sleep_until(Instant::now() + lease).await;
        publish(&store, 2 * jobs).await;
        let options = GroupOptions::new().lease(lease).concurrency(slots_of(slots));
        let runtime = runtime(&store, &starts, takes, options).await;
        // The first scan is due within a second of the start, so some new jobs come first.
        let starts = starts.all(3 * jobs).await;
        let recovered = starts.iter().rev().take(jobs).filter(|(_, recovered)| *recovered).count();
        assert!(recovered * 3 > jobs, "{recovered} recovered of {jobs}, {slots} slots");
        assert!(recovered * 3 < jobs * 2, "{recovered} recovered of {jobs}, {slots} slots");
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_with_a_shorter_lease_leaves_the_jobs_of_others_alone() {
    let (store, starts) = (MemoryStore::new(), Starts::default());
    publish(&store, 8).await;
    let (takes, slots) = (Duration::from_secs(12), slots_of(8));
    let options = GroupOptions::new().concurrency(slots);
    let before = options.lease(Duration::from_secs(60));
    let before = runtime(&store, &starts, takes, before).await;
    starts.all(8).await;
    let after = options.lease(Duration::from_secs(2));
    let after = runtime(&store, &starts, takes, after).await;
    sleep_until(Instant::now() + 2 * takes).await;
    assert_eq!(starts.count(), 8, "jobs that ran in both processes");
    let _ = before.shutdown().await;
    let _ = after.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_process_with_a_longer_lease_recovers_by_the_lease_of_the_dead() {
    let (store, starts) = (MemoryStore::new(), Starts::default());
    leave_behind(&store, 8).await;
    let (queue, dead) = (queue(), ConsumerName::new("dead").unwrap());
    store.heartbeat(&queue, &dead, r#"{"lease":2000}"#).await.unwrap();
    let died = Instant::now();
    let lease = Duration::from_secs(60);
    let options = GroupOptions::new().lease(lease);
    let runtime = runtime(&store, &starts, Duration::ZERO, options).await;
    let last = starts.all(8).await.iter().map(|(at, _)| *at - died).max().unwrap();
    assert!(last < Duration::from_secs(2) + lease / 3 * 6 / 5 + Duration::from_secs(1), "{last:?}");
    let _ = runtime.shutdown().await;
}

/// Lets acknowledgements fail that do not come with a read, at most a thousand of them.
#[derive(Debug, Default)]
struct FailingAcks(AtomicUsize);

impl Watch for FailingAcks {
    fn passage(&self, _caller: u64, operation: &'static str) -> Passage {
        let fails = operation == "acknowledge" && self.0.fetch_add(1, Ordering::Relaxed) < 1_000;
        Passage { fault: fails.then_some(Fault::Unreachable), ..Passage::default() }
    }

    fn carried_out(&self, _caller: u64, _operation: &'static str, _view: View<'_>) {}
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_that_fail_during_claims_are_repeated_with_pauses() {
    let (store, starts) = (MemoryStore::new(), Starts::default());
    leave_behind(&store, 20).await;
    let lease = Duration::from_secs(3);
    sleep_until(Instant::now() + lease).await;
    let acks = Arc::new(FailingAcks::default());
    let client = streamjobs::__store::client(&store.watched(1, acks.clone()));
    let builder = Runtime::builder(&client).handlers(handlers![work]);
    let builder = builder.state(starts.clone()).state(Takes(Duration::from_millis(10)));
    let options = GroupOptions::new().lease(lease).concurrency(slots_of(2));
    let runtime = builder.group("work", options).start().await.unwrap();
    starts.all(20).await;
    let failed = acks.0.load(Ordering::Relaxed);
    assert!((1..200).contains(&failed), "{failed} requests failed");
    let _ = runtime.shutdown().await;
}
