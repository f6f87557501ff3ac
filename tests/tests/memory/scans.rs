//! Several processes that scan for idle entries of one group, on streams in memory under a paused
//! clock: they share one scan, and recovery is no slower for that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::{Fault, MemoryStore, Passage, View, Watch};
use streamjobs::config::GroupOptions;
use streamjobs::{Event, Job, Runtime, State, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use tokio::time::{Instant, sleep_until};

const LEASE: Duration = Duration::from_secs(10);

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Order {
    id: usize,
}

/// Which process started which delivery of which order, and when.
#[derive(Clone, Default)]
struct Starts(Arc<Mutex<Vec<(usize, u64, Instant)>>>);

impl Starts {
    async fn of(&self, order: usize, delivery: u32) -> (u64, Instant) {
        let nth = || {
            let starts = self.0.lock().unwrap();
            let mut of = starts.iter().filter(|(id, ..)| *id == order);
            of.nth(delivery as usize - 1).map(|(_, process, at)| (*process, *at))
        };
        eventually_async(Duration::from_secs(60), "it has started", async || nth().is_some()).await;
        nth().unwrap()
    }
}

#[derive(Clone)]
struct Process(u64);

/// The first delivery of each order lasts until its lease is lost.
#[handler(group = "work")]
async fn work(
    order: Order,
    job: Job,
    State(process): State<Process>,
    State(starts): State<Starts>,
) {
    starts.0.lock().unwrap().push((order.id, process.0, Instant::now()));
    if job.delivery_count() == 1 {
        job.cancelled().cancelled().await;
    }
}

/// Keeps one process from the server, or none.
#[derive(Debug, Default)]
struct CutOff(AtomicU64);

impl Watch for CutOff {
    fn passage(&self, caller: u64, _operation: &'static str) -> Passage {
        let cut_off = caller == self.0.load(Ordering::Relaxed);
        Passage { fault: cut_off.then_some(Fault::Unreachable), ..Passage::default() }
    }

    fn carried_out(&self, _caller: u64, _operation: &'static str, _view: View<'_>) {}
}

#[tokio::test(start_paused = true)]
async fn what_a_lost_process_had_is_taken_over_in_time_whichever_process_scanned_last() {
    let (store, starts, cut_off) =
        (MemoryStore::new(), Starts::default(), Arc::new(CutOff::default()));
    let mut runtimes = Vec::new();
    for process in 1..=4 {
        let client = streamjobs::__store::client(&store.watched(process, cut_off.clone()));
        let builder = Runtime::builder(&client).handlers(handlers![work]);
        let builder = builder.state(Process(process)).state(starts.clone());
        let builder = builder.group("work", GroupOptions::new().lease(LEASE));
        runtimes.push(builder.start().await.unwrap());
    }
    let client = streamjobs::__store::client(&store);
    for order in 1..=50 {
        client.publish(&Order { id: order }).await.unwrap();
        let (owner, started) = starts.of(order, 1).await;
        // Anywhere between two scans of the others.
        sleep_until(started + Duration::from_millis(fastrand::u64(4_000..8_000))).await;
        cut_off.0.store(owner, Ordering::Relaxed);
        let lost = Instant::now();
        let (heir, taken_over) = starts.of(order, 2).await;
        let took = taken_over - lost;
        assert_ne!(heir, owner);
        // A lease after the last renewal, and a third of it, give or take a fifth, after the last scan.
        assert!(took < LEASE + LEASE / 3 * 6 / 5 + Duration::from_millis(500), "{order}: {took:?}");
        cut_off.0.store(0, Ordering::Relaxed);
    }
    for runtime in runtimes {
        let _ = runtime.shutdown().await;
    }
}
