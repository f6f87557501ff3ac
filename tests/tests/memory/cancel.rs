//! Cancelled jobs, on streams in memory under a paused clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::MemoryStore;
use streamjobs::dead_letter::{DeadLetter, DeadLetters, Reason};
use streamjobs::stream::{Cancellation, Stream};
use streamjobs::{CancelReason, Event, EventId, Job, JobError, Runtime, State, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Placed {
    /// What the handler does with it.
    plan: String,
}

/// What has happened, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    async fn until(&self, expected: &[&str]) {
        let happened = async || self.all() == expected;
        eventually_async(Duration::from_secs(600), &format!("{expected:?}"), happened).await;
    }
}

#[handler(group = "work")]
async fn placed(order: Placed, job: Job, State(log): State<Log>) -> Result<(), JobError> {
    log.note(format!("{} {}", order.plan, job.attempt()));
    assert_eq!(job.cancel_reason(), None);
    match order.plan.as_str() {
        "retry" => return Err(JobError::retry_after(Duration::from_secs(3_600), "not yet")),
        "obey" => {
            job.cancelled().cancelled().await;
            log.note(format!("{:?}", job.cancel_reason().unwrap()));
            return Err(JobError::retry("was stopped"));
        }
        "finish" => job.cancelled().cancelled().await,
        "ignore" => std::future::pending().await,
        _ => {}
    }
    Ok(())
}

#[handler(group = "audit")]
async fn audited(order: Placed, State(log): State<Log>) {
    log.note(format!("audit {}", order.plan));
}

struct Stage {
    store: MemoryStore,
    log: Log,
}

impl Stage {
    fn new() -> Self {
        Self { store: MemoryStore::new(), log: Log::default() }
    }

    async fn start(&self) -> Runtime {
        let client = streamjobs::__store::client(&self.store);
        let builder = Runtime::builder(&client).handlers(handlers![placed]);
        builder.state(self.log.clone()).start().await.unwrap()
    }

    async fn publish(&self, plan: &str) -> EventId {
        let client = streamjobs::__store::client(&self.store);
        client.publish(&Placed { plan: plan.to_owned() }).await.unwrap().event_id
    }

    fn orders(&self) -> Stream {
        streamjobs::__store::client(&self.store).stream("orders").unwrap()
    }

    fn dead_letters(&self) -> DeadLetters {
        streamjobs::__store::client(&self.store).dead_letters("orders", "work").unwrap()
    }

    /// Waits for the only dead letter.
    async fn letter(&self) -> DeadLetter {
        let letters = || async { self.dead_letters().list(None, 10).await.unwrap().letters };
        let stored = async || letters().await.len() == 1;
        eventually_async(Duration::from_secs(600), "one dead letter", stored).await;
        letters().await.remove(0)
    }
}

