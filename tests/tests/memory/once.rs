//! Marks for work outside a database, on streams in memory under a paused clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::Fault;
use streamjobs::once::{KeepMarks, OnceMark, ServerMarks, conformance};
use streamjobs::testing::Streams;
use streamjobs::{
    Client, Event, EventId, Job, JobError, Runtime, RuntimeBuilder, State, handler, handlers,
};
use streamjobs_tests::eventually::eventually_async;
use tokio::sync::Semaphore;
use tokio::time::Instant;

#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Order {
    id: usize,
}

/// The runs of the handler: when, and whether the work may have been done before.
#[derive(Clone)]
struct Mails {
    sent: Arc<Mutex<Vec<(Instant, bool)>>>,
    /// The errors of the first runs.
    failures: Arc<Mutex<Vec<JobError>>>,
    gate: Arc<Semaphore>,
}

impl Mails {
    fn new() -> Self {
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Self { sent: Arc::default(), failures: Arc::default(), gate }
    }

    fn blocked() -> Self {
        Self { gate: Arc::new(Semaphore::new(0)), ..Self::new() }
    }

    fn failing(failures: impl IntoIterator<Item = JobError>) -> Self {
        let failures = Arc::new(Mutex::new(failures.into_iter().collect()));
        Self { failures, ..Self::new() }
    }

    fn takeovers(&self) -> Vec<bool> {
        self.sent.lock().unwrap().iter().map(|(_, takeover)| *takeover).collect()
    }

    fn count(&self) -> usize {
        self.sent.lock().unwrap().len()
    }
}

