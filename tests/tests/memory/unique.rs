//! Unique and debounced events on streams in memory under a paused clock: what ends a lock, what does not,
//! and what a steady flow of publications becomes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::Schedule;
use streamjobs::__store::memory::{Fault, MemoryStore};
use streamjobs::__store::raw_access::RawAccess;
use streamjobs::config::Retention;
use streamjobs::unique::{Debounce, Unique, UniqueDigest, UniquePublished};
use streamjobs::{
    Client, Event, EventId, Job, JobError, Runtime, State, StreamName, handler, handlers,
};
use streamjobs_tests::eventually::eventually_async;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "imports", type = "import", unique = "doc")]
struct Import {
    doc: u32,
    number: usize,
}

fn import(number: usize) -> Import {
    Import { doc: 7, number }
}

/// What a run does.
#[derive(Clone, Copy, Debug)]
enum Does {
    Retry,
    Die,
    Wait,
}

/// What the next runs do: without a plan they succeed.
#[derive(Clone)]
struct Plan {
    next: Arc<Mutex<VecDeque<Does>>>,
    ran: Arc<Mutex<Vec<usize>>>,
    gate: Arc<Semaphore>,
}

impl Plan {
    fn new(next: &[Does]) -> Self {
        let gate = Arc::new(Semaphore::new(0));
        Self {
            next: Arc::new(Mutex::new(next.iter().copied().collect())),
            ran: Arc::default(),
            gate,
        }
    }

    fn add(&self, next: Does) {
        self.next.lock().unwrap().push_back(next);
    }

    async fn until(&self, expected: &[usize]) {
        let ran = async || *self.ran.lock().unwrap() == expected;
        eventually_async(Duration::from_secs(3_000), "these have run", ran).await;
    }
}

#[handler(group = "work", max_attempts = 3, expires = "10m")]
async fn run(import: Import, State(plan): State<Plan>) -> Result<(), JobError> {
    plan.ran.lock().unwrap().push(import.number);
    let next = plan.next.lock().unwrap().pop_front();
    match next {
        Some(Does::Retry) => Err(JobError::retry_after(MINUTE, "not yet")),
        Some(Does::Die) => Err(JobError::dead("no such document")),
        Some(Does::Wait) => {
            plan.gate.acquire().await.unwrap().forget();
            Ok(())
        }
        None => Ok(()),
    }
}

struct Stage {
    store: MemoryStore,
    client: Client,
    plan: Plan,
    runtime: Runtime,
}

async fn stage(next: &[Does]) -> Stage {
    let (store, plan) = (MemoryStore::new(), Plan::new(next));
    let client = streamjobs::__store::client(&store);
    let builder = Runtime::builder(&client).handlers(handlers![run]).state(plan.clone());
    let runtime = builder.start().await.unwrap();
    Stage { store, client, plan, runtime }
}

impl Stage {
    async fn publish(&self, number: usize) -> UniquePublished {
        self.client.publish_unique(&until_done(), &import(number)).await.unwrap()
    }

    async fn stands(&self) -> Option<EventId> {
        let unique = self.client.unique("imports").unwrap();
        let holder = unique.holder(&UniqueDigest::of(&import(0)).unwrap()).await.unwrap();
        holder.map(|holder| holder.published.event_id)
    }

    async fn until_free(&self) {
        let free = async || self.stands().await.is_none();
        eventually_async(MINUTE, "another one can be published", free).await;
    }
}

fn until_done() -> Unique {
    Unique::until_done("work", MINUTE * 600)
}

