//! Handlers with a schedule of their own, on streams in memory under a paused clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use streamjobs::__store::memory::MemoryStore;
use streamjobs::schedule::Tick;
use streamjobs::{Client, Job, JobError, Runtime, State, handler, handlers};
use tokio::time::{Instant, sleep_until};

/// An occurrence that ran: the schedule, its time, and how many were missed before it.
type Run = (String, u64, u64);

/// What ran, once for each attempt.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<Vec<Run>>>);

impl Runs {
    fn push(&self, tick: Tick) {
        self.0.lock().unwrap().push((tick.schedule, tick.at, tick.missed));
    }

    fn take(&self) -> Vec<Run> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// The times of a schedule, in the order in which they ran.
    fn times(&self, schedule: &str) -> Vec<u64> {
        let runs = self.0.lock().unwrap();
        runs.iter().filter(|(name, ..)| name == schedule).map(|(_, at, _)| *at).collect()
    }
}

#[handler(group = "reports", every = "1s")]
async fn often(tick: Tick, State(runs): State<Runs>) {
    runs.push(tick);
}

#[handler(group = "reports", every = "1m", offset = "10s")]
async fn shifted(tick: Tick, State(runs): State<Runs>) {
    runs.push(tick);
}

#[handler(group = "offices", cron = "*/30 4-5 * * *", zone = "Asia/Kathmandu")]
async fn kathmandu(tick: Tick, State(runs): State<Runs>) {
    runs.push(tick);
}

#[handler(group = "offices", every = "1m", max_attempts = 2, backoff = "1s")]
async fn failing(tick: Tick, job: Job, State(runs): State<Runs>) -> Result<(), JobError> {
    runs.push(tick);
    match job.attempt() {
        1 => Err(JobError::retry("not yet")),
        _ => Ok(()),
    }
}

#[handler(group = "latest", every = "1m")]
async fn latest(tick: Tick, State(runs): State<Runs>) {
    runs.push(tick);
}

#[handler(group = "latest", every = "1m", missed = "all", missed_max = 3)]
async fn newest(tick: Tick, State(runs): State<Runs>) {
    runs.push(tick);
}

#[handler(group = "latest", every = "1m", missed = "all", missed_within = "5m")]
async fn recent(tick: Tick, State(runs): State<Runs>) {
    runs.push(tick);
}

#[handler(group = "imports", every = "1m", overlap = "skip", max_attempts = 2, backoff = "150s")]
async fn import(tick: Tick, job: Job, State(runs): State<Runs>) -> Result<(), JobError> {
    runs.push(tick);
    sleep_until(Instant::now() + Duration::from_secs(90)).await;
    match job.attempt() {
        1 => Err(JobError::retry("not yet")),
        _ => Ok(()),
    }
}

async fn pass(time: Duration) {
    sleep_until(Instant::now() + time).await;
}

/// No group has a dead letter, or a job that waits.
async fn assert_all_done(client: &Client, group: &str) {
    let stream = format!("ticks:{group}");
    let groups = client.stream(stream.as_str()).unwrap().groups().await.unwrap();
    let names = groups.iter().map(|info| info.group.clone()).collect::<Vec<_>>();
    assert_eq!(names, [group], "no other group reads the stream of these ticks");
    assert_eq!((groups[0].dead_letters, groups[0].retrying), (Some(0), 0));
}

const MINUTE: Duration = Duration::from_secs(60);
/// The start of the store's clock: 2023-11-14 22:13:20 UTC.
const START: u64 = 1_700_000_000_000;

