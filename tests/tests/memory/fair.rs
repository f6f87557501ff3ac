//! Fair shares of keys on streams in memory under a paused clock: small tenants behind a noisy one, over
//! processes, failures and deaths.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::{Fault, MemoryStore};
use streamjobs::__store::raw_access::RawAccess;
use streamjobs::__store::{HoldSweep, Holds, Inlet, Queue, SweepCursors};
use streamjobs::config::{GroupOptions, KeyOrder};
use streamjobs::{
    Client, Event, GroupName, Job, JobError, Runtime, State, StreamName, handler, handlers,
};
use streamjobs_tests::eventually::eventually_async;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "reports", type = "report", key = "tenant")]
struct Report {
    tenant: String,
    number: usize,
    /// How often it fails before it succeeds.
    failures: u32,
}

/// The tenants of what has ended, in order, and how many ran at once.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<Ran>>);

#[derive(Default)]
struct Ran {
    ended: Vec<String>,
    running: BTreeMap<String, usize>,
    most: usize,
}

impl Runs {
    fn ended(&self) -> Vec<String> {
        self.0.lock().unwrap().ended.clone()
    }

    fn running(&self, tenant: &str) -> usize {
        self.0.lock().unwrap().running.get(tenant).copied().unwrap_or(0)
    }

    async fn until(&self, count: usize) {
        let done = async || self.ended().len() >= count;
        eventually_async(Duration::from_secs(20_000), "all have ended", done).await;
    }

    /// After how many ends the last small tenant has its last.
    fn last_small(&self) -> usize {
        self.ended().iter().rposition(|tenant| tenant != NOISY).unwrap() + 1
    }
}

/// Counts as running until it is dropped, whichever way the attempt ends.
struct Running(Runs, String);

impl Running {
    fn new(runs: Runs, tenant: String) -> Self {
        let mut ran = runs.0.lock().unwrap();
        *ran.running.entry(tenant.clone()).or_default() += 1;
        ran.most = ran.most.max(ran.running.values().sum());
        drop(ran);
        Self(runs, tenant)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap().running.get_mut(&self.1).unwrap() -= 1;
    }
}

const NOISY: &str = "noisy";
const TAKES: Duration = Duration::from_millis(200);

#[handler(group = "render", fair = "key", backoff = "1s")]
async fn render(report: Report, job: Job, State(runs): State<Runs>) -> Result<(), JobError> {
    let running = Running::new(runs.clone(), report.tenant.clone());
    sleep_until(Instant::now() + TAKES).await;
    drop(running);
    if job.attempt() <= report.failures {
        return Err("not yet".into());
    }
    runs.0.lock().unwrap().ended.push(report.tenant);
    Ok(())
}

struct Stage {
    store: MemoryStore,
    client: Client,
    runs: Runs,
}

impl Stage {
    fn new() -> Self {
        let store = MemoryStore::new();
        let client = streamjobs::__store::client(&store);
        Self { store, client, runs: Runs::default() }
    }

    async fn process(&self, slots: u32) -> Runtime {
        let builder = Runtime::builder(&self.client).handlers(handlers![render]);
        let options = GroupOptions::new().concurrency(NonZeroU32::new(slots).unwrap());
        builder.state(self.runs.clone()).group("render", options).start().await.unwrap()
    }

    async fn publish(&self, tenant: &str, count: usize, failures: u32) {
        let report = |number| Report { tenant: tenant.to_owned(), number, failures };
        let reports = (0..count).map(report).collect::<Vec<_>>();
        assert!(self.client.publish_all(&reports).await.iter().all(Result::is_ok));
    }

    /// Twenty jobs for each of ten small tenants behind 5,000 of a noisy one.
    async fn publish_noise(&self) {
        self.publish(NOISY, 5_000, 0).await;
        for tenant in 0..10 {
            self.publish(&format!("small-{tenant}"), 20, 0).await;
        }
    }

    async fn is_empty(&self) {
        let group = GroupName::new("render").unwrap();
        let queue = Queue { stream: StreamName::new("reports").unwrap(), group };
        let empty = async || {
            let sweep = HoldSweep { rule: None, cursors: SweepCursors::default() };
            // A fault that no step has met yet ends here.
            let Ok(swept) = self.store.sweep_holds(&queue, sweep).await else { return false };
            let keys = [queue.key(Inlet::STREAM), queue.key(Inlet::LANE)];
            let pending = keys.map(|key| self.store.pending(&key, queue.group.as_str()).len());
            (swept.parked, pending) == (0, [0, 0])
        };
        eventually_async(Duration::from_secs(600), "nothing is left", empty).await;
    }
}

