//! The runtime's loops on streams in memory, under a paused clock: hours pass in no time.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::Fault;
use streamjobs::config::GroupOptions;
use streamjobs::testing::Streams;
use streamjobs::{
    Begin, Client, Event, Job, JobError, JobResource, ResultExt, Runtime, RuntimeBuilder, State,
    handler, handlers,
};
use streamjobs_tests::eventually::eventually_async;
use tokio::time::{Instant, sleep_until};

#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Order {
    id: usize,
}

type Script = dyn Fn(usize, Job) -> futures_util::future::BoxFuture<'static, Result<(), JobError>>
    + Send
    + Sync;

/// What the handler does, and when it was started for which order.
#[derive(Clone)]
struct Work {
    script: Arc<Script>,
    starts: Arc<Mutex<Vec<(usize, Instant)>>>,
}

impl Work {
    fn new<R>(script: impl Fn(usize, Job) -> R + Send + Sync + 'static) -> Self
    where
        R: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        let script = move |id, job| -> futures_util::future::BoxFuture<'static, _> {
            Box::pin(script(id, job))
        };
        Self { script: Arc::new(script), starts: Arc::default() }
    }

    fn starts(&self) -> Vec<(usize, Instant)> {
        self.starts.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.starts.lock().unwrap().len()
    }
}

#[handler(group = "work")]
async fn work(order: Order, State(work): State<Work>, job: Job) -> Result<(), JobError> {
    work.starts.lock().unwrap().push((order.id, Instant::now()));
    (work.script)(order.id, job).await
}

fn runtime(client: &Client, work: &Work) -> RuntimeBuilder {
    Runtime::builder(client).handlers(handlers![self::work]).state(work.clone())
}