#[tokio::test(start_paused = true)]
async fn a_handler_with_an_interval_runs_at_each_point_of_the_grid_once() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let client = streamjobs::__store::client(&store);
    let builder = Runtime::builder(&client).handlers(handlers![often, shifted]);
    let runtime = builder.state(runs.clone()).start().await.unwrap();
    pass(10 * MINUTE).await;
    let _ = runtime.shutdown().await;
    let often = runs.times("often");
    assert!(often.windows(2).all(|pair| pair[1] == pair[0] + 1_000), "{often:?}");
    assert!(often[0] > START && often[0] <= START + 2_000, "{}", often[0]);
    assert!(often.len() >= 598, "{}", often.len());
    let shifted = runs.times("shifted");
    assert!(shifted.windows(2).all(|pair| pair[1] == pair[0] + 60_000), "{shifted:?}");
    assert!(shifted.len() >= 9 && shifted[0] % 60_000 == 10_000, "{shifted:?}");
    assert_all_done(&client, "reports").await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_with_an_expression_runs_by_the_clock_of_its_zone_and_is_retried() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let client = streamjobs::__store::client(&store);
    let builder = Runtime::builder(&client).handlers(handlers![kathmandu, failing, often]);
    let runtime = builder.state(runs.clone()).start().await.unwrap();
    pass(120 * MINUTE).await;
    let _ = runtime.shutdown().await;
    // 04:00, 04:30, 05:00 and 05:30 in Kathmandu, which is 5:45 ahead.
    let minutes = |at: u64| (at - START) as f64 / 60_000.0;
    let times = runs.times("kathmandu");
    let expected = [100_000, 1_900_000, 3_700_000, 5_500_000].map(|after| START + after);
    assert_eq!(times, expected, "{:?}", times.iter().map(|at| minutes(*at)).collect::<Vec<_>>());
    // Each occurrence fails once, and its retry has the same tick.
    let failing = runs.times("failing");
    assert!(failing.len() >= 236, "{}", failing.len());
    assert!(failing.chunks(2).all(|pair| pair[0] == *pair.last().unwrap()), "{failing:?}");
    assert!(failing.windows(3).all(|three| three[2] == three[0] + 60_000), "{failing:?}");
    assert_all_done(&client, "offices").await;
    assert_all_done(&client, "reports").await;
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_runs_as_each_handler_says() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let client = streamjobs::__store::client(&store);
    let start = async || {
        let builder = Runtime::builder(&client).handlers(handlers![latest, newest, recent]);
        builder.state(runs.clone()).start().await.unwrap()
    };
    let runtime = start().await;
    pass(2 * MINUTE).await;
    let _ = runtime.shutdown().await;
    let before = runs.take();
    let last = |name: &str| {
        let own = before.iter().filter(|(schedule, ..)| schedule == name);
        own.map(|(_, at, _)| *at).max().unwrap()
    };
    let down = last("latest");
    assert_eq!((last("newest"), last("recent")), (down, down));
    pass(10 * MINUTE).await;
    let runtime = start().await;
    // Before the next minute.
    pass(Duration::from_secs(5)).await;
    let made_up = runs.take();
    let of = |name: &str| {
        let own = made_up.iter().filter(|(schedule, ..)| schedule == name);
        own.map(|(_, at, missed)| ((at - down) / 60_000, *missed)).collect::<Vec<_>>()
    };
    assert_eq!(of("latest"), [(10, 9)]);
    assert_eq!(of("newest").iter().map(|(minute, _)| *minute).collect::<Vec<_>>(), [8, 9, 10]);
    let recent = of("recent").iter().map(|(minute, _)| *minute).collect::<Vec<_>>();
    assert_eq!(recent, [6, 7, 8, 9, 10]);
    let _ = runtime.shutdown().await;
    assert_all_done(&client, "latest").await;
}

/// A run of 90 seconds fails, its retry begins 150 seconds later at most and ends after 90 more.
#[tokio::test(start_paused = true)]
async fn a_handler_skips_occurrences_while_its_last_job_runs_and_waits_for_its_retry() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let client = streamjobs::__store::client(&store);
    let start = async || {
        let builder = Runtime::builder(&client).handlers(handlers![import]);
        builder.state(runs.clone()).start().await.unwrap()
    };
    let both = [start().await, start().await];
    pass(60 * MINUTE).await;
    let info = client.schedules("ticks:imports").unwrap();
    let info = info.list(None, 1).await.unwrap().schedules.remove(0);
    let skipped = both.iter().map(|runtime| runtime.counters().schedules_skipped).sum::<u64>();
    for runtime in both {
        let _ = runtime.shutdown().await;
    }
    let times = runs.times("import");
    // Each ran twice, and the next one is the first minute after its end.
    assert!(times.len() >= 20, "{times:?}");
    for pair in times.chunks_exact(2) {
        assert_eq!(pair[0], pair[1], "its retry, before any other one: {times:?}");
    }
    let begun = times.iter().step_by(2).copied().collect::<Vec<_>>();
    let apart = begun.windows(2).map(|pair| (pair[1] - pair[0]) / 60_000).collect::<Vec<_>>();
    assert!(apart.iter().all(|minutes| (3..=6).contains(minutes)), "{apart:?}");
    // Each minute was published or skipped.
    let minutes = (begun.last().unwrap() - begun[0]) / 60_000 + 1;
    let after = (info.next.unwrap() - begun.last().unwrap()) / 60_000 - 1;
    assert_eq!((info.fired, info.skipped), (begun.len() as u64, minutes + after - info.fired));
    assert_eq!((info.missed, skipped), (0, info.skipped));
    let overlap = info.schedule.unwrap().overlap_policy().clone();
    assert_eq!(overlap.group().map(ToString::to_string).as_deref(), Some("imports"));
}
