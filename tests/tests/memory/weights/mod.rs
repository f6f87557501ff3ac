//! Slots that groups share by weights, on streams in memory under a paused clock.

mod endings;

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::MemoryStore;
use streamjobs::config::GroupOptions;
use streamjobs::{
    Batch, Client, Event, Job, JobError, Runtime, RuntimeBuilder, State, handler, handlers,
};
use streamjobs_tests::eventually::eventually_async;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

macro_rules! kinds {
    ($($event:ident $handler:ident $stream:literal $weight:literal;)*) => {$(
        #[derive(Debug, Event, Serialize, Deserialize)]
        #[event(stream = $stream, type = "mail", key = "key")]
        struct $event {
            plan: String,
            key: String,
        }

        impl $event {
            fn planned(plan: &str) -> Self {
                Self { plan: plan.to_owned(), key: "k".to_owned() }
            }
        }

        #[handler(
            group = $stream, slots = "mail", weight = $weight, timeout = "30s", backoff = "1s", max_attempts = 3
        )]
        async fn $handler(mail: $event, State(runs): State<Runs>, job: Job) -> Result<(), JobError> {
            runs.run($stream, &mail.plan, &job).await
        }
    )*};
}

kinds! {
    Urgent urgent "urgent" 5;
    Normal normal "normal" 2;
    Bulk bulk "bulk" 1;
}

/// What has started, in order, and how many run.
#[derive(Clone)]
struct Runs {
    ran: Arc<Mutex<Ran>>,
    gate: Arc<Semaphore>,
}

#[derive(Default)]
struct Ran {
    started: Vec<&'static str>,
    running: usize,
    most: usize,
    ended: usize,
}

/// Counts as running until it is dropped, whichever way the attempt ends.
struct Running(Runs);

impl Running {
    fn new(runs: &Runs, kind: &'static str) -> Self {
        let mut ran = runs.ran.lock().unwrap();
        ran.started.push(kind);
        ran.running += 1;
        ran.most = ran.most.max(ran.running);
        Self(runs.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut ran = self.0.ran.lock().unwrap();
        ran.running -= 1;
        ran.ended += 1;
    }
}

impl Runs {
    fn new() -> Self {
        Self { ran: Arc::default(), gate: Arc::new(Semaphore::new(0)) }
    }

    async fn run(&self, kind: &'static str, plan: &str, job: &Job) -> Result<(), JobError> {
        let running = Running::new(self, kind);
        match plan {
            "gate" => self.gate.acquire().await?.forget(),
            "short" => sleep_until(Instant::now() + Duration::from_millis(20)).await,
            "long" => std::future::pending::<()>().await,
            "deaf" => {
                job.cancelled().cancelled().await;
                sleep_until(Instant::now() + Duration::from_millis(500)).await;
            }
            "retry" if job.attempt() < 3 => return Err("not yet".into()),
            "snooze" if job.delivery_count() == 1 && job.is_first_delivery() => {
                return Err(JobError::later(Duration::from_secs(2), "busy"));
            }
            "dead" => return Err(JobError::dead("never")),
            "panic" => {
                drop(running);
                // Without the hook, which would print what is planned.
                std::panic::resume_unwind(Box::new("planned"));
            }
            _ => {}
        }
        Ok(())
    }

    fn started(&self) -> Vec<&'static str> {
        self.ran.lock().unwrap().started.clone()
    }

    fn running(&self) -> usize {
        self.ran.lock().unwrap().running
    }

    fn most(&self) -> usize {
        self.ran.lock().unwrap().most
    }

    async fn until_started(&self, count: usize) {
        let started = async || self.started().len() >= count;
        eventually_async(Duration::from_secs(600), "so many have started", started).await;
    }

    /// Ends one job after the other, the one that has run for longest: what starts in its place.
    async fn turns(&self, count: usize) -> Vec<&'static str> {
        let before = self.started().len();
        for turn in 1..=count {
            self.gate.add_permits(1);
            self.until_started(before + turn).await;
        }
        self.started()[before..].to_vec()
    }
}

