//! One run of a handler, for a job made by hand.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use streamjobs::config::GroupOptions;
use streamjobs::dead_letter::Reason;
use streamjobs::once::OnceMark;
use streamjobs::schedule::Tick;
use streamjobs::testing::{Next, PerformError, Streams, perform, perform_entry, perform_tick};
use streamjobs::{
    CancelReason, Entry, Event, EventId, FromJob, Job, JobError, Outcome, State, handler,
};
use tokio::time::Instant;

#[derive(Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Placed {
    plan: String,
}

#[derive(Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.paid")]
struct Paid {}

/// An argument that is made of a field beside the payload.
struct Tenant(String);

impl FromJob for Tenant {
    fn from_job(job: &Job) -> Result<Self, JobError> {
        Ok(Self(job.entry().text("tenant").ok_or("no tenant")?.to_owned()))
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

#[handler(group = "work", max_attempts = 3, backoff = "1s..1m", timeout = "30s")]
async fn work(order: Placed, job: Job, State(log): State<Log>) -> Result<(), JobError> {
    log.0.lock().unwrap().push(format!("{} {}", job.attempt(), job.is_last_attempt()));
    match order.plan.as_str() {
        "retry" => Err("x".parse::<u32>().unwrap_err().into()),
        "after" => Err(JobError::retry_after(Duration::from_secs(90), "wait")),
        "later" => Err(JobError::later(Duration::from_secs(5), "busy")),
        "dead" => Err(JobError::dead("never")),
        "panic" => panic!("broken"),
        "slow" => {
            tokio::time::sleep_until(Instant::now() + Duration::from_secs(60)).await;
            Ok(())
        }
        "publish" => {
            job.client().publish(&Paid {}).await?;
            Ok(())
        }
        "obey" => {
            job.cancelled().cancelled().await;
            Err(JobError::retry(format!("{:?}", job.cancel_reason().unwrap())))
        }
        _ => Ok(()),
    }
}

#[handler(group = "tenants")]
async fn of_tenant(_order: Placed, Tenant(tenant): Tenant) -> Result<(), String> {
    if tenant == "acme" { Ok(()) } else { Err(tenant) }
}

#[handler(group = "mails")]
async fn mail(_order: Placed, _mark: &mut OnceMark, State(log): State<Log>) {
    log.0.lock().unwrap().push("sent".to_owned());
}

#[handler(group = "raw", stream = "foreign")]
async fn raw(entry: Entry) -> Result<(), String> {
    if entry.text("colour") == Some("red") { Ok(()) } else { Err("not red".to_owned()) }
}

#[handler(group = "nightly", cron = "0 3 * * *", zone = "UTC")]
async fn nightly(tick: Tick, State(log): State<Log>) {
    log.0.lock().unwrap().push(format!("{} {:?}", tick.schedule, tick.occurrence()));
}

fn placed(plan: &str) -> Placed {
    Placed { plan: plan.to_owned() }
}

#[tokio::test(start_paused = true)]
async fn a_run_tells_its_outcome_and_what_would_become_of_the_job() {
    let run = async |plan| {
        let performed = perform::<work>(&placed(plan)).state(Log::default()).await.unwrap();
        (performed.outcome, performed.next)
    };
    let (outcome, next) = run("fine").await;
    assert!(matches!(outcome, Outcome::Done) && next == Next::Done);
    let (outcome, next) = run("retry").await;
    let Outcome::Failed(error) = outcome else { panic!("{outcome:?}") };
    assert!(error.cause().is::<std::num::ParseIntError>(), "the handler's own error");
    let error = "invalid digit found in string".to_owned();
    assert_eq!(next, Next::Retry { within: Duration::from_secs(1), error });
    let within = Duration::from_secs(90);
    assert_eq!(run("after").await.1, Next::Retry { within, error: "wait".to_owned() });
    let snoozed = Next::Snoozed { delay: Duration::from_secs(5), error: "busy".to_owned() };
    assert_eq!(run("later").await.1, snoozed);
    let rejected = Next::DeadLetter { reason: Reason::Rejected, error: Some("never".to_owned()) };
    assert_eq!(run("dead").await.1, rejected);
    let (outcome, next) = run("panic").await;
    assert!(matches!(outcome, Outcome::Panicked(text) if text == "broken"));
    assert!(matches!(next, Next::Retry { error, .. } if error == "the handler panicked: broken"));
    let (outcome, next) = run("slow").await;
    assert!(matches!(outcome, Outcome::TimedOut(limit) if limit == Duration::from_secs(30)));
    assert!(matches!(next, Next::Retry { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_later_attempt_looks_as_a_retry_does() {
    let log = Log::default();
    let id = EventId::new("e-1").unwrap();
    let run = perform::<work>(&placed("retry")).state(log.clone()).event_id(id.clone());
    let second = run.attempt(2).await.unwrap();
    assert!(matches!(second.next, Next::Retry { within, .. } if within == Duration::from_secs(2)));
    let job = second.job;
    assert_eq!((job.event_id(), job.attempt(), job.is_first_delivery()), (&id, 2, false));
    assert_eq!(
        job.origin().map(|origin| origin.milliseconds()),
        Some(job.entry_id().milliseconds())
    );
    assert_ne!(job.origin(), Some(job.entry_id()));
    let third = perform::<work>(&placed("retry")).state(log.clone()).attempt(3).await.unwrap();
    assert!(matches!(third.next, Next::DeadLetter { reason: Reason::Exhausted, .. }));
    let few = GroupOptions::new().max_attempts(NonZeroU32::MIN);
    let only = perform::<work>(&placed("retry")).state(log.clone()).group(few).await.unwrap();
    assert!(matches!(only.next, Next::DeadLetter { reason: Reason::Exhausted, .. }));
    let again = perform::<work>(&placed("fine")).state(log.clone()).delivery_count(2);
    let again = again.await.unwrap().job;
    assert_eq!((again.delivery_count(), again.is_first_delivery()), (2, false));
    assert_eq!(log.0.lock().unwrap().join(", "), "2 false, 3 true, 1 true, 1 false");
}

#[tokio::test(start_paused = true)]
async fn extractors_get_the_fields_and_resources_the_client_of_the_run() {
    let run = perform::<of_tenant>(&placed("fine")).field("tenant", "acme").await.unwrap();
    assert_eq!(run.next, Next::Done);
    let run = perform::<of_tenant>(&placed("fine")).await.unwrap();
    assert!(matches!(run.next, Next::Retry { error, .. } if error == "no tenant"));
    let (streams, log) = (Streams::new(), Log::default());
    let client = streams.client();
    perform::<work>(&placed("publish")).state(log.clone()).client(&client).await.unwrap();
    assert_eq!(streams.published::<Paid>().unwrap().len(), 1);
    let id = EventId::new("e-1").unwrap();
    for _ in 0..2 {
        let run = perform::<mail>(&placed("fine")).state(log.clone()).client(&client);
        let run = run.event_id(id.clone()).await.unwrap();
        assert_eq!(run.next, Next::Done);
    }
    assert_eq!(log.0.lock().unwrap().join(", "), "1 false, sent", "the mark skips the second");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_cancelled_for_each_reason_before_it_begins_or_later() {
    let run = async |plan, delay, reason| {
        let log = Log::default();
        let run = perform::<work>(&placed(plan)).state(log.clone());
        let run = run.cancel_after(Duration::from_secs(delay), reason).await.unwrap();
        (run.next, log.0.lock().unwrap().len())
    };
    let stopped =
        |error: &str| Next::DeadLetter { reason: Reason::Cancelled, error: Some(error.to_owned()) };
    assert_eq!(run("obey", 5, CancelReason::Requested).await, (stopped("Requested"), 1));
    assert_eq!(run("obey", 0, CancelReason::Requested).await, (stopped("Requested"), 1));
    let ignored = Next::DeadLetter { reason: Reason::Cancelled, error: None };
    assert_eq!(run("slow", 5, CancelReason::Requested).await, (ignored, 1));
    assert_eq!(run("slow", 5, CancelReason::Shutdown).await, (Next::Released, 1));
    assert_eq!(run("slow", 5, CancelReason::LeaseLost).await, (Next::Left, 1));
    assert_eq!(run("fine", 0, CancelReason::LeaseLost).await, (Next::Left, 0));
    assert_eq!(run("fine", 0, CancelReason::Requested).await, (Next::Done, 1));
}

#[tokio::test(start_paused = true)]
async fn handlers_of_entries_and_of_ticks_run_as_well() {
    let red = vec![("type".into(), "paint".into()), ("colour".into(), "red".into())];
    assert_eq!(perform_entry::<raw>(red).await.unwrap().next, Next::Done);
    let blue = perform_entry::<raw>(vec![("colour".into(), "blue".into())]).await.unwrap();
    assert!(matches!(blue.next, Next::Retry { .. }));
    let (log, at) = (Log::default(), UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    let run = perform_tick::<nightly>(at).state(log.clone()).await.unwrap();
    assert_eq!(run.next, Next::Done);
    let shown =
        format!("{} {at:?}", run.job.entry().event_type().unwrap().strip_prefix("tick.").unwrap());
    assert_eq!(*log.0.lock().unwrap(), [shown]);
}

#[tokio::test(start_paused = true)]
async fn the_clock_of_a_run_is_that_of_its_streams() {
    let streams = Streams::new();
    streams.step_clock(1_000);
    let run = perform::<of_tenant>(&placed("fine")).client(&streams.client()).await.unwrap();
    assert_eq!(run.job.now(), streams.now());
    assert!(run.job.now() < SystemTime::now(), "it is in the year 2023");
    assert_eq!(run.job.deadline(), None);
}

#[tokio::test(start_paused = true)]
async fn what_a_start_would_refuse_is_refused() {
    let missing = perform::<work>(&placed("fine")).await.unwrap_err();
    assert!(missing.to_string().contains("::work ("), "{missing}");
    assert!(missing.to_string().contains("needs State<"), "{missing}");
    let other = perform::<work>(&Paid {}).state(Log::default()).await.unwrap_err();
    assert!(other.to_string().ends_with("does not take events of type order.paid"), "{other}");
    let large = placed(&"x".repeat(2_000_000));
    let large = perform::<work>(&large).state(Log::default()).await.unwrap_err();
    assert!(matches!(large, PerformError::Event(_)));
}
