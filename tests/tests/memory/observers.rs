//! What observers are told, on streams in memory.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::Fault;
use streamjobs::dead_letter::Reason;
use streamjobs::runtime::{Observation, Observed};
use streamjobs::testing::Streams;
use streamjobs::{
    Client, Event, EventId, Job, JobError, Runtime, RuntimeBuilder, handler, handlers,
};
use streamjobs_tests::eventually::eventually_async;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Placed {
    /// What the handler does with it.
    plan: String,
}

#[handler(group = "work", max_attempts = 2, backoff = "4s")]
async fn placed(order: Placed, job: Job) -> Result<(), JobError> {
    match order.plan.as_str() {
        "fails" => Err(JobError::retry("broken")),
        "once" if job.attempt() == 1 => Err(JobError::retry("not yet")),
        "later" if job.delivery_count() == 1 && job.origin().is_none() => {
            Err(JobError::later(Duration::from_secs(9), "closed"))
        }
        "rejected" => Err(JobError::dead("nonsense")),
        "hangs" => {
            job.cancelled().cancelled().await;
            Err(JobError::retry("was stopped"))
        }
        "endless" => std::future::pending().await,
        "slow" => {
            sleep_until(Instant::now() + Duration::from_secs(5)).await;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What an observer was told, in order.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Observation>>>);

impl Told {
    fn observer(&self) -> impl Fn(&Observation) + Send + Sync + 'static {
        let told = Arc::clone(&self.0);
        move |seen| told.lock().unwrap().push(seen.clone())
    }

    fn all(&self) -> Vec<Observation> {
        self.0.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// What was told of one event, as words.
    fn of(&self, id: &str) -> Vec<String> {
        let all = self.all();
        let of = all.iter().filter(|seen| seen.event_id().as_str() == id);
        of.map(|seen| format!("{} {}", word(seen.what()), seen.attempt())).collect()
    }
}

fn word(what: &Observed) -> &'static str {
    match what {
        Observed::Started => "started",
        Observed::Done => "done",
        Observed::Failed { .. } => "failed",
        Observed::Snoozed { .. } => "snoozed",
        Observed::DeadLettered { .. } => "dead-lettered",
        Observed::Cancelled { .. } => "cancelled",
        Observed::Released => "released",
        Observed::Lost { .. } => "lost",
        other => panic!("{other:?}"),
    }
}

struct Stage {
    streams: Streams,
    client: Client,
    told: Told,
}

impl Stage {
    fn new() -> Self {
        let streams = Streams::new();
        Self { client: streams.client(), streams, told: Told::default() }
    }

    fn builder(&self) -> RuntimeBuilder {
        let builder = Runtime::builder(&self.client).handlers(handlers![placed]);
        builder.observe(self.told.observer())
    }

    /// Publishes an event whose id is its plan.
    async fn publish(&self, plan: &str) {
        let event = Placed { plan: plan.to_owned() };
        self.client.publish_with_id(&event, EventId::new(plan).unwrap()).await.unwrap();
    }

    async fn until(&self, id: &str, expected: &[&str]) {
        until(&format!("{id}: {expected:?}"), async || self.told.of(id) == expected).await;
    }
}

async fn until(what: &str, condition: impl AsyncFnMut() -> bool) {
    eventually_async(Duration::from_secs(600), what, condition).await;
}

#[tokio::test(start_paused = true)]
async fn each_end_of_an_attempt_is_told_with_its_error_and_its_job() {
    let stage = Stage::new();
    let runtime = stage.builder().start().await.unwrap();
    for plan in ["fine", "once", "fails", "later", "rejected", "hangs"] {
        stage.publish(plan).await;
    }
    stage.until("hangs", &["started 1"]).await;
    let orders = stage.client.stream("orders").unwrap();
    orders.cancel(&EventId::new("hangs").unwrap()).await.unwrap();
    stage.until("fine", &["started 1", "done 1"]).await;
    stage.until("once", &["started 1", "failed 1", "started 2", "done 2"]).await;
    stage.until("fails", &["started 1", "failed 1", "started 2", "dead-lettered 2"]).await;
    stage.until("later", &["started 1", "snoozed 1", "started 1", "done 1"]).await;
    stage.until("rejected", &["started 1", "dead-lettered 1"]).await;
    stage.until("hangs", &["started 1", "cancelled 1"]).await;
    let _ = runtime.shutdown().await;

    let all = stage.told.all();
    let find = |id: &str, wanted: &str| {
        let is_it =
            |seen: &&Observation| seen.event_id().as_str() == id && word(seen.what()) == wanted;
        all.iter().find(is_it).unwrap()
    };
    let seen = find("fails", "dead-lettered");
    let error = Some("broken".to_owned());
    assert_eq!(seen.what(), &Observed::DeadLettered { reason: Reason::Exhausted, error });
    assert_eq!((seen.stream().as_str(), seen.group().as_str()), ("orders", "work"));
    assert_eq!((seen.handler(), seen.attempts_max()), (Some("placed"), Some(2)));
    assert!(seen.handler_location().unwrap().contains("memory/observers.rs:"));
    assert_eq!((seen.event_type(), seen.delivery_count()), (Some("order.placed"), 1));
    assert_eq!(seen.consumer().as_str(), find("fine", "done").consumer().as_str());
    assert_ne!(seen.entry_id(), find("fails", "started").entry_id(), "the retry is an entry");
    let Observed::Failed { error, retry_in, retry_at } = find("once", "failed").what() else {
        panic!("{all:?}");
    };
    assert_eq!(error, "not yet");
    assert!(*retry_in <= Duration::from_secs(4));
    assert!(*retry_at > SystemTime::UNIX_EPOCH);
    assert_eq!(find("rejected", "dead-lettered").error(), Some("nonsense"));
    assert_eq!(find("hangs", "cancelled").error(), Some("was stopped"));
    assert_eq!(find("later", "snoozed").error(), None, "no failure");
    assert!(!format!("{all:?}").contains("plan"), "no payload");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_run_is_told_as_a_dead_letter_alone() {
    #[handler(group = "work", expires = "1s")]
    async fn expiring(_: Placed) {}

    let stage = Stage::new();
    let start = || {
        let builder = Runtime::builder(&stage.client).handlers(handlers![expiring]);
        let options = streamjobs::config::GroupOptions::new();
        let options = options.unhandled(streamjobs::config::Unhandled::DeadLetter);
        builder.group("work", options).observe(stage.told.observer()).start()
    };
    let _group = start().await.unwrap().shutdown().await;
    stage.publish("late").await;
    let other = streamjobs::EncodedEvent::with_id(
        &Placed { plan: "other".to_owned() },
        EventId::new("other").unwrap(),
    );
    let mut fields = other.unwrap().fields().to_vec();
    fields[0].1 = "order.lost".into();
    let stream = streamjobs::StreamName::new("orders").unwrap();
    let other = streamjobs::EncodedEvent::from_parts(stream, fields).unwrap();
    assert!(stage.client.publish_encoded(vec![other]).await[0].is_ok());
    sleep_until(Instant::now() + Duration::from_secs(5)).await;
    let runtime = start().await.unwrap();
    stage.until("late", &["dead-lettered 1"]).await;
    stage.until("other", &["dead-lettered 1"]).await;
    let all = stage.told.all();
    let of = |id: &str| all.iter().find(|seen| seen.event_id().as_str() == id).unwrap();
    let reason = |seen: &Observation| match seen.what() {
        Observed::DeadLettered { reason, .. } => *reason,
        other => panic!("{other:?}"),
    };
    assert_eq!((reason(of("late")), reason(of("other"))), (Reason::Expired, Reason::Unhandled));
    assert_eq!((of("other").handler(), of("other").attempts_max()), (None, None));
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_before_the_server_has_confirmed_it_nor_twice() {
    let stage = Stage::new();
    let runtime = stage.builder().start().await.unwrap();
    stage.publish("slow").await;
    stage.until("slow", &["started 1"]).await;
    stage.streams.stop();
    sleep_until(Instant::now() + Duration::from_secs(7)).await;
    assert_eq!(runtime.counters().succeeded, 1, "the handler has returned");
    assert_eq!(stage.told.of("slow"), ["started 1"]);
    stage.streams.start();
    stage.until("slow", &["started 1", "done 1"]).await;
    stage.streams.lose_next_acknowledgement();
    stage.publish("fine").await;
    stage.until("fine", &["started 1", "done 1"]).await;
    sleep_until(Instant::now() + Duration::from_secs(60)).await;
    let _ = runtime.shutdown().await;
    assert_eq!(stage.told.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_released_job_is_told_once_and_a_lost_one_as_lost() {
    let stage = Stage::new();
    let runtime = stage.builder().grace(Duration::from_secs(1)).start().await.unwrap();
    stage.publish("endless").await;
    stage.until("endless", &["started 1"]).await;
    let report = runtime.shutdown().await;
    assert_eq!(report.released, 1);
    assert_eq!(stage.told.of("endless"), ["started 1", "released 1"]);

    // Another process takes the released job, and loses its lease while the server does not answer.
    let runtime = stage.builder().grace(Duration::from_secs(1)).start().await.unwrap();
    until("it runs again", async || stage.told.of("endless").len() == 3).await;
    stage.streams.stop();
    until("it is lost", async || stage.told.of("endless").len() == 4).await;
    assert_eq!(stage.told.of("endless")[2..], ["started 1", "lost 1"]);
    stage.streams.start();
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_step_whose_answer_was_lost_is_told_once() {
    for (step, plan, end) in [
        ("schedule_retry", "later", "snoozed 1"),
        ("store_dead_letter", "rejected", "dead-lettered 1"),
    ] {
        let stage = Stage::new();
        let runtime = stage.builder().start().await.unwrap();
        let store = streamjobs::__store::behind(&stage.streams);
        store.fail_next(step, Fault::AnswerLost);
        stage.publish(plan).await;
        until("an end", async || stage.told.count() >= 2).await;
        sleep_until(Instant::now() + Duration::from_secs(5)).await;
        assert!(runtime.counters().server_errors > 0, "{step}: the answer was lost");
        assert_eq!(stage.told.of(plan), ["started 1", end]);
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_an_observer_is_counted_and_hurts_neither_jobs_nor_other_observers() {
    let stage = Stage::new();
    let builder = Runtime::builder(&stage.client).handlers(handlers![placed]);
    let builder = builder.observe(|_| panic!("an observer")).observe(stage.told.observer());
    let runtime = builder.start().await.unwrap();
    for plan in ["fine", "once"] {
        stage.publish(plan).await;
    }
    stage.until("fine", &["started 1", "done 1"]).await;
    stage.until("once", &["started 1", "failed 1", "started 2", "done 2"]).await;
    let counters = runtime.counters();
    assert_eq!((counters.observer_panics, counters.observations_dropped), (6, 0));
    let _ = runtime.shutdown().await;
}

/// Keeps its threads until it is opened.
#[derive(Default)]
struct Barrier {
    open: Mutex<bool>,
    opened: Condvar,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_slow_observer_holds_up_no_job_and_what_it_misses_is_counted() {
    let stage = Stage::new();
    let barrier = Arc::<Barrier>::default();
    let waits = Arc::clone(&barrier);
    let builder = Runtime::builder(&stage.client).handlers(handlers![placed]);
    let builder = builder.observe(move |_| {
        let mut open = waits.open.lock().unwrap();
        while !*open {
            open = waits.opened.wait(open).unwrap();
        }
    });
    let runtime = builder.observe(stage.told.observer()).start().await.unwrap();
    let jobs = 6_000;
    let events = (0..jobs).map(|_| Placed { plan: "fine".to_owned() }).collect::<Vec<_>>();
    for answer in stage.client.publish_all(&events).await {
        answer.unwrap();
    }
    until("all are done", async || runtime.counters().acknowledged == jobs).await;
    assert_eq!(stage.told.count(), 0);
    until("some are dropped", async || runtime.counters().observations_dropped > 0).await;
    let control = runtime.control();
    *barrier.open.lock().unwrap() = true;
    barrier.opened.notify_all();
    until("the others are told", async || {
        let told = u64::try_from(stage.told.count()).unwrap();
        told + runtime.counters().observations_dropped == 2 * jobs
    })
    .await;
    // Those that waited, and the one that the observer had.
    assert_eq!(stage.told.count(), 8_192 + 1);
    drop(control);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_tells_what_waits() {
    let stage = Stage::new();
    let runtime = stage.builder().start().await.unwrap();
    let events = (0..500).map(|_| Placed { plan: "fine".to_owned() }).collect::<Vec<_>>();
    for answer in stage.client.publish_all(&events).await {
        answer.unwrap();
    }
    until("all are done", async || runtime.counters().acknowledged == 500).await;
    let _ = runtime.shutdown().await;
    let done = stage.told.all().iter().filter(|seen| *seen.what() == Observed::Done).count();
    assert_eq!((stage.told.count(), done), (1_000, 500));
}