fn count(started: &[&str], kind: &str) -> usize {
    started.iter().filter(|started| **started == kind).count()
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
        Self { store, client, runs: Runs::new() }
    }

    fn builder(&self, slots: u32) -> RuntimeBuilder {
        Runtime::builder(&self.client)
            .handlers(handlers![urgent, normal, bulk])
            .state(self.runs.clone())
            .shared_slots("mail", NonZeroU32::new(slots).unwrap())
    }

    async fn start(&self, slots: u32) -> Runtime {
        self.builder(slots).start().await.unwrap()
    }

    async fn urgent(&self, count: usize, plan: &str) {
        let events = Vec::from_iter((0..count).map(|_| Urgent::planned(plan)));
        assert!(self.client.publish_all(&events).await.iter().all(Result::is_ok));
    }

    async fn normal(&self, count: usize, plan: &str) {
        let events = Vec::from_iter((0..count).map(|_| Normal::planned(plan)));
        assert!(self.client.publish_all(&events).await.iter().all(Result::is_ok));
    }

    async fn bulk(&self, count: usize, plan: &str) {
        let events = Vec::from_iter((0..count).map(|_| Bulk::planned(plan)));
        assert!(self.client.publish_all(&events).await.iter().all(Result::is_ok));
    }
}

fn in_use(runtime: &Runtime) -> u64 {
    let sets = runtime.control().shared_slots();
    let [mail] = &sets[..] else { panic!("{sets:?}") };
    assert_eq!(mail.name, "mail");
    mail.in_use
}

async fn all_free(runtime: &Runtime) {
    let free = async || in_use(runtime) == 0;
    eventually_async(Duration::from_secs(600), "all slots are free", free).await;
}

#[tokio::test(start_paused = true)]
async fn starts_are_in_proportion_to_the_weights_while_all_have_a_backlog() {
    let stage = Stage::new();
    stage.urgent(400, "gate").await;
    stage.normal(400, "gate").await;
    stage.bulk(400, "gate").await;
    let runtime = stage.start(16).await;
    stage.runs.until_started(16).await;
    // Until each queue has had its share of the slots, whichever had them first.
    stage.runs.turns(48).await;
    let started = stage.runs.turns(400).await;
    for round in started.chunks_exact(8) {
        assert_eq!(["urgent", "normal", "bulk"].map(|kind| count(round, kind)), [5, 2, 1]);
    }
    assert_eq!(stage.runs.most(), 16);
    stage.runs.gate.add_permits(1_200);
    stage.runs.until_started(1_200).await;
    all_free(&runtime).await;
    let _ = runtime.shutdown().await;
}

