//! Handlers that run for several jobs at once, on streams in memory under a paused clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::batch::{Batch, BatchBegun, BatchResource};
use streamjobs::config::GroupOptions;
use streamjobs::dead_letter::{DeadLetter, Reason};
use streamjobs::middleware::Next;
use streamjobs::testing::{Next as After, Streams, perform};
use streamjobs::{
    Begin, Client, Entry, Event, EventId, Fields, Job, JobError, JobResource, Runtime,
    RuntimeBuilder, State, StreamName, handler, handlers,
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

#[handler(group = "guarded", concurrency = 50, batch = 10, max_attempts = 2, backoff = "1s")]
async fn guarded(
    batch: Batch<Page>,
    State(log): State<Log>,
    ledger: &mut Ledger,
) -> Result<(), JobError> {
    ledger.begun = true;
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

/// Knows which events were done before: those whose id says so.
struct Ledger {
    log: Log,
    begun: bool,
}

impl JobResource for Ledger {
    async fn begin(_: &Job) -> Result<Begin<Self>, JobError> {
        Err("begins for several jobs".into())
    }

    async fn commit(self) -> Result<(), JobError> {
        Err("is committed for several jobs".into())
    }

    async fn rollback(self) {
        self.log.note("rolled back");
    }
}

impl BatchResource for Ledger {
    async fn begin_batch(jobs: &[Job]) -> Result<BatchBegun<Self>, JobError> {
        let log = jobs[0].state::<Log>().unwrap();
        let begun = BatchBegun::new(Self { log, begun: false });
        let places = jobs.iter().enumerate();
        Ok(places.fold(begun, |begun, (place, job)| match job.event_id().as_str() {
            id if id.starts_with("done") => begun.done(place),
            id if id.starts_with("busy") && job.is_first_delivery() => {
                begun.failed(place, JobError::later(Duration::from_secs(5), "another does it"))
            }
            _ => begun,
        }))
    }

    async fn commit_batch(self, failed: &[usize]) -> Result<(), JobError> {
        assert!(self.begun);
        self.log.note(format!("committed without {failed:?}"));
        Ok(())
    }
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

#[tokio::test(start_paused = true)]
async fn a_run_begins_when_it_is_full_or_its_first_job_has_waited() {
    let stage = Stage::new();
    stage.publish(&[("fine", 230)]).await;
    let begun = Instant::now();
    let runtime = stage.start().await;
    stage.until_done(&runtime, "search", 230).await;
    let mut sizes = stage.log.sizes();
    let last = stage.log.0.lock().unwrap().runs[2].1 - begun;
    sizes.sort_unstable();
    assert_eq!((sizes, stage.log.done()), (vec![30, 100, 100], pages(0..230)));
    let wait = Duration::from_secs(2);
    assert!(last >= wait && last < wait * 2, "{last:?}");
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn of_a_hundred_jobs_one_poison_is_dead_and_the_others_run_twice_at_most() {
    for plan in ["fail", "panic", "hang"] {
        let stage = Stage::new();
        stage.publish(&[("fine", 50), (plan, 1), ("fine", 49)]).await;
        let runtime = stage.start().await;
        let ended = async || stage.letters("search").await.len() == 1;
        eventually_async(Duration::from_secs(600), "the poison is dead", ended).await;
        stage.until_done(&runtime, "search", 99).await;
        let letter = stage.letters("search").await.remove(0);
        assert_eq!((letter.reason, letter.attempts), (Reason::Exhausted, 2), "{plan}");
        let expected = pages(0..50).into_iter().chain(51..100).collect::<Vec<_>>();
        assert_eq!(stage.log.done(), expected, "{plan}");
        assert!(expected.iter().all(|page| stage.log.runs_of(*page) <= 2), "{plan}");
        assert_eq!(runtime.counters().failed, 2, "{plan}: the attempts of the poison alone count");
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_run_counts_for_no_job_that_is_done_alone() {
    let stage = Stage::new();
    stage.publish(&[("fine", 5), ("fail once", 1)]).await;
    let runtime = stage.start().await;
    stage.until_done(&runtime, "search", 6).await;
    let counters = runtime.counters();
    assert_eq!((counters.failed, counters.snoozed), (0, 0));
    assert_eq!(stage.log.sizes(), [6, 1, 1, 1, 1, 1, 1]);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_the_handler_fails_ends_by_its_own_error_and_the_others_are_done() {
    let stage = Stage::new();
    stage.publish(&[("fine", 3), ("mark", 1), ("fine", 3)]).await;
    let runtime = stage.start().await;
    stage.until_done(&runtime, "search", 6).await;
    let ended = async || stage.letters("search").await.len() == 1;
    eventually_async(Duration::from_secs(600), "it has failed twice", ended).await;
    let letter = stage.letters("search").await.remove(0);
    assert_eq!((letter.attempts, letter.error.as_deref()), (2, Some("not this one")));
    assert_eq!(stage.log.sizes(), [7, 1], "its second attempt is alone");
    assert_eq!(stage.log.done(), [0, 1, 2, 4, 5, 6]);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_run_puts_off_comes_back_together_and_counts_as_no_failure() {
    let stage = Stage::new();
    stage.publish(&[("fine", 9), ("busy", 1)]).await;
    let runtime = stage.start().await;
    stage.until_done(&runtime, "search", 10).await;
    let counters = runtime.counters();
    assert_eq!((counters.snoozed, counters.failed), (10, 0));
    assert_eq!(stage.log.sizes(), [10, 10]);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_decoded_is_dead_and_keeps_no_other_from_its_run() {
    let stage = Stage::new();
    let raw = |payload: &str| {
        let fields = [("type", "page.changed"), ("payload", payload)];
        fields.into_iter().map(|(name, value)| (name.into(), value.to_owned().into())).collect()
    };
    let stream = StreamName::new("pages").unwrap();
    let store = streamjobs::__store::of(&stage.client);
    let fields: Fields = raw("no page");
    store.append_one(&stream, streamjobs::config::Retention::Unlimited, fields).await.unwrap();
    stage.publish(&[("fine", 4)]).await;
    let runtime = stage.start().await;
    stage.until_done(&runtime, "search", 4).await;
    let letters = stage.letters("search").await;
    assert_eq!(
        letters.iter().map(|letter| letter.reason).collect::<Vec<_>>(),
        [Reason::Undecodable]
    );
    assert_eq!(stage.log.sizes(), [4]);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_process_leaves_runs_alone() {
    let stage = Stage::new();
    stage.publish(&[("fine", 3), ("hang once", 1)]).await;
    let dead = stage.start().await;
    let begun = async || stage.log.sizes() == [4];
    eventually_async(Duration::from_secs(60), "the run has begun", begun).await;
    drop(dead);
    let runtime = stage.start().await;
    stage.until_done(&runtime, "search", 4).await;
    assert_eq!(stage.log.sizes(), [4, 1, 1, 1, 1]);
    assert_eq!(stage.log.done(), pages(0..4));
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_no_further_job_and_ends_what_has_begun() {
    let stage = Stage::new();
    let runtime = stage.start().await;
    stage.publish(&[("fine", 3)]).await;
    let read = async || stage.streams.pending("pages", "search").len() == 3;
    eventually_async(Duration::from_secs(60), "the jobs have begun", read).await;
    let stopped = Instant::now();
    let report = runtime.shutdown().await;
    assert!(stopped.elapsed() < Duration::from_secs(1), "{:?}", stopped.elapsed());
    assert_eq!((stage.log.sizes(), stage.log.done()), (vec![3], pages(0..3)), "{report:?}");
    assert!(stage.streams.pending("pages", "search").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_run_that_a_stop_ends_is_handed_back_uncounted() {
    let stage = Stage::new();
    stage.publish(&[("fine", 2), ("hang once", 1)]).await;
    let runtime = stage.start().await;
    let begun = async || stage.log.sizes() == [3];
    eventually_async(Duration::from_secs(60), "the run has begun", begun).await;
    let _ = runtime.shutdown().await;
    assert_eq!(stage.log.done(), [0; 0]);
    let counts = stage.streams.pending("pages", "search");
    assert!(counts.iter().all(|(.., deliveries)| *deliveries == 0), "{counts:?}");
    assert_eq!(counts.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_job_leaves_its_run_and_the_others_are_done() {
    let stage = Stage::new();
    stage.publish(&[("slow", 3)]).await;
    let runtime = stage.start().await;
    let begun = async || stage.log.sizes() == [3];
    eventually_async(Duration::from_secs(60), "the run has begun", begun).await;
    let stream = stage.client.stream("pages").unwrap();
    let first = stage.streams.published::<Page>().unwrap().remove(0);
    stream.cancel(&first.event_id).await.unwrap();
    stage.until_done(&runtime, "search", 2).await;
    let letters = stage.letters("search").await;
    assert_eq!((letters.len(), letters[0].reason), (1, Reason::Cancelled));
    assert_eq!(stage.log.sizes(), [3], "no job has run again");
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_resource_of_a_run_leaves_out_what_was_done_and_what_failed() {
    let stage = Stage::new();
    let plans = [
        ("n-0", "fine"),
        ("done-1", "fail"),
        ("n-2", "mark"),
        ("n-3", "fine"),
        ("busy-4", "fine"),
        ("done-5", "fail"),
    ];
    for (number, (id, plan)) in plans.into_iter().enumerate() {
        let page = Page { number, plan: plan.to_owned() };
        stage.client.publish_with_id(&page, EventId::new(id).unwrap()).await.unwrap();
    }
    let builder = Runtime::builder(&stage.client).handlers(handlers![guarded]);
    let runtime = builder.state(stage.log.clone()).start().await.unwrap();
    let ended = async || stage.letters("guarded").await.len() == 1;
    eventually_async(Duration::from_secs(600), "one has failed twice", ended).await;
    stage.until_done(&runtime, "guarded", 5).await;
    assert_eq!((stage.log.sizes(), stage.log.done()), (vec![3, 1, 1], vec![0, 3, 4]));
    let expected = ["committed without [2]", "committed without [0]", "committed without []"];
    assert_eq!(stage.log.notes(), expected);
    let counters = runtime.counters();
    assert_eq!((counters.succeeded, counters.snoozed, counters.failed), (5, 1, 2));

    stage.publish(&[("fine", 1), ("fail once", 1)]).await;
    stage.until_done(&runtime, "guarded", 7).await;
    let expected = ["rolled back", "committed without []", "committed without []"];
    assert_eq!(stage.log.notes()[3..], expected);

    let page = Page { number: 9, plan: "fail".to_owned() };
    stage.client.publish_with_id(&page, EventId::new("done-9").unwrap()).await.unwrap();
    stage.until_done(&runtime, "guarded", 8).await;
    assert_eq!(stage.log.notes()[6..], ["rolled back"], "a run of done events does not begin");
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn middleware_is_around_each_job_and_a_run_takes_entries_too() {
    let stage = Stage::new();
    let log = stage.log.clone();
    let around = move |job: Job, next: Next| {
        let log = log.clone();
        async move {
            let result = next.run().await;
            log.note(format!("{} {}", job.delivery_count(), result.is_ok()));
            result
        }
    };
    stage.publish(&[("fine", 3)]).await;
    let builder = Runtime::builder(&stage.client).handlers(handlers![audited]).around(around);
    let runtime = builder.state(stage.log.clone()).start().await.unwrap();
    stage.until_done(&runtime, "audit", 3).await;
    let expected = ["page.changed page.changed page.changed", "1 true", "1 true", "1 true"];
    assert_eq!(stage.log.notes(), expected);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_never_full_and_a_long_wait_are_refused() {
    let stage = Stage::new();
    let ten = std::num::NonZeroU32::new(10).unwrap();
    let options = GroupOptions::new().concurrency(ten).lease(Duration::from_secs(3));
    let error = stage.builder().group("search", options).start().await.unwrap_err().to_string();
    for part in ["indexed", "batch = 100", "runs 10 jobs at once", "waits 2s", "(1s)"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_test_performs_one_event_without_a_wait() {
    let (log, begun) = (Log::default(), Instant::now());
    let page = |plan: &str| Page { number: 7, plan: plan.to_owned() };
    let performed = perform::<indexed>(&page("fine")).state(log.clone()).await.unwrap();
    assert_eq!(performed.next, After::Done);
    let failed = perform::<indexed>(&page("mark")).state(log.clone()).await.unwrap();
    assert!(matches!(failed.next, After::Retry { error, .. } if error == "not this one"));
    assert_eq!((log.done(), begun.elapsed()), (vec![7], Duration::ZERO));
}
