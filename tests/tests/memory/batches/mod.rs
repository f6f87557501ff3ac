//! Handlers that run for several jobs at once, on streams in memory under a paused clock.

mod resources;
mod runs;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::dead_letter::DeadLetter;
use streamjobs::testing::Streams;
use streamjobs::{
    Batch, Client, Entry, Event, JobError, Runtime, RuntimeBuilder, State, handler, handlers,
};
use streamjobs_tests::eventually::eventually_async;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "pages", type = "page.changed")]
struct Page {
    number: usize,
    /// What the handler does with it.
    plan: String,
}

/// What has happened.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Logged>>);

#[derive(Default)]
struct Logged {
    /// The pages of each run, and when it began.
    runs: Vec<(Vec<usize>, Instant)>,
    done: Vec<usize>,
    notes: Vec<String>,
}

impl Log {
    fn sizes(&self) -> Vec<usize> {
        self.0.lock().unwrap().runs.iter().map(|(pages, _)| pages.len()).collect()
    }

    fn runs_of(&self, page: usize) -> usize {
        self.0.lock().unwrap().runs.iter().filter(|(pages, _)| pages.contains(&page)).count()
    }

    /// The pages that were done, each as often as it was.
    fn done(&self) -> Vec<usize> {
        let mut done = self.0.lock().unwrap().done.clone();
        done.sort_unstable();
        done
    }

    fn note(&self, note: impl Into<String>) {
        self.0.lock().unwrap().notes.push(note.into());
    }

    fn notes(&self) -> Vec<String> {
        self.0.lock().unwrap().notes.clone()
    }
}

async fn seconds(seconds: u64) {
    sleep_until(Instant::now() + Duration::from_secs(seconds)).await;
}

/// The whole run goes as the first plan says that is not `fine`; `mark` fails an event alone.
async fn index(batch: &Batch<Page>, log: &Log) -> Result<(), JobError> {
    let pages = batch.iter().map(|item| item.event().number).collect();
    log.0.lock().unwrap().runs.push((pages, Instant::now()));
    let mut done = Vec::new();
    for item in batch {
        match item.event().plan.as_str() {
            "fail" => return Err("broken".into()),
            "fail once" if item.job().attempt() == 1 && batch.len() > 1 => {
                return Err("broken".into());
            }
            "panic" => panic!("broken"),
            "busy" if log.sizes().len() == 1 => {
                return Err(JobError::later(Duration::from_secs(5), "busy"));
            }
            "hang" => seconds(100).await,
            "hang once" if item.job().delivery_count() == 1 => std::future::pending().await,
            "mark" => {
                item.fail(JobError::retry("not this one"));
                item.fail("the first error stands");
            }
            "slow" => seconds(3).await,
            "until cancelled" if batch.len() > 1 => {
                item.job().cancelled().cancelled().await;
                return Err("stopped".into());
            }
            _ => {}
        }
        if item.event().plan != "mark" {
            done.push(item.event().number);
        }
    }
    log.0.lock().unwrap().done.extend(done);
    Ok(())
}

#[handler(
    group = "search",
    concurrency = 250,
    batch = 100,
    wait = "2s",
    timeout = "60s",
    max_attempts = 2,
    backoff = "1s",
    lease = "10s"
)]
async fn indexed(batch: Batch<Page>, State(log): State<Log>) -> Result<(), JobError> {
    index(&batch, &log).await
}

#[handler(group = "audit", stream = "pages", batch = 10, wait = "1s")]
async fn audited(batch: Batch<Entry>, State(log): State<Log>) {
    let ids = batch.into_iter().map(|item| {
        assert_eq!(item.event().id(), item.job().entry_id());
        item.event().event_type().unwrap_or("none").to_owned()
    });
    log.note(ids.collect::<Vec<_>>().join(" "));
}

struct Stage {
    streams: Streams,
    client: Client,
    log: Log,
}

impl Stage {
    fn new() -> Self {
        let streams = Streams::new();
        let client = streams.client();
        Self { streams, client, log: Log::default() }
    }

    fn builder(&self) -> RuntimeBuilder {
        let builder = Runtime::builder(&self.client).handlers(handlers![indexed]);
        builder.state(self.log.clone())
    }

    async fn start(&self) -> Runtime {
        self.builder().start().await.unwrap()
    }

    async fn publish(&self, plans: &[(&str, usize)]) {
        let plans = plans.iter().flat_map(|(plan, count)| std::iter::repeat_n(*plan, *count));
        let pages = plans.enumerate().map(|(number, plan)| Page { number, plan: plan.to_owned() });
        let pages = pages.collect::<Vec<_>>();
        for published in self.client.publish_all(&pages).await {
            published.unwrap();
        }
    }

    async fn letters(&self, group: &str) -> Vec<DeadLetter> {
        let letters = self.client.dead_letters("pages", group).unwrap();
        letters.list(None, 1_000).await.unwrap().letters
    }

    /// Waits until so many jobs are acknowledged, and none is pending.
    async fn until_done(&self, runtime: &Runtime, group: &str, count: u64) {
        let done = async || {
            runtime.counters().acknowledged == count
                && self.streams.pending("pages", group).is_empty()
        };
        eventually_async(Duration::from_secs(600), "all are done", done).await;
    }
}

fn pages(range: std::ops::Range<usize>) -> Vec<usize> {
    range.collect()
}