/// If all keys had the same share from the beginning, the small tenants would be done after as many jobs of the
/// noisy one as of each of them.
const IDEAL: usize = 10 * 20 + 20;

#[tokio::test(start_paused = true)]
async fn small_tenants_behind_a_noisy_one_end_within_twice_the_ideal() {
    let stage = Stage::new();
    stage.publish_noise().await;
    let process = stage.process(16).await;
    stage.runs.until(5_200).await;
    assert_eq!(stage.runs.0.lock().unwrap().most, 16, "all slots are used");
    let last = stage.runs.last_small();
    assert!(last <= 2 * IDEAL, "{last} ends");
    let _ = process.shutdown().await;
    stage.is_empty().await;
}

#[tokio::test(start_paused = true)]
async fn shares_hold_over_processes_and_their_deaths() {
    let stage = Stage::new();
    stage.publish_noise().await;
    let (first, second) = (stage.process(8).await, stage.process(8).await);
    stage.runs.until(100).await;
    drop(first);
    let third = stage.process(8).await;
    stage.runs.until(5_200).await;
    let last = stage.runs.last_small();
    // The jobs of the dead process run after its lease of 10 s, and the others go on meanwhile.
    let meanwhile = 16 * 50;
    assert!(last <= 2 * IDEAL + meanwhile, "{last} ends");
    let _ = (second.shutdown().await, third.shutdown().await);
    stage.is_empty().await;
}

#[tokio::test(start_paused = true)]
async fn retries_of_a_noisy_tenant_have_its_share_and_no_more() {
    let stage = Stage::new();
    let process = stage.process(4).await;
    stage.publish(NOISY, 400, 1).await;
    stage.runs.until(1).await;
    stage.publish("small", 20, 0).await;
    let before = stage.runs.ended().len();
    stage.runs.until(420).await;
    let last = stage.runs.ended()[before..].iter().rposition(|tenant| tenant != NOISY).unwrap() + 1;
    // Half of the slots, and those that were given to the noisy one before.
    assert!(last <= 60, "{last} ends");
    let _ = process.shutdown().await;
    stage.is_empty().await;
}

#[tokio::test(start_paused = true)]
async fn a_tenant_alone_has_all_slots() {
    let stage = Stage::new();
    let (first, second) = (stage.process(3).await, stage.process(5).await);
    stage.publish(NOISY, 80, 0).await;
    let all = async || stage.runs.running(NOISY) == 8;
    eventually_async(Duration::from_secs(2), "all slots are used", all).await;
    stage.runs.until(80).await;
    let _ = (first.shutdown().await, second.shutdown().await);
    stage.is_empty().await;
}

/// What waits in lines of a process without a free slot, another one finds.
#[tokio::test(start_paused = true)]
async fn a_process_that_starts_takes_what_another_has_put_into_lines() {
    let stage = Stage::new();
    let first = stage.process(1).await;
    stage.publish(NOISY, 40, 0).await;
    let parked = async || first.counters().parked == 39;
    eventually_async(Duration::from_secs(60), "one runs and the others wait", parked).await;
    let second = stage.process(9).await;
    let all = async || stage.runs.running(NOISY) == 10;
    eventually_async(Duration::from_secs(5), "all slots are used", all).await;
    stage.runs.until(40).await;
    let _ = (first.shutdown().await, second.shutdown().await);
    stage.is_empty().await;
}

#[tokio::test(start_paused = true)]
async fn lost_answers_and_refused_steps_leave_nothing_behind() {
    let stage = Stage::new();
    let (first, second) = (stage.process(2).await, stage.process(2).await);
    let faults = [Fault::AnswerLost, Fault::RequestLost, Fault::Unreachable, Fault::Refused];
    let mut published = 0;
    for fault in faults {
        for step in ["take", "finish", "schedule_retries", "promote", "sweep_holds", "recover"] {
            stage.store.fail_next(step, fault);
            for tenant in ["a", "b", "c"] {
                stage.publish(tenant, 4, 1).await;
                published += 4;
            }
            stage.runs.until(published).await;
        }
    }
    assert_eq!(stage.runs.ended().len(), published);
    let _ = (first.shutdown().await, second.shutdown().await);
    stage.is_empty().await;
}

#[tokio::test(start_paused = true)]
async fn shares_and_an_order_exclude_each_other() {
    let stage = Stage::new();
    let builder = Runtime::builder(&stage.client).handlers(handlers![render]);
    let options = GroupOptions::new().order(KeyOrder::Block).fair();
    let refused = builder.state(stage.runs.clone()).group("render", options).start().await;
    let error = refused.err().unwrap().to_string();
    assert!(error.contains("order and fair exclude each other"), "{error}");
}