async fn wait(seconds: u64) {
    sleep_until(Instant::now() + Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_running_job_is_stopped_and_not_retried() {
    let stage = Stage::new();
    let runtime = stage.start().await;
    let id = stage.publish("obey").await;
    stage.log.until(&["obey 1"]).await;
    assert_eq!(stage.orders().cancel(&id).await.unwrap(), Cancellation::Marked);
    stage.log.until(&["obey 1", "Requested"]).await;
    let letter = stage.letter().await;
    assert_eq!((letter.reason, letter.attempts), (Reason::Cancelled, 1));
    assert_eq!(letter.error.as_deref(), Some("was stopped"));
    let _ = runtime.shutdown().await;
    assert_eq!(format!("{:?}", CancelReason::Requested), "Requested");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_does_not_stop_is_dropped_and_one_that_succeeds_is_done() {
    let stage = Stage::new();
    let runtime = stage.start().await;
    let ignores = stage.publish("ignore").await;
    let finishes = stage.publish("finish").await;
    stage.log.until(&["ignore 1", "finish 1"]).await;
    for id in [&ignores, &finishes] {
        stage.orders().cancel(id).await.unwrap();
    }
    let letter = stage.letter().await;
    assert_eq!((letter.reason, letter.event_id.as_ref()), (Reason::Cancelled, Some(&ignores)));
    assert_eq!((letter.error.as_deref(), letter.attempts), (None, 0));
    let done = async || runtime.counters().acknowledged == 1;
    eventually_async(Duration::from_secs(60), "the other is done", done).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_waits_for_its_retry_does_not_run_again_in_any_process() {
    let stage = Stage::new();
    let runtime = stage.start().await;
    let id = stage.publish("retry").await;
    stage.log.until(&["retry 1"]).await;
    wait(5).await;
    stage.orders().cancel(&id).await.unwrap();
    let _ = runtime.shutdown().await;
    wait(4_000).await;
    let runtime = stage.start().await;
    let letter = stage.letter().await;
    assert_eq!((letter.reason, letter.attempts), (Reason::Cancelled, 1));
    assert_eq!(letter.error.as_deref(), Some("not yet"), "why it waited");
    let _ = runtime.shutdown().await;
    assert_eq!(stage.log.all(), ["retry 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_redrive_runs_a_cancelled_job_until_it_is_cancelled_again() {
    let stage = Stage::new();
    let _group = stage.start().await.shutdown().await;
    let id = stage.publish("fine").await;
    stage.orders().cancel(&id).await.unwrap();
    let runtime = stage.start().await;
    let letter = stage.letter().await;
    assert_eq!((letter.reason, letter.attempts), (Reason::Cancelled, 0));
    stage.dead_letters().redrive(letter.address()).await.unwrap();
    stage.log.until(&["fine 1"]).await;
    wait(5).await;
    stage.publish_again(&id).await;
    let letter = stage.letter().await;
    assert_eq!(letter.reason, Reason::Cancelled, "it is the same event");
    assert!(stage.orders().uncancel(&id).await.unwrap());
    wait(5).await;
    stage.publish_again(&id).await;
    stage.log.until(&["fine 1", "again 1"]).await;
    let _ = runtime.shutdown().await;
}

impl Stage {
    async fn publish_again(&self, id: &EventId) {
        let client = streamjobs::__store::client(&self.store);
        let event = Placed { plan: "again".to_owned() };
        client.publish_with_id(&event, id.clone()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn one_group_is_cancelled_and_the_others_go_on() {
    let stage = Stage::new();
    let client = streamjobs::__store::client(&stage.store);
    let builder = Runtime::builder(&client).handlers(handlers![placed, audited]);
    let runtime = builder.state(stage.log.clone()).start().await.unwrap();
    runtime.pause("work").unwrap();
    runtime.pause("audit").unwrap();
    let id = stage.publish("fine").await;
    let work = stage.orders().group("work").unwrap();
    work.cancel(&id).await.unwrap();
    let marks = stage.orders().cancelled(0, 10).await.unwrap();
    let shown = marks.iter().map(|mark| (mark.event_id.as_str(), mark.group.as_deref()));
    assert_eq!(shown.collect::<Vec<_>>(), [(id.as_str(), Some("work"))]);
    wait(5).await;
    runtime.resume("work").unwrap();
    runtime.resume("audit").unwrap();
    stage.letter().await;
    stage.log.until(&["audit fine"]).await;
    assert!(!stage.orders().uncancel(&id).await.unwrap(), "that would be for all groups");
    assert!(work.uncancel(&id).await.unwrap());
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_waits_for_its_time_is_removed_for_all_groups() {
    let stage = Stage::new();
    let runtime = stage.start().await;
    let client = streamjobs::__store::client(&stage.store);
    let event = Placed { plan: "later".to_owned() };
    let (one, two) = (EventId::new("one").unwrap(), EventId::new("two").unwrap());
    for id in [&one, &two] {
        let at = Duration::from_secs(100);
        client.publish_in_with_id(at, &event, id.clone()).await.unwrap();
    }
    assert_eq!(stage.orders().cancel(&one).await.unwrap(), Cancellation::Unscheduled);
    assert!(stage.orders().cancelled(0, 10).await.unwrap().is_empty(), "no mark is needed");
    stage.orders().group("work").unwrap().cancel(&two).await.unwrap();
    assert_eq!(client.scheduled("orders").unwrap().count().await.unwrap(), 1);
    let letter = stage.letter().await;
    assert_eq!((letter.reason, letter.event_id), (Reason::Cancelled, Some(two)));
    let _ = runtime.shutdown().await;
    assert_eq!(stage.log.all(), [""; 0]);
}
