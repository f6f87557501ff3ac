//! Jobs that are done are noted where that is asked for, on streams in memory under a paused clock.

use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::{Fault, MemoryStore, Passage, View, Watch};
use streamjobs::config::GroupOptions;
use streamjobs::stream::{FinishedPage, FinishedQuery, JobState};
use streamjobs::testing::Streams;
use streamjobs::{Client, Event, Job, JobError, Runtime, handler, handlers};
use streamjobs_tests::eventually::eventually_async;

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed", key = "customer")]
struct Placed {
    customer: String,
}

#[handler(group = "work", keep_done = "1h", backoff = "1m")]
async fn work(order: Placed, job: Job) -> Result<(), JobError> {
    tokio::time::advance(Duration::from_millis(3_200)).await;
    match order.customer == "slow" && job.attempt() == 1 {
        true => Err("not yet".into()),
        false => Ok(()),
    }
}

#[handler(group = "work", keep_done = "1h")]
async fn quick(_order: Placed) {}

#[handler(group = "silent")]
async fn silent(_order: Placed) {}

fn placed(customer: &str) -> Placed {
    Placed { customer: customer.to_owned() }
}

async fn finished(client: &Client, query: FinishedQuery) -> FinishedPage {
    client.stream("orders").unwrap().group("work").unwrap().finished(query).await.unwrap()
}

async fn noted(client: &Client, count: usize) {
    let noted = async || finished(client, FinishedQuery::new()).await.jobs.len() == count;
    eventually_async(Duration::from_secs(60), "the jobs are noted", noted).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_done_says_when_where_and_at_which_attempt() {
    let streams = Streams::new();
    let client = streams.client();
    let builder = Runtime::builder(&client).handlers(handlers![self::work, self::silent]);
    let runtime = builder.start().await.unwrap();
    let slow = client.publish(&placed("slow")).await.unwrap();
    streams.drain(Duration::from_secs(300)).await.unwrap();
    noted(&client, 1).await;
    let page = finished(&client, FinishedQuery::new()).await;
    let [job] = &page.jobs[..] else { panic!("{page:?}") };
    assert_eq!((job.event_id.as_str(), job.attempt), (slow.event_id.as_str(), 2));
    assert_eq!(job.event_type.as_deref(), Some("order.placed"));
    assert_eq!((job.key.as_deref(), job.origin), (Some("slow"), Some(slow.entry_id)));
    assert!(job.took >= Duration::from_millis(3_200) && job.took < Duration::from_secs(5));
    assert!(job.began >= slow.entry_id.milliseconds() + 60_000, "the first attempt has failed");
    let group = client.stream("orders").unwrap().group("work").unwrap();
    assert_eq!(job.process, group.consumers().await.unwrap()[0].name);

    let report = client.stream("orders").unwrap().event(&slow.event_id).await.unwrap();
    let of = |name: &str| report.jobs.iter().find(|job| job.group == name).unwrap();
    assert_eq!(of("work").finished.as_ref(), Some(job));
    assert!(matches!(of("work").state, JobState::Ended));
    assert_eq!(of("silent").finished, None);
    let silent = client.stream("orders").unwrap().group("silent").unwrap();
    assert!(silent.finished(FinishedQuery::new()).await.unwrap().jobs.is_empty());

    tokio::time::advance(Duration::from_secs(3_700)).await;
    assert!(finished(&client, FinishedQuery::new()).await.jobs.is_empty(), "after their time");
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn finished_jobs_are_paged_newest_first_and_found_by_what_they_are() {
    let streams = Streams::new();
    let client = streams.client();
    // One after the other, since each moves the clock.
    let options = GroupOptions::new().concurrency(NonZeroU32::MIN);
    let options = options.keep_done_max(NonZeroU32::new(25).unwrap());
    let builder = Runtime::builder(&client).handlers(handlers![self::work]).group("work", options);
    let runtime = builder.start().await.unwrap();
    for number in 0..30 {
        client.publish(&placed(["alice", "bob"][number % 2])).await.unwrap();
    }
    streams.drain(Duration::from_secs(300)).await.unwrap();
    // The stop writes what is left.
    let _ = runtime.shutdown().await;
    let (mut query, mut seen) = (FinishedQuery::new().limit(10), Vec::new());
    loop {
        let page = finished(&client, query.clone()).await;
        seen.extend(page.jobs);
        let Some(next) = page.next else { break };
        query = query.before(next);
    }
    assert_eq!(seen.len(), 25, "the number is bounded");
    assert!(seen.is_sorted_by_key(|job| std::cmp::Reverse(job.id)));
    let bob = finished(&client, FinishedQuery::new().key("bob")).await;
    assert!(!bob.jobs.is_empty() && bob.jobs.iter().all(|job| job.key.as_deref() == Some("bob")));
    assert_eq!((bob.compared, bob.next), (25, None));
    let id = &seen[3].event_id;
    let one = finished(&client, FinishedQuery::new().event_id(id)).await;
    assert_eq!(one.jobs, seen[3..4]);
    let none = finished(&client, FinishedQuery::new().event_type("order.packed")).await;
    assert_eq!((none.jobs.len(), none.compared), (0, 25));
}

/// Counts the steps that note jobs.
#[derive(Debug, Default)]
struct Notes(Mutex<u32>);

impl Watch for Notes {
    fn passage(&self, _caller: u64, _operation: &'static str) -> Passage {
        Passage::default()
    }

    fn carried_out(&self, _caller: u64, operation: &'static str, _view: View<'_>) {
        if operation == "note_done" {
            *self.0.lock().unwrap() += 1;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn jobs_of_one_moment_are_noted_in_one_request_and_without_the_option_none_is() {
    for (notes, expected) in [(true, 1..=6), (false, 0..=0)] {
        let store = MemoryStore::new();
        let watch = std::sync::Arc::new(Notes::default());
        let client = streamjobs::__store::client(&store.watched(1, watch.clone()));
        let handlers = if notes { handlers![self::quick] } else { handlers![self::silent] };
        let runtime = Runtime::builder(&client).handlers(handlers).start().await.unwrap();
        for _ in 0..100 {
            client.publish(&placed("alice")).await.unwrap();
        }
        let done = async || runtime.counters().succeeded == 100;
        eventually_async(Duration::from_secs(600), "all are done", done).await;
        let _ = runtime.shutdown().await;
        let calls = *watch.0.lock().unwrap();
        assert!(expected.contains(&calls), "{calls} requests");
    }
}

#[tokio::test(start_paused = true)]
async fn notes_that_were_not_sent_are_written_when_the_server_is_back() {
    let store = MemoryStore::new();
    let client = streamjobs::__store::client(&store);
    let runtime = Runtime::builder(&client).handlers(handlers![self::work]).start().await.unwrap();
    store.fail_next("note_done", Fault::Unreachable);
    client.publish(&placed("alice")).await.unwrap();
    let done = async || runtime.counters().succeeded == 1;
    eventually_async(Duration::from_secs(60), "it is done", done).await;
    noted(&client, 1).await;
    assert_eq!((runtime.counters().failed, runtime.counters().leases_lost), (0, 0));
    let _ = runtime.shutdown().await;
}