async fn pass(time: Duration) {
    sleep_until(Instant::now() + time).await;
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_unique_event_stands_until_its_job_is_done_and_through_its_retries() {
    let stage = stage(&[Does::Retry]).await;
    let first = stage.publish(1).await;
    assert!(first.is_new());
    stage.plan.until(&[1]).await;
    pass(MINUTE / 2).await;
    let UniquePublished::Duplicate { stands, rest } = stage.publish(2).await else {
        panic!("its retry waits")
    };
    assert_eq!(&stands, first.published());
    assert!(rest < MINUTE * 600 && rest > MINUTE * 590, "{rest:?}");
    stage.plan.until(&[1, 1]).await;
    stage.until_free().await;
    assert!(stage.publish(3).await.is_new());
    stage.plan.until(&[1, 1, 3]).await;
    let _ = stage.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_of_any_reason_ends_the_time_of_its_event() {
    let stage = stage(&[Does::Die, Does::Retry, Does::Retry, Does::Retry]).await;
    assert!(stage.publish(1).await.is_new());
    stage.plan.until(&[1]).await;
    stage.until_free().await;
    assert!(stage.publish(2).await.is_new());
    stage.plan.until(&[1, 2, 2, 2]).await;
    stage.until_free().await;
    let group = stage.client.stream("imports").unwrap().group("work").unwrap();
    group.pause().await.unwrap();
    pass(MINUTE).await;
    assert!(stage.publish(3).await.is_new());
    pass(MINUTE * 11).await;
    group.resume().await.unwrap();
    stage.until_free().await;
    let letters = stage.client.dead_letters("imports", "work").unwrap();
    let letters = letters.list(None, 10).await.unwrap().letters;
    let reasons = letters.iter().map(|letter| letter.reason.as_str()).collect::<Vec<_>>();
    assert_eq!(reasons, ["rejected", "exhausted", "expired"]);
    let _ = stage.runtime.shutdown().await;
}

/// Here it even has the event id of the job that stands.
#[tokio::test(start_paused = true)]
async fn a_redriven_job_neither_begins_nor_ends_the_time_of_an_event() {
    let stage = stage(&[Does::Die]).await;
    let id = EventId::new("e-1").unwrap();
    let publish = async |number| {
        let event = import(number);
        stage.client.publish_unique_with_id(&until_done(), &event, id.clone()).await.unwrap()
    };
    assert!(publish(1).await.is_new());
    stage.plan.until(&[1]).await;
    stage.until_free().await;
    let letters = stage.client.dead_letters("imports", "work").unwrap();
    let letter = letters.list(None, 10).await.unwrap().letters.remove(0);
    stage.plan.add(Does::Wait);
    assert!(publish(2).await.is_new());
    stage.plan.until(&[1, 2]).await;
    letters.redrive(letter.address()).await.unwrap();
    stage.plan.until(&[1, 2, 1]).await;
    pass(MINUTE).await;
    assert_eq!(stage.runtime.counters().succeeded, 1, "the redriven one");
    assert_eq!(stage.stands().await, Some(id.clone()));
    stage.plan.gate.add_permits(1);
    stage.until_free().await;
    let _ = stage.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_for_a_group_that_does_not_exist_stands_for_its_longest_time() {
    let stage = stage(&[]).await;
    let unique = Unique::until_done("nowhere", MINUTE).key("a");
    let publish = async |number| {
        stage.client.publish_unique(&unique, &import(number)).await.unwrap().is_new()
    };
    assert!(publish(1).await);
    stage.plan.until(&[1]).await;
    pass(MINUTE - Duration::from_secs(2)).await;
    assert!(!publish(2).await, "another group has done it");
    pass(Duration::from_secs(3)).await;
    assert!(publish(3).await);
    let _ = stage.runtime.shutdown().await;
}

/// The process or the connection ends between any two requests.
#[tokio::test(start_paused = true)]
async fn errors_between_any_two_requests_lose_no_event_and_leave_no_lock_behind() {
    let stage = stage(&[]).await;
    let faults = [Fault::AnswerLost, Fault::RequestLost, Fault::Unreachable, Fault::Refused];
    let mut expected = Vec::new();
    for (number, fault) in faults.into_iter().enumerate() {
        stage.store.fail_next("publish_unique", fault);
        let error = stage.client.publish_unique(&until_done(), &import(number)).await.unwrap_err();
        let unconfirmed = matches!(fault, Fault::AnswerLost | Fault::RequestLost);
        assert_eq!(error.is_unconfirmed(), unconfirmed, "{fault:?}: {error}");
        let id = error.event_id().unwrap().clone();
        stage.store.fail_next("acknowledge_unique", fault);
        let event = import(number);
        let again = stage.client.publish_unique_with_id(&until_done(), &event, id.clone()).await;
        let again = again.unwrap();
        assert_eq!((&again.published().event_id, again.is_duplicate()), (&id, false), "{fault:?}");
        assert_eq!(again.is_new(), fault != Fault::AnswerLost, "{fault:?}");
        expected.push(number);
        stage.plan.until(&expected).await;
        stage.until_free().await;
    }
    for fault in faults {
        stage.store.fail_next("store_dead_letter", fault);
        stage.plan.add(Does::Die);
        assert!(stage.publish(9).await.is_new());
        expected.push(9);
        stage.plan.until(&expected).await;
        stage.until_free().await;
    }
    assert_eq!(stage.store.length("imports"), 8);
    let letters = stage.client.dead_letters("imports", "work").unwrap();
    assert_eq!(letters.list(None, 10).await.unwrap().letters.len(), 4);
    assert_eq!(stage.store.pending("imports", "work"), []);
    let _ = stage.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_payload_was_trimmed_while_it_ran_ends_the_time_of_its_event() {
    let stage = stage(&[Does::Wait]).await;
    let published = stage.publish(1).await;
    stage.plan.until(&[1]).await;
    stage.store.delete("imports", published.published().entry_id);
    pass(MINUTE).await;
    assert!(stage.publish(2).await.is_duplicate());
    stage.plan.gate.add_permits(1);
    stage.until_free().await;
    assert_eq!(stage.runtime.counters().succeeded, 1);
    let _ = stage.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_unique_or_debounced_is_refused_by_name_and_nothing_is_sent() {
    #[derive(Event, Serialize, Deserialize)]
    #[event(stream = "imports", type = "plain")]
    struct Plain {}
    let stage = stage(&[]).await;
    let (client, second) = (&stage.client, Duration::from_secs(1));
    let unique = async |unique: Unique| {
        let error = client.publish_unique(&unique, &Plain {}).await.unwrap_err();
        assert!(!error.is_unconfirmed(), "{error}");
        std::error::Error::source(&error).unwrap().to_string()
    };
    assert!(unique(Unique::within(second)).await.contains("#[event(unique"));
    assert!(unique(Unique::within(second).key("")).await.contains("key is empty"));
    assert!(unique(Unique::within(Duration::ZERO).key("a")).await.contains("window"));
    assert!(unique(Unique::until_done("", second).key("a")).await.contains("group"));
    let debounce = async |debounce: Debounce| {
        let error = client.publish_debounced(&debounce, &import(1)).await.unwrap_err();
        std::error::Error::source(&error).unwrap().to_string()
    };
    assert!(debounce(Debounce::new(Duration::ZERO, second)).await.contains("delay"));
    assert!(debounce(Debounce::new(second * 2, second)).await.contains("max_wait"));
    assert_eq!(stage.store.length("imports"), 0);
    assert_eq!(client.scheduled("imports").unwrap().count().await.unwrap(), 0);
    let _ = stage.runtime.shutdown().await;
}

/// A publication each 100 ms for 10 s, a second of quiet, at most three seconds.
#[tokio::test(start_paused = true)]
async fn a_steady_flow_of_debounced_events_becomes_four_with_the_newest_payload_each() {
    let store = MemoryStore::new();
    let client = streamjobs::__store::client(&store);
    let stream = StreamName::new("imports").unwrap();
    let (second, begun) = (Duration::from_secs(1), Instant::now());
    let debounce = Debounce::new(second, second * 3);
    for tick in 0..1_500_u32 {
        sleep_until(begun + Duration::from_millis(10) * tick).await;
        if tick % 10 == 0 && tick < 1_000 {
            let number = usize::try_from(tick / 10).unwrap();
            client.publish_debounced(&debounce, &import(number)).await.unwrap();
        }
        store.enter(&stream, Retention::Unlimited, 500, 0).await.unwrap();
    }
    let entries = client.stream("imports").unwrap().newest(10).await.unwrap();
    let numbers = entries.iter().map(|entry| {
        let data = serde_json::from_str::<Import>(entry.text("data").unwrap()).unwrap();
        let time = |name: &str| entry.text(name).unwrap().parse::<u64>().unwrap();
        assert!(time("sj-due") - time("sj-debounced") <= 3_000);
        assert!(entry.id().milliseconds() - time("sj-due") < 10);
        data.number
    });
    let mut numbers = numbers.collect::<Vec<_>>();
    numbers.sort_unstable();
    assert_eq!(numbers, [30, 61, 92, 99]);
}

#[tokio::test(start_paused = true)]
async fn a_debounced_event_runs_once_it_is_due_and_is_cancelled_by_its_name() {
    let stage = stage(&[]).await;
    let waiting = stage.client.scheduled("imports").unwrap();
    let (second, hour) = (Duration::from_secs(1), MINUTE * 60);
    let debounce = async |delay, number| {
        let debounce = Debounce::new(delay, hour);
        stage.client.publish_debounced(&debounce, &import(number)).await.unwrap()
    };
    let first = debounce(hour, 1).await;
    let second_one = debounce(second * 10, 2).await;
    assert_eq!(
        (second_one.replaced.as_ref(), &second_one.name),
        (Some(&first.event_id), &first.name)
    );
    let listed = waiting.list(None, 10).await.unwrap().events;
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].id, &listed[0].name), (&second_one.event_id, &first.name));
    stage.plan.until(&[2]).await;
    let third = debounce(second * 10, 3).await;
    assert_eq!(third.replaced, None);
    assert!(waiting.cancel(&third.name).await.unwrap());
    pass(MINUTE).await;
    stage.plan.until(&[2]).await;
    stage.store.fail_next("debounce", Fault::AnswerLost);
    let throttled = Debounce::new(second * 10, second * 10).keep_time();
    let error = stage.client.publish_debounced(&throttled, &import(4)).await.unwrap_err();
    let id = error.event_id().unwrap().clone();
    let again = stage.client.publish_debounced_with_id(&throttled, &import(4), id.clone()).await;
    let again = again.unwrap();
    assert!(error.is_unconfirmed() && again.repeated && again.event_id == id, "{again:?}");
    pass(second * 5).await;
    let last = stage.client.publish_debounced(&throttled, &import(5)).await.unwrap();
    assert_eq!((last.due, last.replaced), (again.due, Some(id)));
    stage.plan.until(&[2, 5]).await;
    let _ = stage.runtime.shutdown().await;
}

type Times = Arc<Mutex<Vec<(u32, Option<String>)>>>;

/// Fails once, after it has kept others waiting for a while.
#[handler(group = "logged", order = "key", backoff = "1s", on_failure = "skip")]
async fn logged(import: Keyed, job: Job, State(times): State<Times>) -> Result<(), JobError> {
    times.lock().unwrap().push((import.doc, job.entry().text("sj-debounced").map(str::to_owned)));
    sleep_until(Instant::now() + Duration::from_secs(2)).await;
    if job.attempt() == 1 { Err("again".into()) } else { Ok(()) }
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "keyed", type = "import", unique = "doc", key = "owner")]
struct Keyed {
    doc: u32,
    owner: u32,
}

/// In the stream, after a wait in the line of its key, and at its retry.
#[tokio::test(start_paused = true)]
async fn the_time_of_the_first_of_debounced_events_stays_with_the_job() {
    let client = streamjobs::__store::client(&MemoryStore::new());
    let times = Times::default();
    let builder = Runtime::builder(&client).handlers(handlers![logged]).state(Arc::clone(&times));
    let runtime = builder.start().await.unwrap();
    let debounce = Debounce::new(Duration::from_secs(1), Duration::from_secs(5));
    for doc in [1, 1, 2, 2] {
        client.publish_debounced(&debounce, &Keyed { doc, owner: 7 }).await.unwrap();
    }
    let runs = || times.lock().unwrap().len();
    eventually_async(Duration::from_secs(60), "each has run twice", async || runs() == 4).await;
    let times = times.lock().unwrap().clone();
    for doc in [1, 2] {
        let of = times.iter().filter(|(of, _)| *of == doc).map(|(_, time)| time.clone());
        let of = of.collect::<Vec<_>>();
        assert!(of.len() == 2 && of[0].is_some() && of[0] == of[1], "{times:?}");
    }
    let _ = runtime.shutdown().await;
}
