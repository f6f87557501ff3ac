//! Slots that groups share by weights, on a server.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::config::GroupOptions;
use streamjobs::{Client, Event, Job, JobError, Runtime, State, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::RedisServer;
use tokio::time::{Instant, sleep_until};

use crate::app::{DEADLINE, LEASE, quick};

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "urgent", type = "mail", key = "to")]
struct Urgent {
    to: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "bulk", type = "mail", key = "to")]
struct Bulk {
    to: String,
}

/// Which streams' jobs have started, in order, and how many ran at once.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<Ran>>);

#[derive(Default)]
struct Ran {
    started: Vec<&'static str>,
    done: usize,
    now: usize,
    most: usize,
}

impl Runs {
    async fn run(&self, stream: &'static str, job: &Job) -> Result<(), JobError> {
        {
            let mut ran = self.0.lock().unwrap();
            ran.started.push(stream);
            ran.now += 1;
            ran.most = ran.most.max(ran.now);
        }
        sleep_until(Instant::now() + Duration::from_millis(60)).await;
        let mut ran = self.0.lock().unwrap();
        ran.now -= 1;
        // One in ten fails at first, so that lanes are read as well.
        if job.attempt() == 1 && job.entry_id().sequence() % 10 == 3 {
            return Err("not yet".into());
        }
        ran.done += 1;
        Ok(())
    }
}

#[handler(group = "mail", slots = "mail", weight = 5, backoff = "20ms")]
async fn urgent(_: Urgent, State(runs): State<Runs>, job: Job) -> Result<(), JobError> {
    runs.run("urgent", &job).await
}

#[handler(group = "mail", slots = "mail", backoff = "20ms")]
async fn bulk(_: Bulk, State(runs): State<Runs>, job: Job) -> Result<(), JobError> {
    runs.run("bulk", &job).await
}

/// With three partitions of one of the streams, which have one share together, and retries.
#[tokio::test]
async fn streams_share_slots_by_weight_and_leave_none_taken() {
    let (server, runs) = (RedisServer::start().unwrap(), Runs::default());
    let builder = Client::builder(&server.url()).partitions("bulk", 3);
    let client = builder.connect().await.unwrap();
    let to = |number: u32| format!("customer-{}", number % 40);
    let some = |number: u32| NonZeroU32::new(number).unwrap();
    let urgents = (0..1_000).map(|number| Urgent { to: to(number) }).collect::<Vec<_>>();
    let bulks = (0..1_000).map(|number| Bulk { to: to(number) }).collect::<Vec<_>>();
    assert!(client.publish_all(&urgents).await.iter().all(Result::is_ok));
    assert!(client.publish_all(&bulks).await.iter().all(Result::is_ok));
    let builder = Runtime::builder(&client).handlers(handlers![urgent, bulk]).state(runs.clone());
    let builder = builder.group("mail", GroupOptions::new().lease(LEASE * 10));
    let runtime = quick(builder.shared_slots("mail", some(12))).start().await.unwrap();
    let done = async || runs.0.lock().unwrap().done == 2_000;
    eventually_async(DEADLINE * 3, "all are done", done).await;
    let in_use = || runtime.control().shared_slots()[0].in_use;
    eventually_async(DEADLINE, "all slots are free", async || in_use() == 0).await;
    let ran = std::mem::take(&mut *runs.0.lock().unwrap());
    assert_eq!(ran.most, 12);
    // While both have a backlog, of 840 starts: give or take one in ten.
    let had = ran.started[120..960].iter().filter(|stream| **stream == "urgent").count();
    assert!(had.abs_diff(700) <= 84, "{had}, not 700");
    for (stream, weight) in [("urgent", 5), ("bulk", 1)] {
        let consumers = client.stream(stream).unwrap().group("mail").unwrap().consumers().await;
        let consumer = consumers.unwrap().remove(0);
        let set = consumer.slot_set.unwrap();
        assert_eq!((set.name.as_str(), set.slots, consumer.weight), ("mail", 12, Some(weight)));
    }
    let _ = runtime.shutdown().await;
}

macro_rules! timed {
    ($($event:ident $handler:ident $stream:literal $weight:literal;)*) => {$(
        #[derive(Event, Serialize, Deserialize)]
        #[event(stream = $stream, type = "timed")]
        struct $event {
            takes_ms: u64,
        }

        #[handler(group = "timed", slots = "timed", weight = $weight)]
        async fn $handler(timed: $event, State(starts): State<Starts>) {
            starts.0.lock().unwrap().push($stream);
            sleep_until(Instant::now() + Duration::from_millis(timed.takes_ms)).await;
        }
    )*};
}

timed! {
    Five five "five" 5;
    Two two "two" 2;
    One one "one" 1;
}

/// Of which streams jobs have started, in order.
#[derive(Clone, Default)]
struct Starts(Arc<Mutex<Vec<&'static str>>>);

/// How many of 2,000 starts each of three streams with a backlog had, of jobs that take as long.
async fn shares_of(takes_ms: u64) -> [usize; 3] {
    let (server, starts) = (RedisServer::start().unwrap(), Starts::default());
    let client = Client::connect(&server.url()).await.unwrap();
    let all = 0..2_200;
    let fives = Vec::from_iter(all.clone().map(|_| Five { takes_ms }));
    let twos = Vec::from_iter(all.clone().map(|_| Two { takes_ms }));
    let ones = Vec::from_iter(all.map(|_| One { takes_ms }));
    assert!(client.publish_all(&fives).await.iter().all(Result::is_ok));
    assert!(client.publish_all(&twos).await.iter().all(Result::is_ok));
    assert!(client.publish_all(&ones).await.iter().all(Result::is_ok));
    let builder = Runtime::builder(&client).handlers(handlers![five, two, one]);
    let builder = builder.state(starts.clone()).shared_slots("timed", NonZeroU32::new(20).unwrap());
    let runtime = builder.start().await.unwrap();
    let started = async || starts.0.lock().unwrap().len() >= 2_100;
    eventually_async(DEADLINE * 3, "so many have started", started).await;
    let _ = runtime.shutdown().await;
    let starts = starts.0.lock().unwrap();
    ["five", "two", "one"]
        .map(|kind| starts[100..2_100].iter().filter(|start| **start == kind).count())
}

/// Jobs that are as long as some round trips, and jobs that are much longer and end together.
#[tokio::test]
async fn starts_are_in_proportion_whether_jobs_are_short_or_long_beside_a_read() {
    for takes_ms in [2, 50] {
        let had = shares_of(takes_ms).await;
        for (had, exact) in had.into_iter().zip([1_250_usize, 500, 250]) {
            assert!(had.abs_diff(exact) * 100 <= exact * 15, "{takes_ms} ms: {had}, not {exact}");
        }
    }
}