/// Jobs that end together are acknowledged together, and their slots are read into at once.
#[tokio::test(start_paused = true)]
async fn the_proportion_holds_for_jobs_that_end_together() {
    let stage = Stage::new();
    stage.urgent(2_000, "short").await;
    stage.normal(2_000, "short").await;
    stage.bulk(2_000, "short").await;
    let runtime = stage.start(16).await;
    stage.runs.until_started(1_664).await;
    let started = stage.runs.started();
    let had = ["urgent", "normal", "bulk"].map(|kind| count(&started[64..1_664], kind));
    // Of 1,600 starts, give or take the slots of the set.
    for (had, exact) in had.into_iter().zip([1_000_usize, 400, 200]) {
        assert!(had.abs_diff(exact) <= 16, "{had}, not {exact}");
    }
    assert_eq!(stage.runs.most(), 16);
    stage.runs.until_started(6_000).await;
    all_free(&runtime).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn one_without_work_lends_its_share_and_the_lightest_has_all_slots_alone() {
    let stage = Stage::new();
    let runtime = stage.start(20).await;
    stage.bulk(60, "gate").await;
    stage.runs.until_started(20).await;
    assert_eq!((stage.runs.running(), in_use(&runtime)), (20, 20));
    stage.normal(60, "gate").await;
    stage.runs.turns(20).await;
    let started = stage.runs.turns(12).await;
    assert_eq!((count(&started, "normal"), count(&started, "bulk")), (8, 4), "of two to one");
    stage.runs.gate.add_permits(120);
    all_free(&runtime).await;
    assert_eq!(stage.runs.started().len(), 120);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn urgent_work_starts_with_the_next_slot_that_becomes_free() {
    let stage = Stage::new();
    let runtime = stage.start(8).await;
    stage.bulk(100, "gate").await;
    stage.normal(100, "gate").await;
    stage.runs.until_started(8).await;
    stage.runs.turns(30).await;
    for _ in 0..5 {
        stage.urgent(1, "gate").await;
        // It has been seen when the reader waits for a slot.
        let _ = tokio::time::timeout(Duration::from_secs(1), std::future::pending::<()>()).await;
        assert_eq!(stage.runs.turns(1).await, ["urgent"]);
        stage.runs.turns(10).await;
    }
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_the_most_that_a_group_has_of_the_set() {
    let stage = Stage::new();
    let few = GroupOptions::new().concurrency(NonZeroU32::new(3).unwrap());
    let runtime = stage.builder(8).group("urgent", few).start().await.unwrap();
    stage.urgent(100, "gate").await;
    stage.runs.until_started(3).await;
    let _ = tokio::time::timeout(Duration::from_secs(5), std::future::pending::<()>()).await;
    assert_eq!((stage.runs.running(), in_use(&runtime)), (3, 3));
    stage.bulk(100, "gate").await;
    stage.runs.until_started(8).await;
    assert_eq!(count(&stage.runs.started(), "bulk"), 5);
    let more = NonZeroU32::new(6).unwrap();
    runtime.set_concurrency("urgent", more).unwrap();
    let started = stage.runs.turns(60).await;
    assert!(count(&started, "urgent") >= 30, "{started:?}");
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_is_added_has_a_share_of_its_own() {
    let stage = Stage::new();
    let runtime = stage.start(8).await;
    let added = runtime.add_consumer("normal").await.unwrap();
    stage.urgent(300, "gate").await;
    stage.normal(300, "gate").await;
    stage.runs.until_started(8).await;
    stage.runs.turns(32).await;
    // Five to twice two.
    let started = stage.runs.turns(90).await;
    assert_eq!((count(&started, "urgent"), count(&started, "normal")), (50, 40));
    stage.runs.gate.add_permits(600);
    let _ = runtime.remove_consumer(&added).await.unwrap();
    all_free(&runtime).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_plan_shows_the_set_and_the_weight() {
    let stage = Stage::new();
    let plan = stage.builder(20).plan().unwrap();
    let group = plan.group("urgent", "urgent").unwrap();
    let value = |name| group.setting(name).unwrap().value.as_str();
    assert_eq!(
        [value("slots"), value("weight"), value("concurrency")],
        ["20 shared as mail", "5", "20"]
    );
}

#[tokio::test(start_paused = true)]
async fn settings_that_do_not_fit_are_refused_by_name() {
    let stage = Stage::new();
    let some = |number: u32| NonZeroU32::new(number).unwrap();
    let refused = async |builder: RuntimeBuilder| builder.start().await.err().unwrap().to_string();
    let bare =
        || Runtime::builder(&stage.client).state(stage.runs.clone()).handlers(handlers![bulk]);
    let error = refused(bare()).await;
    assert!(
        error.contains(
            "group bulk on stream bulk: the builder has no shared slots \"mail\"; it has none"
        ),
        "{error}"
    );
    let error = refused(bare().shared_slots("mial", some(20))).await;
    assert!(error.contains("no shared slots \"mail\"; it has mial"), "{error}");
    assert!(error.contains("no group uses the shared slots \"mial\""), "{error}");
    let fine = || bare().shared_slots("mail", some(20));
    let error = refused(fine().shared_slots("mail", some(30))).await;
    assert!(error.contains("the builder has shared slots \"mail\" twice"), "{error}");
    let with = |options| fine().group("bulk", options);
    let error = refused(with(GroupOptions::new().concurrency(some(21)))).await;
    assert!(error.contains("concurrency 21 is more than the 20 shared slots \"mail\""), "{error}");
    let error = refused(with(GroupOptions::new().weight(some(101)))).await;
    assert!(
        error.contains("group bulk on stream bulk: weight 101 is not between 1 and 100"),
        "{error}"
    );
    let plain =
        Runtime::builder(&stage.client).state(stage.runs.clone()).handlers(handlers![plain]);
    let error = refused(plain.group("plain", GroupOptions::new().weight(some(2)))).await;
    assert!(
        error.contains("group plain on stream bulk: weight 2 is of no use without slots"),
        "{error}"
    );
    let batches = Runtime::builder(&stage.client).handlers(handlers![batched]);
    let error = refused(batches.shared_slots("mail", some(20))).await;
    let expected = "raise concurrency, and the shared slots \"mail\", to 30 or more";
    assert!(error.contains(expected), "{error}");
    // A deployment of a part of the groups needs no other settings.
    let part = stage.builder(20).handlers(handlers![plain]).only_groups(["plain"]);
    let _ = part.start().await.unwrap().shutdown().await;
}

#[handler(group = "plain")]
async fn plain(_: Bulk) {}

#[handler(group = "batches", slots = "mail", batch = 30)]
async fn batched(_: Batch<Bulk>) {}
