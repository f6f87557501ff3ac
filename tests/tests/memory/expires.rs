//! Jobs that begin too late, on streams in memory under a paused clock: they become dead letters without
//! running, and those that began in time go on.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::MemoryStore;
use streamjobs::config::{GroupOptions, KeyOrder};
use streamjobs::dead_letter::{DeadLetters, Reason};
use streamjobs::{Event, JobError, Runtime, State, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Placed {
    number: usize,
}

/// The numbers of the orders that have run, once for each attempt.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<Vec<usize>>>);

impl Runs {
    fn all(&self) -> Vec<usize> {
        self.0.lock().unwrap().clone()
    }

    async fn until(&self, expected: &[usize]) {
        let ran = async || self.all() == expected;
        eventually_async(Duration::from_secs(300), "these have run", ran).await;
    }
}

#[handler(group = "work", expires = "60s")]
async fn placed(order: Placed, State(runs): State<Runs>) -> Result<(), JobError> {
    runs.0.lock().unwrap().push(order.number);
    if order.number == 7 && runs.all().iter().filter(|number| **number == 7).count() == 1 {
        return Err(JobError::retry_after(Duration::from_secs(600), "not yet"));
    }
    Ok(())
}

async fn started(store: &MemoryStore, runs: &Runs) -> Runtime {
    let client = streamjobs::__store::client(store);
    let builder = Runtime::builder(&client).handlers(handlers![placed]);
    builder.state(runs.clone()).start().await.unwrap()
}

async fn publish(store: &MemoryStore, number: usize) {
    streamjobs::__store::client(store).publish(&Placed { number }).await.unwrap();
}

fn letters(store: &MemoryStore) -> DeadLetters {
    streamjobs::__store::client(store).dead_letters("orders", "work").unwrap()
}

async fn wait(seconds: u64) {
    sleep_until(Instant::now() + Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_begins_too_late_does_not_run_and_does_after_a_redrive() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let _group = started(&store, &runs).await.shutdown().await;
    publish(&store, 1).await;
    wait(61).await;
    publish(&store, 2).await;
    let runtime = started(&store, &runs).await;
    runs.until(&[2]).await;
    wait(5).await;
    let dead = letters(&store).list(None, 10).await.unwrap().letters;
    let [letter] = dead.as_slice() else { panic!("one dead letter: {dead:?}") };
    assert_eq!((letter.reason, letter.attempts), (Reason::Expired, 0));
    let error = letter.error.as_deref().unwrap();
    assert!(error.starts_with("did not begin within 60s, but after 6"), "{error}");
    wait(600).await;
    letters(&store).redrive(letter.address()).await.unwrap();
    runs.until(&[2, 1]).await;
    let _ = runtime.shutdown().await;
    assert_eq!(letters(&store).list(None, 10).await.unwrap().letters.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_retry_of_a_job_that_began_in_time_runs_whenever_it_is_due() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let runtime = started(&store, &runs).await;
    publish(&store, 7).await;
    runs.until(&[7]).await;
    wait(590).await;
    assert_eq!(runs.all(), [7]);
    runs.until(&[7, 7]).await;
    let _ = runtime.shutdown().await;
    assert_eq!(letters(&store).list(None, 10).await.unwrap().letters.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_waited_for_a_process_with_its_handler_expires_as_any_other() {
    #[derive(Debug, Event, Serialize, Deserialize)]
    #[event(stream = "orders", type = "order.shipped")]
    struct Shipped {}

    #[handler(group = "work")]
    async fn shipped(_order: Shipped) {}

    let (store, runs) = (MemoryStore::new(), Runs::default());
    let client = streamjobs::__store::client(&store);
    let older = Runtime::builder(&client).handlers(handlers![shipped]).start().await.unwrap();
    publish(&store, 1).await;
    wait(90).await;
    let newer = started(&store, &runs).await;
    let dead = async || letters(&store).list(None, 10).await.unwrap().letters.len() == 1;
    eventually_async(Duration::from_secs(60), "it is a dead letter", dead).await;
    assert_eq!(runs.all(), [] as [usize; 0]);
    let _ = (older.shutdown().await, newer.shutdown().await);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_redriven_job_begins_with_the_redrive_also_without_its_handler() {
    #[derive(Debug, Event, Serialize, Deserialize)]
    #[event(stream = "orders", type = "order.shipped")]
    struct Shipped {}

    #[handler(group = "work")]
    async fn shipped(_order: Shipped) {}

    let (store, runs) = (MemoryStore::new(), Runs::default());
    let client = streamjobs::__store::client(&store);
    let _group = started(&store, &runs).await.shutdown().await;
    publish(&store, 1).await;
    wait(90).await;
    let newer = started(&store, &runs).await;
    let dead = async || letters(&store).list(None, 10).await.unwrap().letters.len() == 1;
    eventually_async(Duration::from_secs(60), "it is a dead letter", dead).await;
    let _ = newer.shutdown().await;
    let older = Runtime::builder(&client).handlers(handlers![shipped]).start().await.unwrap();
    let letter = letters(&store).list(None, 10).await.unwrap().letters.remove(0);
    letters(&store).redrive(letter.address()).await.unwrap();
    // Long enough for the older process to have read it, more than once.
    wait(25).await;
    let newer = started(&store, &runs).await;
    runs.until(&[1]).await;
    let _ = (older.shutdown().await, newer.shutdown().await);
    assert_eq!(letters(&store).list(None, 10).await.unwrap().letters.len(), 0);
}

/// A deploy ends its run, and what it ran until then is not a wait.
#[tokio::test(start_paused = true)]
async fn a_job_that_began_and_was_cut_off_by_a_stop_runs_again() {
    #[handler(group = "long", expires = "60s")]
    async fn long(order: Placed, State(runs): State<Runs>) {
        runs.0.lock().unwrap().push(order.number);
        wait(if runs.all().len() <= 2 { 300 } else { 0 }).await;
    }

    let (store, runs) = (MemoryStore::new(), Runs::default());
    let client = streamjobs::__store::client(&store);
    let start = async || {
        let builder = Runtime::builder(&client).handlers(handlers![long]).state(runs.clone());
        builder.grace(Duration::from_secs(5)).start().await.unwrap()
    };
    let runtime = start().await;
    publish(&store, 1).await;
    runs.until(&[1]).await;
    wait(120).await;
    let _ = runtime.shutdown().await;
    // Cut off for the second time, which the entry of the first has to outlive.
    let runtime = start().await;
    runs.until(&[1, 1]).await;
    wait(120).await;
    let _ = runtime.shutdown().await;
    let runtime = start().await;
    runs.until(&[1, 1, 1]).await;
    let _ = runtime.shutdown().await;
    let letters = client.dead_letters("orders", "long").unwrap();
    assert_eq!(letters.list(None, 10).await.unwrap().letters.len(), 0);
}

/// A job that is cut off has not failed: it waits for no sweep, and with order it runs before the jobs behind it.
#[tokio::test(start_paused = true)]
async fn a_job_that_was_cut_off_keeps_its_place_in_a_limit() {
    #[derive(Debug, Event, Serialize, Deserialize)]
    #[event(stream = "orders", type = "order.placed", key = "customer")]
    struct Keyed {
        customer: String,
        number: usize,
    }

    #[handler(group = "limited", expires = "60s")]
    async fn limited(order: Keyed, State(runs): State<Runs>) {
        runs.0.lock().unwrap().push(order.number);
        wait(if runs.all().len() == 1 { 300 } else { 0 }).await;
    }

    let options = GroupOptions::new;
    let one = NonZeroU32::new(1).unwrap();
    for (options, keeps_order) in [
        (options().concurrency_total(one), false),
        (options().concurrency_per_key(one), false),
        (options().order(KeyOrder::Skip), true),
        (options().order(KeyOrder::Block), true),
        (options().fair(), false),
    ] {
        let (store, runs) = (MemoryStore::new(), Runs::default());
        let client = streamjobs::__store::client(&store);
        let start = async || {
            let builder = Runtime::builder(&client).handlers(handlers![limited]);
            let builder = builder.group("limited", options).state(runs.clone());
            builder.grace(Duration::from_secs(5)).start().await.unwrap()
        };
        let runtime = start().await;
        for number in 1..=3 {
            let event = Keyed { customer: "alice".to_owned(), number };
            client.publish(&event).await.unwrap();
        }
        wait(5).await;
        assert_eq!(runs.all()[0], 1);
        let _ = runtime.shutdown().await;
        let runtime = start().await;
        let (began, all) = (Instant::now(), async || runs.all().len() == 4);
        eventually_async(Duration::from_secs(300), "all have run", all).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{options:?}: {:?}", began.elapsed());
        if keeps_order {
            assert_eq!(runs.all(), [1, 1, 2, 3], "{options:?}");
        }
        let _ = runtime.shutdown().await;
    }
}

/// What it waited before its redrive does not count, and what it waited in a line before and after does.
#[tokio::test(start_paused = true)]
async fn the_time_in_a_line_counts_and_begins_anew_with_a_redrive() {
    #[derive(Debug, Event, Serialize, Deserialize)]
    #[event(stream = "orders", type = "order.placed", key = "customer")]
    struct Keyed {
        customer: String,
        number: usize,
    }

    /// An odd one takes 90 s.
    #[handler(group = "lined", order = "key", expires = "60s", timeout = "300s")]
    async fn lined(order: Keyed, State(runs): State<Runs>) {
        runs.0.lock().unwrap().push(order.number);
        wait(if order.number % 2 == 1 { 90 } else { 0 }).await;
    }

    let (store, runs) = (MemoryStore::new(), Runs::default());
    let client = streamjobs::__store::client(&store);
    let builder = Runtime::builder(&client).handlers(handlers![lined]).state(runs.clone());
    let runtime = builder.start().await.unwrap();
    let publish = async |number| {
        let event = Keyed { customer: "alice".to_owned(), number };
        client.publish(&event).await.unwrap();
    };
    publish(1).await;
    publish(2).await;
    let letters = client.dead_letters("orders", "lined").unwrap();
    let dead = async || letters.list(None, 10).await.unwrap().letters;
    let one = async || dead().await.len() == 1;
    eventually_async(Duration::from_secs(300), "the second is a dead letter", one).await;
    assert_eq!(runs.all(), [1]);
    let letter = dead().await.remove(0);
    assert_eq!(letter.reason, Reason::Expired);
    publish(4).await;
    runs.until(&[1, 4]).await;
    publish(3).await;
    runs.until(&[1, 4, 3]).await;
    wait(40).await;
    // It waits for 50 s in the line.
    letters.redrive(letter.address()).await.unwrap();
    runs.until(&[1, 4, 3, 2]).await;
    let _ = runtime.shutdown().await;
    assert_eq!(dead().await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_settings_of_the_group_come_first_and_have_bounds() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let client = streamjobs::__store::client(&store);
    let build = |seconds| {
        let options = GroupOptions::new().expires(Duration::from_secs(seconds));
        let builder = Runtime::builder(&client).handlers(handlers![placed]).state(runs.clone());
        builder.group("work", options)
    };
    let error = build(0).start().await.unwrap_err().to_string();
    assert!(error.contains("expires 0ns is not between 1s and") && error.contains("placed"));
    let _group = build(120).start().await.unwrap().shutdown().await;
    publish(&store, 1).await;
    wait(90).await;
    let runtime = build(120).start().await.unwrap();
    runs.until(&[1]).await;
    let _ = runtime.shutdown().await;
}
