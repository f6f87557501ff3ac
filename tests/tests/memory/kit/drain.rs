//! Waiting until all work is done, and moving the time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::dead_letter::Reason;
use streamjobs::schedule::Tick;
use streamjobs::testing::Streams;
use streamjobs::{Client, Event, Job, JobError, Runtime, RuntimeBuilder, State, handler, handlers};
use tokio::sync::Semaphore;
use tokio::time::Instant;

#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Placed {
    plan: String,
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "invoices", type = "invoice.sent")]
struct Invoice {}

#[derive(Clone)]
struct Log(Arc<Mutex<Vec<String>>>, Arc<Semaphore>);

impl Log {
    fn new() -> Self {
        Self(Arc::default(), Arc::new(Semaphore::new(0)))
    }

    fn note(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    fn all(&self) -> String {
        self.0.lock().unwrap().join(", ")
    }
}

#[handler(group = "work", max_attempts = 3, backoff = "10m")]
async fn work(order: Placed, job: Job, State(log): State<Log>) -> Result<(), JobError> {
    log.note(format!("{} {}", order.plan, job.attempt()));
    match order.plan.as_str() {
        "retry" => Err("not yet".into()),
        "snooze" => Err(JobError::later(Duration::from_secs(60), "busy")),
        "slow" => {
            tokio::time::sleep_until(Instant::now() + Duration::from_secs(1_800)).await;
            Ok(())
        }
        "gate" => {
            log.1.acquire().await?.forget();
            Ok(())
        }
        "invoice" => {
            job.client().publish(&Invoice {}).await?;
            Ok(())
        }
        "again" => {
            job.client().publish(&order).await?;
            Ok(())
        }
        _ => Ok(()),
    }
}

#[handler(group = "mails")]
async fn mail(_invoice: Invoice, State(log): State<Log>) {
    log.note("mail");
}

#[handler(group = "hourly", every = "1h")]
async fn hourly(_tick: Tick, State(log): State<Log>) {
    log.note("tick");
}

fn placed(plan: &str) -> Placed {
    Placed { plan: plan.to_owned() }
}

fn runtime(client: &Client, log: &Log) -> RuntimeBuilder {
    Runtime::builder(client).handlers(handlers![work, mail]).state(log.clone())
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_drain_runs_what_waits_and_what_that_publishes() {
    let (streams, log) = (Streams::new(), Log::new());
    let client = streams.client();
    let nothing = streams.drain(MINUTE).await.unwrap();
    assert_eq!((nothing.done, nothing.later), (0, 0));
    let runtime = runtime(&client, &log).start().await.unwrap();
    for plan in ["fine", "invoice", "slow"] {
        client.publish(&placed(plan)).await.unwrap();
    }
    let drained = streams.drain(Duration::ZERO).await.unwrap();
    assert_eq!((drained.done, drained.failed, drained.snoozed, drained.later), (4, 0, 0, 0));
    assert!(drained.took >= MINUTE * 30 && drained.took < MINUTE * 31, "{:?}", drained.took);
    assert_eq!(log.all(), "fine 1, invoice 1, slow 1, mail");
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn retries_and_scheduled_events_run_if_they_are_due_within_the_horizon() {
    let (streams, log) = (Streams::new(), Log::new());
    let client = streams.client();
    let runtime = runtime(&client, &log).start().await.unwrap();
    client.publish(&placed("retry")).await.unwrap();
    client.publish_in(MINUTE * 5, &placed("scheduled")).await.unwrap();
    client.publish_in(MINUTE * 60, &placed("much later")).await.unwrap();
    let first = streams.drain(Duration::ZERO).await.unwrap();
    assert_eq!((first.done, first.failed, first.later), (0, 1, 3));
    assert!(first.took < Duration::from_secs(5), "{:?}", first.took);
    let second = streams.drain(MINUTE * 15).await.unwrap();
    assert_eq!((second.done, second.failed, second.later), (1, 1, 2));
    assert_eq!(log.all(), "retry 1, scheduled 1, retry 2");
    let all = streams.drain(MINUTE * 120).await.unwrap();
    assert_eq!((all.done, all.failed, all.later), (1, 1, 0));
    let letter = &all.dead_letters[0];
    assert_eq!((letter.group.as_str(), letter.letter.reason), ("work", Reason::Exhausted));
    assert_eq!((letter.stream.as_str(), letter.letter.attempts), ("orders", 3));
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_snoozed_job_counts_no_failure_and_waits_beyond_the_horizon() {
    let (streams, log) = (Streams::new(), Log::new());
    let client = streams.client();
    let runtime = runtime(&client, &log).start().await.unwrap();
    client.publish(&placed("snooze")).await.unwrap();
    let drained = streams.drain(MINUTE * 5 + MINUTE / 2).await.unwrap();
    assert_eq!((drained.snoozed, drained.failed, drained.later), (6, 0, 1));
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_names_what_is_stuck() {
    let (streams, log) = (Streams::new(), Log::new());
    let client = streams.client();
    let builder = Runtime::builder(&client).handlers(handlers![work, mail]).state(log.clone());
    let runtime = builder.start().await.unwrap();
    let id = client.publish(&placed("gate")).await.unwrap().event_id;
    client.stream("invoices").unwrap().group("mails").unwrap().pause().await.unwrap();
    streams.advance(Duration::from_secs(5)).await;
    client.publish(&Invoice {}).await.unwrap();
    client.publish(&placed("fine")).await.unwrap();
    let error = streams.drain(Duration::ZERO).await.unwrap_err();
    assert_eq!((error.drained.done, error.left.len()), (1, 2));
    let text = error.to_string();
    assert!(text.contains("nothing has moved for 3600s"), "{text}");
    let paused =
        "group mails on stream invoices: an entry waits for its delivery (the group is paused)";
    assert!(text.contains(paused), "{text}");
    assert!(text.contains(&format!("group work on stream orders: event {id} (entry ")), "{text}");
    log.1.add_permits(1);
    client.stream("invoices").unwrap().group("mails").unwrap().resume().await.unwrap();
    assert_eq!(streams.drain(Duration::ZERO).await.unwrap().done, 2);
    let _ = runtime.shutdown().await;
    client.publish(&placed("fine")).await.unwrap();
    client.publish_in(MINUTE, &placed("fine")).await.unwrap();
    let text = streams.drain(MINUTE * 2).await.unwrap_err().to_string();
    assert!(text.contains("(no process works on it)"), "{text}");
    assert!(text.contains("stream orders: scheduled event "), "{text}");
    assert!(text.contains(" has been due for "), "{text}");
}

#[tokio::test(start_paused = true)]
async fn jobs_that_publish_each_other_end_a_drain() {
    let (streams, log) = (Streams::new(), Log::new());
    let client = streams.client();
    let runtime = runtime(&client, &log).start().await.unwrap();
    client.publish(&placed("again")).await.unwrap();
    let error = streams.drain(Duration::ZERO).await.unwrap_err();
    assert!(error.to_string().contains("more than 10000 attempts have ended"), "{error}");
    assert!(error.drained.done > 10_000);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_the_jobs_of_a_process_that_is_gone() {
    let (streams, log) = (Streams::new(), Log::new());
    let client = streams.client();
    let first = runtime(&client, &log).start().await.unwrap();
    client.publish(&placed("gate")).await.unwrap();
    let _ = streams.advance(Duration::from_secs(1)).await;
    drop(first);
    let _ = streams.advance(Duration::from_secs(1)).await;
    log.1.add_permits(1);
    let second = runtime(&client, &log).start().await.unwrap();
    let drained = streams.drain(Duration::ZERO).await.unwrap();
    assert_eq!((drained.done, log.all().as_str()), (1, "gate 1, gate 1"));
    let _ = second.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn time_passes_with_all_that_becomes_due_in_it() {
    let (streams, log) = (Streams::new(), Log::new());
    let client = streams.client();
    let builder = Runtime::builder(&client).handlers(handlers![work, mail, hourly]);
    let runtime = builder.state(log.clone()).start().await.unwrap();
    let (began, tokio_began) = (streams.now(), Instant::now());
    client.publish(&placed("retry")).await.unwrap();
    client.publish_in(MINUTE * 30, &placed("scheduled")).await.unwrap();
    let settled = streams.advance(Duration::ZERO).await;
    assert_eq!((settled.failed, settled.later, log.all().as_str()), (1, 2, "retry 1"));
    let half = streams.advance(MINUTE * 29).await;
    assert_eq!((half.failed, half.dead_letters.len(), half.later), (2, 1, 1));
    let rest = streams.advance(MINUTE).await;
    assert_eq!((rest.done, rest.later), (1, 0));
    assert!(rest.took >= MINUTE && rest.took < MINUTE + Duration::from_secs(16), "{:?}", rest.took);
    let day = streams.advance(MINUTE * 60 * 3).await;
    assert_eq!(day.done, 3, "an occurrence each hour");
    assert_eq!(
        streams.now().duration_since(began).unwrap().as_secs(),
        tokio_began.elapsed().as_secs()
    );
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_schedule_fires_in_a_drain_as_often_as_it_is_due_within_the_horizon() {
    let (streams, log) = (Streams::new(), Log::new());
    let client = streams.client();
    let builder = Runtime::builder(&client).handlers(handlers![hourly]).state(log.clone());
    let runtime = builder.start().await.unwrap();
    let drained = streams.drain(MINUTE * 60 * 5).await.unwrap();
    assert_eq!((drained.done, drained.later), (5, 0));
    let _ = runtime.shutdown().await;
    assert_eq!(streams.drain(Duration::ZERO).await.unwrap().done, 0, "nothing is due");
}
