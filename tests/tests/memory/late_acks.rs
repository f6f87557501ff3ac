//! Acknowledgements of a process that had lost the lease, on streams in memory under a paused clock: the attempt
//! of the new owner ends, and what becomes of it changes nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::{Fault, MemoryStore, Passage, View, Watch};
use streamjobs::unique::Unique;
use streamjobs::{Event, HandlerDef, Job, JobError, Runtime, State, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed", key = "id")]
struct Order {
    id: usize,
}

/// Which process ran each attempt, in this order.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<Vec<u64>>>);

#[derive(Clone)]
struct Process(u64);

/// The first process is done when its lease is lost. The second one fails after a long time.
async fn run(process: u64, runs: &Runs, job: &Job) -> Result<(), JobError> {
    runs.0.lock().unwrap().push(process);
    if process == FIRST {
        job.cancelled().cancelled().await;
        return Ok(());
    }
    sleep_until(Instant::now() + Duration::from_secs(100)).await;
    Err(JobError::retry("it was done before"))
}

#[handler(group = "plain", backoff = "1s")]
async fn plain(
    _: Order,
    job: Job,
    State(process): State<Process>,
    State(runs): State<Runs>,
) -> Result<(), JobError> {
    run(process.0, &runs, &job).await
}

#[handler(group = "ordered", order = "key", backoff = "1s")]
async fn ordered(
    _: Order,
    job: Job,
    State(process): State<Process>,
    State(runs): State<Runs>,
) -> Result<(), JobError> {
    run(process.0, &runs, &job).await
}

/// Keeps the first process from the server for a while.
#[derive(Debug, Default)]
struct CutOff(AtomicBool);

impl Watch for CutOff {
    fn passage(&self, caller: u64, _operation: &'static str) -> Passage {
        let is_cut_off = caller == FIRST && self.0.load(Ordering::Relaxed);
        Passage { fault: is_cut_off.then_some(Fault::Unreachable), ..Passage::default() }
    }

    fn carried_out(&self, _caller: u64, _operation: &'static str, _view: View<'_>) {}
}

/// The job of one event is done by a process that the server did not hear from for longer than the lease.
async fn a_late_success_ends_the_attempt_of_the_new_owner(
    handlers: impl IntoIterator<Item = HandlerDef> + Clone,
    group: &str,
    is_unique: bool,
) {
    let (store, runs, cut_off) = (MemoryStore::new(), Runs::default(), Arc::new(CutOff::default()));
    let start = async |process| {
        let client = streamjobs::__store::client(&store.watched(process, cut_off.clone()));
        let builder = Runtime::builder(&client).handlers(handlers.clone());
        builder.state(Process(process)).state(runs.clone()).start().await.unwrap()
    };
    let count = || runs.0.lock().unwrap().len();
    let until = async |what: &str, condition: &dyn Fn() -> bool| {
        eventually_async(LIMIT, what, async || condition()).await;
    };
    let first = start(FIRST).await;
    let (client, order) = (streamjobs::__store::client(&store), Order { id: 1 });
    let unique = Unique::until_done(group, 2 * LIMIT).key("1");
    if is_unique {
        client.publish_unique(&unique, &order).await.unwrap();
    } else {
        client.publish(&order).await.unwrap();
    }
    until("runs", &|| count() == 1).await;
    let second = start(SECOND).await;
    cut_off.0.store(true, Ordering::Relaxed);
    until("runs in the second process", &|| count() == 2).await;
    cut_off.0.store(false, Ordering::Relaxed);
    until("acknowledged", &|| first.counters().acknowledged == 1).await;
    until("the second attempt ends", &|| second.counters().leases_lost == 1).await;
    // A retry would run by then.
    sleep_until(Instant::now() + LIMIT / 2).await;
    assert_eq!(*runs.0.lock().unwrap(), [FIRST, SECOND]);
    let counters = first.counters();
    assert_eq!((counters.acknowledged, counters.acknowledged_late), (1, 0), "{counters:?}");
    let counters = second.counters();
    let ended = (counters.removed_in_flight, counters.retried, counters.dead_lettered);
    assert_eq!(ended, (0, 0, 0), "{counters:?}");
    if is_unique {
        assert!(client.publish_unique(&unique, &order).await.unwrap().is_new(), "the lock is gone");
    }
    let _ = (first.shutdown().await, second.shutdown().await);
}

#[tokio::test(start_paused = true)]
async fn a_late_success_is_no_removal_by_another_client() {
    a_late_success_ends_the_attempt_of_the_new_owner(handlers![plain], "plain", false).await;
}

#[tokio::test(start_paused = true)]
async fn a_late_success_with_a_lock_is_no_removal_by_another_client() {
    a_late_success_ends_the_attempt_of_the_new_owner(handlers![plain], "plain", true).await;
}

#[tokio::test(start_paused = true)]
async fn a_late_success_with_a_place_is_no_removal_by_another_client() {
    a_late_success_ends_the_attempt_of_the_new_owner(handlers![ordered], "ordered", false).await;
}

#[tokio::test(start_paused = true)]
async fn a_late_success_with_a_lock_and_a_place_is_no_removal_by_another_client() {
    a_late_success_ends_the_attempt_of_the_new_owner(handlers![ordered], "ordered", true).await;
}

const FIRST: u64 = 1;
const SECOND: u64 = 2;
const LIMIT: Duration = Duration::from_secs(3_600);
