//! The progress of running jobs, on streams in memory under a paused clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::{Fault, MemoryStore, Passage, View, Watch};
use streamjobs::stream::{PendingQuery, Progress};
use streamjobs::{Client, Event, Job, JobError, Runtime, State, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Placed {}

/// Tells jobs to end, and keeps them.
#[derive(Clone, Default)]
struct Ends(Arc<Notify>, Arc<Mutex<Vec<Job>>>);

#[handler(group = "work", max_attempts = 1)]
async fn work(_order: Placed, job: Job, State(ends): State<Ends>) -> Result<(), JobError> {
    ends.1.lock().unwrap().push(job.clone());
    for done in 1..=100 {
        job.progress(done, 100, "steps");
        sleep_until(Instant::now() + Duration::from_millis(100)).await;
    }
    ends.0.notified().await;
    Ok(())
}

#[handler(group = "work")]
async fn silent(_order: Placed) {}

/// Counts the writes of progress.
#[derive(Debug, Default)]
struct Writes(Mutex<u32>);

impl Watch for Writes {
    fn passage(&self, _caller: u64, _operation: &'static str) -> Passage {
        Passage::default()
    }

    fn carried_out(&self, _caller: u64, operation: &'static str, _view: View<'_>) {
        if operation == "write_progress" {
            *self.0.lock().unwrap() += 1;
        }
    }
}

async fn shown(client: &Client) -> Option<Progress> {
    let group = client.stream("orders").unwrap().group("work").unwrap();
    let page = group.pending(PendingQuery::new()).await.unwrap();
    page.entries.into_iter().find_map(|entry| entry.progress)
}

async fn until(client: &Client, what: &str, holds: impl Fn(Progress) -> bool) {
    let held = async || shown(client).await.is_some_and(&holds);
    eventually_async(Duration::from_secs(60), what, held).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_is_written_once_a_second_and_its_last_word_a_second_later() {
    let (store, writes, ends) = (MemoryStore::new(), Arc::<Writes>::default(), Ends::default());
    let client = streamjobs::__store::client(&store.watched(1, Arc::clone(&writes) as _));
    let builder = Runtime::builder(&client).handlers(handlers![work]).state(ends.clone());
    let runtime = builder.start().await.unwrap();
    client.publish(&Placed {}).await.unwrap();
    until(&client, "the first word", |progress| progress.done == 1).await;
    assert!(shown(&client).await.unwrap().age < Duration::from_millis(500));
    until(&client, "the last word", |progress| progress.done == 100).await;
    let last = shown(&client).await.unwrap();
    assert_eq!(
        (last.of, last.text.as_str(), last.to_string().as_str()),
        (Some(100), "steps", "100/100 steps")
    );
    // Ten seconds with a hundred reports.
    assert!((10..=12).contains(&*writes.0.lock().unwrap()), "{writes:?}");
    sleep_until(Instant::now() + Duration::from_secs(30)).await;
    assert!(shown(&client).await.unwrap().age >= Duration::from_secs(30));
    ends.0.notify_one();
    let done = async || runtime.counters().acknowledged == 1;
    eventually_async(Duration::from_secs(10), "done", done).await;
    let before = *writes.0.lock().unwrap();
    ends.1.lock().unwrap()[0].progress(7, None, "after its end");
    sleep_until(Instant::now() + Duration::from_secs(5)).await;
    assert_eq!((shown(&client).await, *writes.0.lock().unwrap()), (None, before));
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn jobs_that_say_nothing_make_no_call() {
    let (store, writes) = (MemoryStore::new(), Arc::<Writes>::default());
    let client = streamjobs::__store::client(&store.watched(1, Arc::clone(&writes) as _));
    let runtime = Runtime::builder(&client).handlers(handlers![silent]).start().await.unwrap();
    for _ in 0..20 {
        client.publish(&Placed {}).await.unwrap();
    }
    let done = async || runtime.counters().acknowledged == 20;
    eventually_async(Duration::from_secs(10), "done", done).await;
    let _ = runtime.shutdown().await;
    assert_eq!(*writes.0.lock().unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_is_tried_again_and_fails_no_job() {
    for fault in [Fault::Unreachable, Fault::Refused, Fault::RequestLost, Fault::AnswerLost] {
        let (store, ends) = (MemoryStore::new(), Ends::default());
        let client = streamjobs::__store::client(&store);
        store.fail_next("write_progress", fault);
        let builder = Runtime::builder(&client).handlers(handlers![work]).state(ends.clone());
        let runtime = builder.start().await.unwrap();
        client.publish(&Placed {}).await.unwrap();
        until(&client, "the last word", |progress| progress.done == 100).await;
        ends.0.notify_one();
        let done = async || runtime.counters().acknowledged == 1;
        eventually_async(Duration::from_secs(10), "done", done).await;
        let counters = runtime.counters();
        assert_eq!((counters.failed, counters.leases_lost), (0, 0), "{fault:?}");
        let _ = runtime.shutdown().await;
    }
}