async fn publish(client: &Client, count: usize) {
    let orders = (0..count).map(|id| Order { id }).collect::<Vec<_>>();
    for answer in client.publish_all(&orders).await {
        answer.unwrap();
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    eventually_async(Duration::from_secs(3600), what, async || condition()).await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_failing_jobs_wait_their_backoff_and_take_no_slot() {
    let (streams, attempts_max) = (Streams::new(), 3);
    let client = streams.client();
    let failing = Work::new(|_, _| async { Err("no".into()) });
    let delay = Duration::from_secs(60);
    let options = GroupOptions::new()
        .backoff(streamjobs::Backoff::fixed(delay))
        .max_attempts(NonZeroU32::new(attempts_max).unwrap());
    let runtime = runtime(&client, &failing).group("work", options).start().await.unwrap();
    publish(&client, 1_000).await;
    until("all dead-lettered", || runtime.counters().dead_lettered == 1_000).await;
    let mut by_order = std::collections::HashMap::<usize, Vec<Instant>>::new();
    for (id, at) in failing.starts() {
        by_order.entry(id).or_default().push(at);
    }
    assert!(by_order.values().all(|starts| starts.len() == 3));
    let early = by_order
        .values()
        .flat_map(|starts| starts.windows(2))
        .filter(|pair| pair[1] - pair[0] < delay);
    assert_eq!(early.count(), 0, "no retry before its time");
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_of_sixty_leases_runs_once() {
    let streams = Streams::new();
    let client = streams.client();
    let long = Work::new(|_, _| async {
        sleep_until(Instant::now() + Duration::from_secs(600)).await;
        Ok(())
    });
    let one = runtime(&client, &long).start().await.unwrap();
    let two = runtime(&client, &long).start().await.unwrap();
    publish(&client, 3).await;
    until("done", || one.counters().succeeded + two.counters().succeeded == 3).await;
    assert_eq!((long.count(), one.counters().leases_lost, two.counters().claimed), (3, 0, 0));
    let _ = (one.shutdown().await, two.shutdown().await);
}

#[tokio::test(start_paused = true)]
async fn when_the_server_is_gone_handlers_stop_by_our_own_clock_and_work_resumes_after() {
    let streams = Streams::new();
    let client = streams.client();
    let told = Arc::new(Mutex::new(None));
    let noted = told.clone();
    let waiting = Work::new(move |_, job| {
        let noted = noted.clone();
        async move {
            job.cancelled().cancelled().await;
            *noted.lock().unwrap() = Some((Instant::now(), job.lease_lost()));
            std::future::pending().await
        }
    });
    let lease = Duration::from_secs(10);
    let stopped = runtime(&client, &waiting).start().await.unwrap();
    publish(&client, 1).await;
    until("running", || waiting.count() == 1).await;
    let gone = Instant::now();
    streams.stop();
    until("told", || told.lock().unwrap().is_some()).await;
    let (at, lost) = told.lock().unwrap().unwrap();
    assert!(lost && at - gone < lease && at - gone > lease / 2, "{:?}", at - gone);
    streams.start();
    until("started again", || waiting.count() == 2).await;
    drop(stopped);
}

#[tokio::test(start_paused = true)]
async fn a_lost_read_is_repaired_without_waiting_for_the_lease() {
    let streams = Streams::new();
    let client = streams.client();
    let fine = Work::new(|_, job| async move {
        assert_eq!(job.delivery_count(), 1);
        Ok(())
    });
    let lease = GroupOptions::new().lease(Duration::from_secs(3600));
    let runtime = runtime(&client, &fine).group("work", lease).start().await.unwrap();
    publish(&client, 1).await;
    until("the first", || fine.count() == 1).await;
    for round in 1..=20 {
        streams.lose_next_read();
        publish(&client, 1).await;
        until("the lost one", || fine.count() == round + 1).await;
    }
    until("all acknowledged", || streams.pending("orders", "work").is_empty()).await;
    let counters = runtime.counters();
    assert_eq!((counters.dead_lettered, counters.failed, counters.claimed), (0, 0, 0));
    assert!(counters.recovered > 0);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_claim_is_repaired_without_waiting_for_the_lease() {
    let streams = Streams::new();
    let client = streams.client();
    let counts = Arc::new(Mutex::new(Vec::new()));
    let noted = counts.clone();
    let once = Work::new(move |_, job| {
        noted.lock().unwrap().push(job.delivery_count());
        async move { if job.delivery_count() == 1 { std::future::pending().await } else { Ok(()) } }
    });
    let dead = runtime(&client, &once).start().await.unwrap();
    publish(&client, 1).await;
    until("running", || once.count() == 1).await;
    drop(dead);
    let heir = runtime(&client, &once).start().await.unwrap();
    streamjobs::__store::behind(&streams).fail_next("claim_idle", Fault::AnswerLost);
    until("claimed, the reply lost", || heir.counters().server_errors == 1).await;
    let lost = Instant::now();
    until("done", || heir.counters().acknowledged == 1).await;
    assert!(lost.elapsed() < Duration::from_secs(5), "{:?}", lost.elapsed());
    assert_eq!((counts.lock().unwrap().as_slice(), heir.counters().recovered), (&[1, 2][..], 1));
    let _ = heir.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_moved_clock_steals_nothing() {
    let streams = Streams::new();
    let client = streams.client();
    let long = Work::new(|_, _| async {
        sleep_until(Instant::now() + Duration::from_secs(60)).await;
        Ok(())
    });
    let one = runtime(&client, &long).start().await.unwrap();
    let two = runtime(&client, &long).start().await.unwrap();
    publish(&client, 5).await;
    until("running", || long.count() == 5).await;
    streams.step_clock(120_000);
    // Before any renewal.
    for runtime in [&one, &two] {
        runtime.reap_now("work").unwrap();
    }
    until("done", || one.counters().succeeded + two.counters().succeeded == 5).await;
    assert_eq!((long.count(), one.counters().leases_lost + two.counters().leases_lost), (5, 0));
    let _ = (one.shutdown().await, two.shutdown().await);
}

#[tokio::test(start_paused = true)]
async fn settlements_wait_for_a_server_that_is_down_and_nothing_runs_twice() {
    let streams = Streams::new();
    let client = streams.client();
    let failing =
        Work::new(|id, _| async move { if id == 0 { Err(JobError::dead("no")) } else { Ok(()) } });
    let lease = GroupOptions::new().lease(Duration::from_secs(3600));
    let (stop, publisher) = (streams.clone(), client.clone());
    let stopping = Work::new(move |id, job| {
        stop.stop();
        (failing.script)(id, job)
    });
    let runtime = runtime(&client, &stopping).group("work", lease).start().await.unwrap();
    publish(&publisher, 2).await;
    until("both ran into the silence", || stopping.count() == 2).await;
    until("errors", || runtime.counters().server_errors > 3).await;
    assert_eq!(streams.pending("orders", "work").len(), 2);
    streams.start();
    until("settled", || streams.pending("orders", "work").is_empty()).await;
    assert_eq!((stopping.count(), runtime.counters().dead_lettered), (2, 1));
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_panics_turns_the_health_red_and_work_goes_on_around_it() {
    let streams = Streams::new();
    let client = streams.client();
    let fine = Work::new(|_, _| async { Ok(()) });
    let runtime = runtime(&client, &fine).start().await.unwrap();
    until("green", || runtime.health().is_healthy()).await;
    streamjobs::__store::behind(&streams).fail_next("heartbeat", Fault::Panic);
    until("red", || !runtime.health().is_healthy()).await;
    publish(&client, 3).await;
    until("done", || runtime.counters().acknowledged == 3).await;
    assert!(!runtime.health().is_healthy(), "and stays red");
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_done_without_an_answer_is_counted_as_done() {
    let streams = Streams::new();
    let client = streams.client();
    let failing = Work::new(|id, job| async move {
        match id {
            0 => Err(JobError::dead("no")),
            1 if job.attempt() == 1 => Err("once more".into()),
            2 => std::future::pending().await,
            _ => Ok(()),
        }
    });
    let builder = runtime(&client, &failing).grace(Duration::from_secs(1));
    let runtime = builder.start().await.unwrap();
    let faults = streamjobs::__store::behind(&streams);
    for step in ["store_dead_letter", "schedule_retry", "release"] {
        faults.fail_next(step, Fault::AnswerLost);
    }
    publish(&client, 3).await;
    until("settled", || runtime.counters().succeeded == 1).await;
    until("dead-lettered", || runtime.counters().dead_lettered == 1).await;
    let counters = runtime.counters();
    assert_eq!((counters.retried, counters.server_errors, counters.refused_late), (1, 2, 0));
    let report = runtime.shutdown().await;
    assert_eq!((report.released, report.abandoned.len()), (1, 0));
}

/// Writes down what happens to it.
struct Ledger(Arc<Mutex<Vec<&'static str>>>);

#[derive(Clone, Default)]
struct Book(Arc<Mutex<Vec<&'static str>>>);

static BOOK: std::sync::LazyLock<Book> = std::sync::LazyLock::new(Book::default);

impl JobResource for Ledger {
    async fn begin(job: &Job) -> Result<Begin<Self>, JobError> {
        let known = job.event_id().as_str() == "known";
        BOOK.0.lock().unwrap().push("begin");
        if known { Ok(Begin::AlreadyDone) } else { Ok(Begin::Run(Self(BOOK.0.clone()))) }
    }

    async fn commit(self) -> Result<(), JobError> {
        self.0.lock().unwrap().push("commit");
        Ok(())
    }

    async fn rollback(self) {
        self.0.lock().unwrap().push("rollback");
    }
}

#[handler(group = "ledger", max_attempts = 1, timeout = "1m")]
async fn with_ledger(order: Order, ledger: &mut Ledger) -> Result<(), JobError> {
    ledger.0.lock().unwrap().push("run");
    match order.id {
        0 => Ok(()),
        1 => Err("no".into()),
        2 => panic!("no"),
        _ => std::future::pending().await,
    }
}

#[tokio::test(start_paused = true)]
async fn a_resource_is_committed_before_the_acknowledgement_and_rolled_back_otherwise() {
    let streams = Streams::new();
    let client = streams.client();
    let runtime = Runtime::builder(&client).handlers(handlers![with_ledger]).start().await.unwrap();
    let take = || std::mem::take(&mut *BOOK.0.lock().unwrap());
    for (id, expected) in [
        (0, vec!["begin", "run", "commit"]),
        (1, vec!["begin", "run", "rollback"]),
        (2, vec!["begin", "run", "rollback"]),
        (3, vec!["begin", "run", "rollback"]),
    ] {
        client.publish(&Order { id }).await.unwrap();
        until("settled", || BOOK.0.lock().unwrap().len() == 3).await;
        until("gone", || streams.pending("orders", "ledger").is_empty()).await;
        assert_eq!(take(), expected, "order {id}");
    }
    let known = streamjobs::EventId::new("known").unwrap();
    client.publish_with_id(&Order { id: 0 }, known).await.unwrap();
    until("acknowledged without running", || runtime.counters().acknowledged == 2).await;
    assert_eq!(take(), ["begin"]);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_put_off_at_its_last_attempt_waits_and_is_never_charged() {
    let (streams, delay) = (Streams::new(), Duration::from_secs(60));
    let client = streams.client();
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let noted = attempts.clone();
    let locked = Work::new(move |_, job| {
        let mut attempts = noted.lock().unwrap();
        attempts.push((job.attempt(), job.is_last_attempt()));
        let runs = attempts.len();
        async move { if runs < 4 { Err::<(), _>("locked").later(delay) } else { Ok(()) } }
    });
    let once = GroupOptions::new().max_attempts(NonZeroU32::MIN);
    let runtime = runtime(&client, &locked).group("work", once).start().await.unwrap();
    publish(&client, 1).await;
    until("done", || runtime.counters().succeeded == 1).await;
    assert_eq!(attempts.lock().unwrap().as_slice(), [(1, true); 4]);
    let starts = locked.starts();
    assert!(starts.windows(2).all(|pair| pair[1].1 - pair[0].1 >= delay), "{starts:?}");
    let counters = runtime.counters();
    let counts = (counters.snoozed, counters.retried, counters.failed, counters.dead_lettered);
    assert_eq!(counts, (3, 3, 0, 0));
    let _ = runtime.shutdown().await;
}

/// Takes everything that is undecided for a deadlock, while it is open.
struct Judging(Arc<Mutex<Vec<String>>>);

impl JobResource for Judging {
    async fn begin(job: &Job) -> Result<Begin<Self>, JobError> {
        // What a resource may ask of its job: a part of the payload, and what the runtime was given.
        let (order, Book(book)) = (job.read::<Order>()?, job.state::<Book>().ok_or("no book")?);
        assert!(job.state::<usize>().is_none() && job.read::<Refund>().is_err());
        book.lock().unwrap().push("begin");
        let notes = Arc::new(Mutex::new(vec![format!("order {}", order.id)]));
        Ok(Begin::Run(Self(notes)))
    }

    async fn commit(self) -> Result<(), JobError> {
        Err("the connection broke at the commit".into())
    }

    fn judge(&self, error: JobError) -> JobError {
        self.0.lock().unwrap().push(error.to_string());
        let deadlock = error.is_retry() && error.cause().to_string() == "deadlock";
        if deadlock { error.into_later(Duration::from_secs(1)) } else { error }
    }

    async fn rollback(self) {
        let notes = self.0.lock().unwrap().join(", ");
        JUDGED.lock().unwrap().push(notes);
    }

    fn require(requirements: &mut streamjobs::Requirements) {
        requirements.state::<Book>();
    }
}

static JUDGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.refunded")]
struct Refund {}

#[handler(group = "judged", max_attempts = 1)]
async fn judged(order: Order, job: Job, judging: &mut Judging) -> Result<(), JobError> {
    judging.0.lock().unwrap().push("ran".to_owned());
    match order.id {
        0 if job.is_first_delivery() => Err("deadlock".into()),
        0 => Err(JobError::dead("deadlock")),
        1 => Err("no".into()),
        _ => Ok(()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_resource_judges_the_failure_of_its_handler_before_it_is_rolled_back() {
    let streams = Streams::new();
    let client = streams.client();
    let builder = Runtime::builder(&client).handlers(handlers![judged]);
    let runtime = builder.state(Book::default()).start().await.unwrap();
    publish(&client, 3).await;
    until("all dead-lettered", || runtime.counters().dead_lettered == 3).await;
    let counters = runtime.counters();
    assert_eq!((counters.snoozed, counters.failed), (1, 3));
    let mut notes = JUDGED.lock().unwrap().clone();
    notes.sort();
    let twice = "order 0, ran, deadlock";
    assert_eq!(notes, [twice, twice, "order 1, ran, no"], "a failed commit is nothing to judge");
    let letters = client.dead_letters("orders", "judged").unwrap();
    let letters = letters.list(None, 10).await.unwrap().letters.into_iter();
    let mut ends = letters
        .map(|letter| (letter.reason.as_str(), letter.error.unwrap(), letter.attempts))
        .collect::<Vec<_>>();
    ends.sort();
    let commit = "the connection broke at the commit";
    let expected = [("exhausted", "no", 1), ("exhausted", commit, 1), ("rejected", "deadlock", 1)];
    assert_eq!(
        ends,
        expected.map(|(reason, error, attempts)| (reason, error.to_owned(), attempts))
    );
    let _ = runtime.shutdown().await;
}

#[handler(group = "audit", stream = "orders", max_attempts = 3, backoff = "1m")]
async fn reject(_entry: streamjobs::Entry) -> Result<(), JobError> {
    Err("never".into())
}

#[tokio::test(start_paused = true)]
async fn three_minutes_of_retries_take_no_time() {
    let streams = Streams::new();
    let client = streams.client();
    let runtime = Runtime::builder(&client).handlers(handlers![reject]).start().await.unwrap();
    client.publish(&Order { id: 1 }).await.unwrap();
    sleep_until(Instant::now() + Duration::from_secs(180)).await;
    let letters =
        client.dead_letters("orders", "audit").unwrap().list(None, 10).await.unwrap().letters;
    assert_eq!(letters.len(), 1);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn hours_of_pause_keep_the_health_green_and_the_jobs_waiting() {
    let streams = Streams::new();
    let client = streams.client();
    let fine = Work::new(|_, _| async { Ok(()) });
    let runtime = runtime(&client, &fine).start().await.unwrap();
    until("green", || runtime.health().is_healthy()).await;
    runtime.pause("work").unwrap();
    // The read that waits is ended through the server.
    sleep_until(Instant::now() + Duration::from_secs(1)).await;
    publish(&client, 3).await;
    for hour in 1..=4 {
        sleep_until(Instant::now() + Duration::from_secs(3600)).await;
        assert!(runtime.health().is_healthy() && fine.count() == 0, "hour {hour}");
    }
    runtime.resume("work").unwrap();
    until("done", || {
        assert!(runtime.health().is_healthy(), "the first read has its time");
        runtime.counters().acknowledged == 3
    })
    .await;
    let _ = runtime.shutdown().await;
}