#[handler(group = "mails", timeout = "1m")]
async fn mail(
    _order: Order,
    mark: &mut OnceMark,
    State(mails): State<Mails>,
    job: Job,
) -> Result<(), JobError> {
    assert_eq!(mark.key(), job.event_id().as_str());
    mails.sent.lock().unwrap().push((Instant::now(), mark.is_takeover()));
    mails.gate.acquire().await?.forget();
    match mails.failures.lock().unwrap().pop() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn runtime(client: &Client, mails: &Mails) -> RuntimeBuilder {
    Runtime::builder(client).handlers(handlers![mail]).state(mails.clone())
}

/// Its first run returns once its attempt is cancelled.
#[handler(group = "late")]
async fn late(_order: Order, mark: &mut OnceMark, State(mails): State<Mails>, job: Job) {
    let is_first = {
        let mut sent = mails.sent.lock().unwrap();
        sent.push((Instant::now(), mark.is_takeover()));
        sent.len() == 1
    };
    if is_first {
        job.cancelled().cancelled().await;
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    eventually_async(Duration::from_secs(3_600), what, async || condition()).await;
}

#[tokio::test]
async fn marks_in_memory_keep_their_contract() {
    conformance::check::<ServerMarks, _>(&Streams::new().client(), ()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_event_that_comes_again_is_acknowledged_without_running() {
    let (streams, mails) = (Streams::new(), Mails::new());
    let client = streams.client();
    let runtime = runtime(&client, &mails).start().await.unwrap();
    let id = EventId::generate();
    for finished in 1..=3 {
        client.publish_with_id(&Order { id: 1 }, id.clone()).await.unwrap();
        until("acknowledged", || runtime.counters().succeeded == finished).await;
    }
    assert_eq!(mails.takeovers(), [false]);
    client.publish(&Order { id: 1 }).await.unwrap();
    until("another event is other work", || mails.count() == 2).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_second_job_of_an_event_is_snoozed_until_the_first_is_done() {
    let (streams, mails) = (Streams::new(), Mails::blocked());
    let client = streams.client();
    let runtime = runtime(&client, &mails).start().await.unwrap();
    let id = EventId::generate();
    for _ in 0..2 {
        client.publish_with_id(&Order { id: 1 }, id.clone()).await.unwrap();
    }
    until("snoozed many times", || runtime.counters().snoozed >= 8).await;
    assert_eq!((mails.count(), runtime.counters().dead_lettered), (1, 0));
    mails.gate.add_permits(9);
    until("skipped", || runtime.counters().succeeded == 2).await;
    assert_eq!(mails.takeovers(), [false]);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_leaves_no_mark_and_the_next_one_begins_again() {
    let client = Streams::new().client();
    let mails = Mails::failing([JobError::retry("no"), JobError::retry("no")]);
    let runtime = runtime(&client, &mails).start().await.unwrap();
    client.publish(&Order { id: 1 }).await.unwrap();
    until("done", || runtime.counters().succeeded == 1).await;
    assert_eq!(mails.takeovers(), [false, false, false]);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_timed_out_begins_again() {
    let (streams, mails) = (Streams::new(), Mails::blocked());
    let client = streams.client();
    let runtime = runtime(&client, &mails).start().await.unwrap();
    client.publish(&Order { id: 1 }).await.unwrap();
    until("timed out", || mails.count() == 2).await;
    mails.gate.add_permits(1);
    until("done", || runtime.counters().succeeded == 1).await;
    assert_eq!(mails.takeovers(), [false, false]);
    let _ = runtime.shutdown().await;
}

/// The mail may be sent: the handler is dropped at any of its awaits.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_a_shutdown_cuts_off_tells_the_next_one() {
    let (streams, mails) = (Streams::new(), Mails::blocked());
    let client = streams.client();
    let first = runtime(&client, &mails).start().await.unwrap();
    client.publish(&Order { id: 1 }).await.unwrap();
    until("runs", || mails.count() == 1).await;
    let _ = first.shutdown().await;
    mails.gate.add_permits(1);
    let second = runtime(&client, &mails).start().await.unwrap();
    until("done", || second.counters().succeeded == 1).await;
    assert_eq!(mails.takeovers(), [false, true]);
    let _ = second.shutdown().await;
}

/// The first attempt returns `Ok` when its lease is lost already, so that it may not say that the work is done.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_lost_its_lease_tells_the_next_one() {
    let (streams, mails) = (Streams::new(), Mails::new());
    let client = streams.client();
    let store = streamjobs::__store::behind(&streams);
    for _ in 0..12 {
        store.fail_next("renew", Fault::Unreachable);
    }
    let builder = Runtime::builder(&client).handlers(handlers![late]).state(mails.clone());
    let runtime = builder.start().await.unwrap();
    client.publish(&Order { id: 1 }).await.unwrap();
    until("done", || runtime.counters().succeeded == 1).await;
    assert_eq!(mails.takeovers(), [false, true]);
    assert_eq!(runtime.counters().leases_lost, 1);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn recording_that_work_is_done_is_retried_before_the_work_runs_again() {
    let (streams, mails) = (Streams::new(), Mails::new());
    let client = streams.client();
    let store = streamjobs::__store::behind(&streams);
    for fault in [Fault::Unreachable, Fault::RequestLost, Fault::AnswerLost] {
        store.fail_next("finish_mark", fault);
    }
    let runtime = runtime(&client, &mails).start().await.unwrap();
    client.publish(&Order { id: 1 }).await.unwrap();
    until("done", || runtime.counters().succeeded == 1).await;
    assert_eq!(mails.takeovers(), [false]);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_could_not_record_its_work_tells_the_next_one() {
    let (streams, mails) = (Streams::new(), Mails::new());
    let client = streams.client();
    let store = streamjobs::__store::behind(&streams);
    for _ in 0..5 {
        store.fail_next("finish_mark", Fault::RequestLost);
    }
    let runtime = runtime(&client, &mails).start().await.unwrap();
    client.publish(&Order { id: 1 }).await.unwrap();
    until("done", || runtime.counters().succeeded == 1).await;
    assert_eq!(mails.takeovers(), [false, true]);
    assert_eq!(runtime.counters().snoozed, 1, "that is no failure of the job");
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_cannot_be_written_runs_nothing_and_counts_no_failure() {
    let (streams, mails) = (Streams::new(), Mails::new());
    let client = streams.client();
    let store = streamjobs::__store::behind(&streams);
    for _ in 0..20 {
        store.fail_next("begin_mark", Fault::Unreachable);
    }
    let runtime = runtime(&client, &mails).start().await.unwrap();
    client.publish(&Order { id: 1 }).await.unwrap();
    until("done", || runtime.counters().succeeded == 1).await;
    let counters = runtime.counters();
    assert_eq!((mails.takeovers(), counters.snoozed, counters.dead_lettered), (vec![false], 20, 0));
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn marks_expire_after_the_time_that_the_runtime_was_given() {
    let (streams, mails) = (Streams::new(), Mails::new());
    let client = streams.client();
    let keep = Duration::from_secs(600);
    let runtime = runtime(&client, &mails).state(KeepMarks(keep)).start().await.unwrap();
    let id = EventId::generate();
    let publish = async || {
        client.publish_with_id(&Order { id: 1 }, id.clone()).await.unwrap();
    };
    publish().await;
    until("done", || runtime.counters().succeeded == 1).await;
    publish().await;
    until("skipped", || runtime.counters().succeeded == 2).await;
    assert_eq!(mails.count(), 1);
    let began = Instant::now();
    until("some time", || began.elapsed() > keep).await;
    publish().await;
    until("done again", || runtime.counters().succeeded == 3).await;
    assert_eq!(mails.count(), 2);
    let _ = runtime.shutdown().await;
}
