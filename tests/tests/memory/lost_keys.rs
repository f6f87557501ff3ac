//! Keys that go away, and writes that the server refuses, on streams in memory under a paused clock:
//! other jobs go on, nothing waits for good, and it is reported.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::Queue;
use streamjobs::__store::memory::{Fault, MemoryStore};
use streamjobs::__store::raw_access::RawAccess;
use streamjobs::config::GroupOptions;
use streamjobs::{Event, GroupName, JobError, Runtime, State, StreamName, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Order {
    id: usize,
    fails: bool,
}

/// How often each order was run.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<Vec<usize>>>);

impl Runs {
    fn of(&self, id: usize) -> usize {
        self.0.lock().unwrap().iter().filter(|run| **run == id).count()
    }
}

#[handler(group = "work", max_attempts = 2, backoff = "10m")]
async fn work(order: Order, State(runs): State<Runs>) -> Result<(), JobError> {
    runs.0.lock().unwrap().push(order.id);
    if order.fails { Err(JobError::retry("not now")) } else { Ok(()) }
}

async fn runtime(store: &MemoryStore, runs: &Runs, slots: u32) -> Runtime {
    let client = streamjobs::__store::client(store);
    let builder = Runtime::builder(&client).handlers(handlers![work]).state(runs.clone());
    let options = GroupOptions::new().concurrency(NonZeroU32::new(slots).unwrap());
    builder.group("work", options).start().await.unwrap()
}

async fn publish(store: &MemoryStore, ids: std::ops::Range<usize>, fails: bool) {
    let client = streamjobs::__store::client(store);
    for id in ids {
        client.publish(&Order { id, fails }).await.unwrap();
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    eventually_async(Duration::from_secs(7_200), what, async || condition()).await;
}

#[tokio::test(start_paused = true)]
async fn jobs_waiting_for_retry_come_back_when_the_retry_set_is_deleted() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let runtime = runtime(&store, &runs, 10).await;
    publish(&store, 0..5, true).await;
    until("five wait for retry", || runtime.counters().retried == 5).await;
    let (stream, group) = (StreamName::new("orders"), GroupName::new("work"));
    store.lose_retry_set(&Queue { stream: stream.unwrap(), group: group.unwrap() });
    until("five have failed for good", || runtime.counters().dead_lettered == 5).await;
    assert!((0..5).all(|id| runs.of(id) == 2));
    assert_eq!(runtime.counters().retries_restored, 5);
    let _ = runtime.shutdown().await;
}

/// Its promotions only look, until one says that jobs have lost their place.
#[tokio::test(start_paused = true)]
async fn jobs_of_a_lost_retry_set_come_back_in_an_idle_group() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let runtime = runtime(&store, &runs, 10).await;
    let (stream, group) = (StreamName::new("orders"), GroupName::new("work"));
    let queue = Queue { stream: stream.unwrap(), group: group.unwrap() };
    for round in 1..=2 {
        sleep_until(Instant::now() + Duration::from_secs(3_600)).await;
        // Between two promotions, so that none finds the job in its place.
        store.schedule_retry(&queue, "s:1-0", 1);
        store.lose_retry_set(&queue);
        let begun = Instant::now();
        until("restored", || runtime.counters().retries_restored == round).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_deleted_while_no_process_ran_is_reported_at_the_start() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let first = runtime(&store, &runs, 10).await;
    publish(&store, 0..3, false).await;
    until("three are done", || first.counters().acknowledged == 3).await;
    assert_eq!(first.counters().groups_recreated, 0);
    let _ = first.shutdown().await;
    store.destroy_group("orders", "work");
    publish(&store, 3..5, false).await;
    let second = runtime(&store, &runs, 10).await;
    assert_eq!(second.counters().groups_recreated, 1);
    until("the new ones are done", || runs.of(3) == 1 && runs.of(4) == 1).await;
    let _ = second.shutdown().await;
}

/// As at the server's memory limit, which lets jobs end and stores nothing new.
#[tokio::test(start_paused = true)]
async fn jobs_go_on_while_the_server_refuses_to_store_those_that_failed() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let refuse = |step| (0..400).for_each(|_| store.fail_next(step, Fault::Refused));
    refuse("schedule_retry");
    refuse("store_dead_letter");
    let runtime = runtime(&store, &runs, 4).await;
    publish(&store, 0..20, true).await;
    publish(&store, 20..120, false).await;
    until("all others are done", || runtime.counters().acknowledged == 100).await;
    assert_eq!(runtime.counters().retried, 0, "the server refuses");
    until("their retries are stored", || runtime.counters().retried == 20).await;
    publish(&store, 120..220, false).await;
    until("more are done", || runtime.counters().acknowledged == 200).await;
    until("their dead letters are stored", || runtime.counters().dead_lettered == 20).await;
    assert!((0..20).all(|id| runs.of(id) == 2));
    assert_eq!(runtime.counters().leases_lost, 0);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn jobs_that_the_server_refuses_to_store_are_shown_apart_from_those_with_slots() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    (0..4_000).for_each(|_| store.fail_next("schedule_retry", Fault::Refused));
    let runtime = runtime(&store, &runs, 4).await;
    publish(&store, 0..20, true).await;
    let client = streamjobs::__store::client(&store);
    let group = client.stream("orders").unwrap().group("work").unwrap();
    let deadline = Duration::from_secs(7_200);
    let shown = async || {
        let consumers = group.consumers().await.unwrap();
        consumers.first().map(|consumer| (consumer.refused, consumer.in_flight, consumer.slots))
    };
    let expected = Some((Some(20), Some(0), Some(4)));
    eventually_async(deadline, "shown apart", async || shown().await == expected).await;
    until("their retries are stored", || runtime.counters().retried == 20).await;
    let expected = Some((Some(0), Some(0), Some(4)));
    eventually_async(deadline, "no more of them", async || shown().await == expected).await;
    let _ = runtime.shutdown().await;
}
