//! Results of jobs, on streams in memory under a paused clock.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::{Fault, MemoryStore, Passage, View, Watch};
use streamjobs::dead_letter::Reason;
use streamjobs::middleware::Next;
use streamjobs::stream::{Group, JobResult, JobState, StreamError};
use streamjobs::testing::{Streams, perform};
use streamjobs::{
    Client, Event, EventId, HandlerDef, Job, JobError, Runtime, State, handler, handlers,
};
use streamjobs_tests::eventually::eventually_async;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "quotes", type = "quote.wanted")]
struct Wanted {
    cents: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Price {
    cents: u64,
    run: u32,
}

/// Counts runs, and holds them until they may go on.
#[derive(Clone, Default)]
struct Runs(Arc<AtomicU32>, Arc<Notify>);

impl Runs {
    fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

#[handler(group = "pricing", max_attempts = 3, backoff = "1s", result = "10m")]
async fn price(wanted: Wanted, State(runs): State<Runs>, job: Job) -> Result<Price, JobError> {
    let run = runs.0.fetch_add(1, Ordering::SeqCst) + 1;
    match wanted.cents {
        1 => runs.1.notified().await,
        2 if job.attempt() < 3 => return Err("busy".into()),
        3 => return Err(JobError::dead("no such article")),
        _ => {}
    }
    Ok(Price { cents: wanted.cents, run })
}

/// Makes a failure of the first success.
async fn refused_once(job: Job, next: Next) -> Result<(), JobError> {
    next.run().await?;
    if job.attempt() == 1 { Err("not yet".into()) } else { Ok(()) }
}

#[handler(group = "checked", backoff = "1s", result = "10m", wrap = refused_once)]
async fn checked(wanted: Wanted, State(runs): State<Runs>) -> Result<Price, JobError> {
    let run = runs.0.fetch_add(1, Ordering::SeqCst) + 1;
    Ok(Price { cents: wanted.cents, run })
}

#[handler(group = "large", result = "10m")]
async fn large(wanted: Wanted, State(runs): State<Runs>) -> Result<String, JobError> {
    runs.0.fetch_add(1, Ordering::SeqCst);
    Ok("x".repeat(usize::try_from(wanted.cents)?))
}

#[handler(group = "plain")]
async fn plain(_: Wanted) {}

struct App {
    store: MemoryStore,
    client: Client,
    runs: Runs,
    runtime: Runtime,
}

impl App {
    async fn start() -> Self {
        Self::with(handlers![price]).await
    }

    async fn with(handlers: [HandlerDef; 1]) -> Self {
        let (store, runs) = (MemoryStore::new(), Runs::default());
        let client = streamjobs::__store::client(&store);
        let builder = Runtime::builder(&client).handlers(handlers).state(runs.clone());
        let runtime = builder.start().await.unwrap();
        Self { store, client, runs, runtime }
    }

    fn group(&self, name: &str) -> Group {
        self.client.stream("quotes").unwrap().group(name).unwrap()
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_waiter_gets_what_the_handler_returned_and_so_does_who_asks_later() {
    let app = App::start().await;
    let pricing = app.group("pricing");
    let published = app.client.publish(&Wanted { cents: 1 }).await.unwrap();
    let running = async || app.runs.count() == 1;
    eventually_async(MINUTE, "it runs", running).await;
    assert_eq!(pricing.result::<Price>(&published).await.unwrap(), JobResult::Unknown);
    let begun = Instant::now();
    let early = pricing.wait_for::<Price>(&published, Duration::from_secs(3)).await.unwrap();
    assert!(early.is_unknown() && begun.elapsed() == Duration::from_secs(3));
    let waiting = pricing.wait_for::<Price>(&published, MINUTE);
    let (answer, ()) = tokio::join!(waiting, async {
        sleep_until(Instant::now() + Duration::from_secs(20)).await;
        app.runs.1.notify_one();
    });
    let price = Price { cents: 1, run: 1 };
    assert_eq!(answer.unwrap().done(), Some(price));
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(23_300), "within a quarter of a second: {took:?}");
    let later = pricing.result::<Price>(&published.event_id).await.unwrap();
    assert_eq!(later.done(), Some(Price { cents: 1, run: 1 }));
    let wrong = pricing.result::<String>(&published).await.unwrap_err();
    assert!(matches!(wrong, StreamError::DecodeResult { .. }), "{wrong}");
    assert!(!format!("{wrong} {wrong:?}").contains("cents\":"), "{wrong:?}");
    sleep_until(Instant::now() + 10 * MINUTE).await;
    assert!(pricing.result::<Price>(&published).await.unwrap().is_unknown(), "its time is over");
    let _ = app.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_leaves_nothing_and_the_one_that_succeeds_does() {
    let app = App::start().await;
    let published = app.client.publish(&Wanted { cents: 2 }).await.unwrap();
    let found = app.group("pricing").wait_for::<Price>(&published, MINUTE).await.unwrap();
    assert_eq!(found.done(), Some(Price { cents: 2, run: 3 }));
    let _ = app.runtime.shutdown().await;
    let app = App::with(handlers![checked]).await;
    let published = app.client.publish(&Wanted { cents: 9 }).await.unwrap();
    let found = app.group("checked").wait_for::<Price>(&published, MINUTE).await.unwrap();
    assert_eq!(found.done().unwrap().cents, 9);
    assert_eq!(app.runtime.counters().failed, 1, "middleware refused the first run");
    let _ = app.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_seen_as_dead_also_when_it_was_taken_away() {
    let app = App::start().await;
    let pricing = app.group("pricing");
    for _ in 0..3 {
        app.client.publish(&Wanted { cents: 3 }).await.unwrap();
    }
    let published = app.client.publish(&Wanted { cents: 3 }).await.unwrap();
    let begun = Instant::now();
    let found = pricing.wait_for::<Price>(&published, MINUTE).await.unwrap();
    let JobResult::Dead(dead) = found else { panic!("{found:?}") };
    assert_eq!(dead.reason, Some(Reason::Rejected));
    assert_eq!(dead.error.as_deref(), Some("no such article"));
    assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
    // As an archive does.
    let letters = app.client.dead_letters("quotes", "pricing").unwrap();
    let ids = letters.list(None, 10).await.unwrap().letters.into_iter().map(|letter| letter.id);
    assert_eq!(letters.purge(ids).await.unwrap(), 4);
    let signed = pricing.result::<Price>(&published.event_id).await.unwrap();
    let JobResult::Dead(signed) = signed else { panic!("{signed:?}") };
    assert_eq!((signed.reason, &signed.error, signed.letter), (dead.reason, &dead.error, None));
    // It is no result.
    let report = app.client.stream("quotes").unwrap().event(&published.event_id).await.unwrap();
    assert_eq!(report.jobs[0].result, None);
    let _ = app.runtime.shutdown().await;
}

/// The letters of dead processes have no sign, and neither has one that could not be stored.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_without_a_sign_is_found_among_the_letters() {
    let app = App::start().await;
    let pricing = app.group("pricing");
    app.store.fail_next("sign_dead", Fault::Refused);
    let published = app.client.publish(&Wanted { cents: 3 }).await.unwrap();
    for _ in 0..3 {
        app.client.publish(&Wanted { cents: 3 }).await.unwrap();
    }
    let dead = async || app.runtime.counters().dead_lettered == 4;
    eventually_async(MINUTE, "all are dead", dead).await;
    let found = pricing.wait_for::<Price>(&published, MINUTE).await.unwrap();
    let JobResult::Dead(found) = found else { panic!("{found:?}") };
    let letter = found.letter.unwrap();
    assert_eq!(
        (found.reason, found.error.as_deref()),
        (Some(Reason::Rejected), Some("no such article"))
    );
    let by_id = pricing.result::<Price>(&published.event_id).await.unwrap();
    assert!(matches!(by_id, JobResult::Dead(dead) if dead.letter == Some(letter)));
    let _ = app.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_repeated_does_not_change_the_result() {
    let app = App::start().await;
    let pricing = app.group("pricing");
    // An event that is published twice under one id is one job more, as a delivery that is repeated is a run more.
    let id = EventId::new("q-1").unwrap();
    app.client.publish_with_id(&Wanted { cents: 8 }, id.clone()).await.unwrap();
    let first = pricing.wait_for::<Price>(&id, MINUTE).await.unwrap();
    assert_eq!(first.done(), Some(Price { cents: 8, run: 1 }));
    app.client.publish_with_id(&Wanted { cents: 8 }, id.clone()).await.unwrap();
    eventually_async(MINUTE, "it ran twice", async || app.runs.count() == 2).await;
    eventually_async(MINUTE, "both are done", async || app.runtime.counters().acknowledged == 2)
        .await;
    let second = pricing.result::<Price>(&id).await.unwrap();
    assert_eq!(second.done(), Some(Price { cents: 8, run: 1 }));
    assert_eq!(app.runtime.counters().results_lost, 0);
    let _ = app.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_result_that_is_too_large_makes_a_dead_letter_that_names_the_limit() {
    let app = App::with(handlers![large]).await;
    let published = app.client.publish(&Wanted { cents: 2 << 20 }).await.unwrap();
    let found = app.group("large").wait_for::<String>(&published, MINUTE).await.unwrap();
    let JobResult::Dead(letter) = found else { panic!("{found:?}") };
    let error = letter.error.unwrap();
    assert!(error.contains("2097154 bytes, more than the limit of 1048576"), "{error}");
    assert_eq!(app.runs.count(), 1, "no retry makes it smaller");
    let fits = app.client.publish(&Wanted { cents: (1 << 20) - 2 }).await.unwrap();
    let found = app.group("large").wait_for::<String>(&fits, MINUTE).await.unwrap();
    assert_eq!(found.done().map(|text| text.len()), Some((1 << 20) - 2));
    let _ = app.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_while_a_result_is_kept_costs_neither_the_job_nor_a_second_run() {
    for fault in [Fault::Unreachable, Fault::RequestLost, Fault::AnswerLost] {
        let app = App::start().await;
        app.store.fail_next("keep_result", fault);
        let published = app.client.publish(&Wanted { cents: 8 }).await.unwrap();
        let found = app.group("pricing").wait_for::<Price>(&published, MINUTE).await.unwrap();
        assert_eq!(found.done(), Some(Price { cents: 8, run: 1 }), "{fault:?}: it is tried again");
        let counters = app.runtime.counters();
        assert_eq!((app.runs.count(), counters.results_lost, counters.failed), (1, 0, 0));
        let _ = app.runtime.shutdown().await;
    }
    let app = App::start().await;
    app.store.fail_next("keep_result", Fault::Refused);
    let published = app.client.publish(&Wanted { cents: 8 }).await.unwrap();
    let done = async || app.runtime.counters().acknowledged == 1;
    eventually_async(MINUTE, "acknowledged all the same", done).await;
    let counters = app.runtime.counters();
    assert_eq!((app.runs.count(), counters.results_lost, counters.failed), (1, 1, 0));
    assert!(app.group("pricing").result::<Price>(&published).await.unwrap().is_unknown());
    let _ = app.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_waiter_goes_on_when_the_server_is_back_and_says_so_when_it_is_not() {
    let app = App::start().await;
    let pricing = app.group("pricing");
    let published = app.client.publish(&Wanted { cents: 1 }).await.unwrap();
    eventually_async(MINUTE, "it runs", async || app.runs.count() == 1).await;
    app.store.stop_server();
    let failed = pricing.wait_for::<Price>(&published, Duration::from_secs(5)).await;
    assert!(matches!(failed, Err(StreamError::Server { .. })), "{failed:?}");
    let waiting = pricing.wait_for::<Price>(&published, 5 * MINUTE);
    let (answer, ()) = tokio::join!(waiting, async {
        sleep_until(Instant::now() + Duration::from_secs(2)).await;
        app.store.start_server();
        app.runs.1.notify_one();
    });
    assert_eq!(answer.unwrap().done().map(|price| price.cents), Some(1));
    // A waiter that is dropped leaves nothing behind, and another one can wait.
    let dropped = app.client.publish(&Wanted { cents: 1 }).await.unwrap();
    let waited = timeout(Duration::from_secs(1), pricing.wait_for::<Price>(&dropped, MINUTE)).await;
    assert!(waited.is_err());
    app.runs.1.notify_one();
    let again = pricing.wait_for::<Price>(&dropped, MINUTE).await.unwrap();
    assert_eq!(again.done().map(|price| price.cents), Some(1));
    let _ = app.runtime.shutdown().await;
}

/// Counts steps by name.
#[derive(Debug, Default)]
struct Steps(Mutex<Vec<&'static str>>);

impl Steps {
    fn count(&self, name: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|step| **step == name).count()
    }
}

impl Watch for Steps {
    fn passage(&self, _caller: u64, _operation: &'static str) -> Passage {
        Passage::default()
    }

    fn carried_out(&self, _caller: u64, operation: &'static str, _view: View<'_>) {
        self.0.lock().unwrap().push(operation);
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiter_reads_five_times_a_second_at_most_and_dead_letters_once() {
    let (store, steps) = (MemoryStore::new(), Arc::<Steps>::default());
    let client = streamjobs::__store::client(&store.watched(1, Arc::clone(&steps) as _));
    let group = client.stream("quotes").unwrap().group("pricing").unwrap();
    let id = EventId::new("q-1").unwrap();
    let found = group.wait_for::<Price>(&id, MINUTE).await.unwrap();
    assert!(found.is_unknown());
    // A pause is 188 ms on average, and a few short ones come first.
    let (results, letters) = (steps.count("result"), steps.count("previews"));
    assert!((240..=480).contains(&results), "{results}");
    assert!((45..=61).contains(&letters), "{letters}");
}

#[tokio::test(start_paused = true)]
async fn handlers_without_the_option_make_no_call() {
    let (store, steps) = (MemoryStore::new(), Arc::<Steps>::default());
    let client = streamjobs::__store::client(&store.watched(1, Arc::clone(&steps) as _));
    let runtime = Runtime::builder(&client).handlers(handlers![plain]).start().await.unwrap();
    for cents in 0..20 {
        client.publish(&Wanted { cents }).await.unwrap();
    }
    let done = async || runtime.counters().acknowledged == 20;
    eventually_async(MINUTE, "done", done).await;
    let _ = runtime.shutdown().await;
    assert_eq!(steps.count("keep_result"), 0);
}

#[tokio::test(start_paused = true)]
async fn the_report_of_an_event_says_that_a_result_is_kept_and_not_what_is_in_it() {
    let app = App::start().await;
    let published = app.client.publish(&Wanted { cents: 8_675_309 }).await.unwrap();
    app.group("pricing").wait_for::<Price>(&published, MINUTE).await.unwrap();
    let stream = app.client.stream("quotes").unwrap();
    let ended = async || {
        let report = stream.event(&published.event_id).await.unwrap();
        let job = report.jobs.iter().find(|job| job.group == "pricing").unwrap();
        let result = job.result.unwrap();
        assert_eq!(result.bytes, Some(br#"{"cents":8675309,"run":1}"#.len() as u64));
        assert!(result.rest > 9 * MINUTE && result.rest <= 10 * MINUTE);
        assert!(!format!("{report:?}").contains("8675309"), "{report:?}");
        matches!(job.state, JobState::Ended)
    };
    eventually_async(MINUTE, "the job has ended", ended).await;
    let _ = app.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_test_kit_gives_the_result_of_one_run_and_of_streams_in_memory() {
    let run = perform::<price>(&Wanted { cents: 5 }).state(Runs::default()).await.unwrap();
    assert_eq!(run.result::<Price>().unwrap(), Some(Price { cents: 5, run: 1 }));
    assert!(run.result::<String>().is_err());
    let failed = perform::<price>(&Wanted { cents: 3 }).state(Runs::default()).await.unwrap();
    assert_eq!(failed.result::<Price>().unwrap(), None);
    let refused = perform::<checked>(&Wanted { cents: 5 }).state(Runs::default()).await.unwrap();
    assert_eq!(refused.result::<Price>().unwrap(), None, "the middleware has the last word");
    let streams = Streams::new();
    let client = streams.client();
    let builder = Runtime::builder(&client).handlers(handlers![price]).state(Runs::default());
    let runtime = builder.start().await.unwrap();
    let published = client.publish(&Wanted { cents: 5 }).await.unwrap();
    streams.drain(MINUTE).await.unwrap();
    let pricing = client.stream("quotes").unwrap().group("pricing").unwrap();
    let found = pricing.result::<Price>(&published).await.unwrap();
    assert_eq!(found.done(), Some(Price { cents: 5, run: 1 }));
    streams.advance(10 * MINUTE).await;
    assert!(pricing.result::<Price>(&published).await.unwrap().is_unknown());
    let _ = runtime.shutdown().await;
}

/// A letter that was read in a look that failed elsewhere is not passed over by the next one.
#[tokio::test(start_paused = true)]
async fn what_one_partition_has_is_found_although_another_one_fails() {
    let streams = Streams::new();
    let builder = Client::builder("redis://127.0.0.1").partitions("quotes", 2);
    let client = streams.client_with(builder).unwrap();
    let store = streamjobs::__store::behind(&streams).clone();
    let builder = Runtime::builder(&client).handlers(handlers![price]).state(Runs::default());
    let runtime = builder.start().await.unwrap();
    let group = client.stream("quotes").unwrap().group("pricing").unwrap();
    let in_second = async |cents| {
        for _ in 0..100 {
            store.fail_next("sign_dead", Fault::Refused);
            let published = client.publish(&Wanted { cents }).await.unwrap();
            if published.partition == Some(1) {
                return published.event_id;
            }
        }
        panic!("all are in one partition");
    };
    let (dead, done) = (in_second(3).await, in_second(8).await);
    let settled = async || {
        let counters = runtime.counters();
        counters.dead_lettered > 0 && counters.acknowledged > 0 && {
            let info = client.stream("quotes").unwrap().event(&done).await.unwrap();
            info.jobs[0].result.is_some()
        }
    };
    eventually_async(MINUTE, "both have ended", settled).await;
    store.fail_next("previews", Fault::Unreachable);
    let found = group.wait_for::<Price>(&dead, MINUTE).await.unwrap();
    assert!(matches!(&found, JobResult::Dead(dead) if dead.letter.is_some()), "{found:?}");
    store.fail_next("result", Fault::Unreachable);
    let found = group.result::<Price>(&done).await.unwrap();
    assert_eq!(found.done().map(|price| price.cents), Some(8));
    // Without an answer of the other partition, nothing is known.
    store.fail_next("result", Fault::Unreachable);
    let failed = group.result::<Price>(&EventId::generate()).await;
    assert!(matches!(failed, Err(StreamError::Server { .. })), "{failed:?}");
    let _ = runtime.shutdown().await;
}
