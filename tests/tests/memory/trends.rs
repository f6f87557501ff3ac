//! What a group did over hours and days, on streams in memory under a paused clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::{Fault, MemoryStore, Passage, View, Watch};
use streamjobs::__store::trends::TrendNote;
use streamjobs::__store::{Queue, Trends};
use streamjobs::stream::{DurationCounts, Trend, TrendRange};
use streamjobs::{Client, Event, GroupName, Job, JobError, Runtime, StreamName, handler, handlers};
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Placed {
    runs: u64,
}

/// Runs so many milliseconds; an odd number fails the first time.
#[handler(group = "work", concurrency = 50, backoff = "10s")]
async fn work(order: Placed, job: Job) -> Result<(), JobError> {
    sleep_until(Instant::now() + Duration::from_millis(order.runs)).await;
    match order.runs % 2 == 1 && job.attempt() == 1 {
        true => Err("not yet".into()),
        false => Ok(()),
    }
}

/// Counts the steps that note what a group did.
#[derive(Debug, Default)]
struct Notes(Mutex<u32>);

impl Watch for Notes {
    fn passage(&self, _caller: u64, _operation: &'static str) -> Passage {
        Passage::default()
    }

    fn carried_out(&self, _caller: u64, operation: &'static str, _view: View<'_>) {
        if operation == "note_trend" {
            *self.0.lock().unwrap() += 1;
        }
    }
}

struct Stage {
    store: MemoryStore,
    client: Client,
    notes: Arc<Notes>,
}

impl Stage {
    fn new() -> Self {
        let (store, notes) = (MemoryStore::new(), Arc::new(Notes::default()));
        let client = streamjobs::__store::client(&store.watched(1, notes.clone()));
        Self { store, client, notes }
    }

    async fn runtime(&self, trends: bool) -> Runtime {
        let builder = Runtime::builder(&self.client).handlers(handlers![self::work]);
        builder.trends(trends).start().await.unwrap()
    }

    async fn publish(&self, runs: impl IntoIterator<Item = u64>) {
        for runs in runs {
            self.client.publish(&Placed { runs }).await.unwrap();
        }
    }

    async fn trend(&self, range: TrendRange) -> Trend {
        self.client.stream("orders").unwrap().group("work").unwrap().trend(range).await.unwrap()
    }

    fn noted(&self) -> u32 {
        *self.notes.0.lock().unwrap()
    }
}

async fn pass(seconds: u64) {
    sleep_until(Instant::now() + Duration::from_secs(seconds)).await;
}

fn sum(trend: &Trend) -> (u64, u64) {
    trend.points.iter().fold((0, 0), |sum, point| (sum.0 + point.done, sum.1 + point.failed))
}

fn durations(
    trend: &Trend,
    of: fn(&streamjobs::stream::TrendPoint) -> &DurationCounts,
) -> DurationCounts {
    let mut counts = DurationCounts::default();
    for point in &trend.points {
        counts.add(of(point));
    }
    counts
}

#[tokio::test(start_paused = true)]
async fn a_group_has_its_jobs_failures_and_percentiles_by_minute_and_by_quarter() {
    let stage = Stage::new();
    let runtime = stage.runtime(true).await;
    stage.publish((0..94).map(|_| 200).chain([20_000; 6])).await;
    pass(100).await;
    stage.publish([3, 3, 3]).await;
    pass(60).await;
    let _ = runtime.shutdown().await;
    let trend = stage.trend(TrendRange::SixHours).await;
    assert_eq!(sum(&trend), (103, 3));
    assert!(trend.points.len() >= 2, "two minutes had jobs: {trend:?}");
    assert!(trend.points.is_sorted_by_key(|point| point.began));
    let run = durations(&trend, |point| &point.run_time);
    assert_eq!(run.count(), 106, "each attempt");
    let between = |part, from, to| {
        let found = run.percentile(part).unwrap();
        assert!(
            found >= Duration::from_millis(from) && found <= Duration::from_millis(to),
            "{found:?}"
        );
    };
    between(0.5, 140, 290);
    between(0.99, 14_000, 29_000);
    let queue = durations(&trend, |point| &point.queue_time);
    assert_eq!(queue.count(), 103, "the first attempts");
    assert!(
        queue.percentile(0.4).unwrap() < Duration::from_millis(50),
        "there was a slot for them"
    );
    assert!(
        queue.percentile(1.0).unwrap() > Duration::from_millis(140),
        "the others waited for one"
    );
    let days = stage.trend(TrendRange::SevenDays).await;
    assert_eq!(sum(&days), (103, 3));
    assert!(days.points.len() <= 2, "{days:?}");
}

#[tokio::test(start_paused = true)]
async fn a_group_that_has_nothing_to_do_notes_nothing_and_neither_does_one_that_is_told_not_to() {
    for trends in [true, false] {
        let stage = Stage::new();
        let runtime = stage.runtime(trends).await;
        pass(600).await;
        assert_eq!(stage.noted(), 0, "nothing was done");
        stage.publish([200]).await;
        pass(600).await;
        let notes = stage.noted();
        assert_eq!(notes > 0, trends, "{notes}");
        assert!(notes <= 3, "the job, and the backlog until it is gone: {notes}");
        let _ = runtime.shutdown().await;
        assert_eq!(stage.noted(), notes, "there was nothing left");
        assert_eq!(sum(&stage.trend(TrendRange::SixHours).await).0, u64::from(trends));
    }
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_noted_while_it_stands_and_so_is_its_end() {
    let stage = Stage::new();
    let runtime = stage.runtime(true).await;
    let group = stage.client.stream("orders").unwrap().group("work").unwrap();
    pass(1).await;
    group.pause().await.unwrap();
    pass(20).await;
    stage.publish([2, 2, 2]).await;
    pass(300).await;
    let trend = stage.trend(TrendRange::SixHours).await;
    let last = trend.points.last().unwrap();
    assert_eq!((last.waiting, last.done), (3, 0), "{trend:?}");
    assert!(last.oldest > Duration::from_secs(200) && last.oldest < Duration::from_secs(320));
    group.resume().await.unwrap();
    pass(300).await;
    let trend = stage.trend(TrendRange::SixHours).await;
    assert_eq!(sum(&trend).0, 3);
    let notes = stage.noted();
    pass(300).await;
    assert_eq!(stage.noted(), notes, "it is idle again");
    stage.publish([2]).await;
    pass(60).await;
    let trend = stage.trend(TrendRange::SixHours).await;
    let last = trend.points.last().unwrap();
    assert_eq!((last.waiting, last.done), (0, 1));
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_is_noted_later_and_a_lost_answer_not_again() {
    for (fault, at_once) in [(Fault::Unreachable, 0), (Fault::Refused, 0), (Fault::AnswerLost, 1)] {
        let stage = Stage::new();
        let runtime = stage.runtime(true).await;
        stage.store.fail_next("note_trend", fault);
        stage.publish([2]).await;
        pass(20).await;
        assert_eq!(sum(&stage.trend(TrendRange::SixHours).await).0, at_once, "{fault:?}");
        pass(60).await;
        let counters = runtime.counters();
        let _ = runtime.shutdown().await;
        assert_eq!(sum(&stage.trend(TrendRange::SixHours).await), (1, 0), "{fault:?}");
        assert_eq!((counters.succeeded, counters.failed, counters.leases_lost), (1, 0, 0));
    }
}

fn queue() -> Queue {
    let stream = StreamName::new("orders").unwrap();
    Queue { stream, group: GroupName::new("work").unwrap() }
}

async fn note(stage: &Stage, done: u64) {
    stage.store.note_trend(&queue(), &TrendNote { done, ..TrendNote::default() }).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn eight_days_leave_six_hours_of_minutes_and_seven_days_of_quarters() {
    let stage = Stage::new();
    for _ in 0..8 * 24 * 60 {
        note(&stage, 1).await;
        stage.store.step_clock(60_000);
    }
    let (minutes, quarters) =
        (stage.trend(TrendRange::SixHours).await, stage.trend(TrendRange::SevenDays).await);
    assert_eq!((minutes.points.len(), sum(&minutes).0), (359, 359), "the last minute has begun");
    assert!((671..=672).contains(&quarters.points.len()), "{}", quarters.points.len());
    assert!(quarters.points[1..670].iter().all(|point| point.done == 15));
    let step = |trend: &Trend| {
        let began = |place: usize| trend.points[place].began;
        began(11).duration_since(began(10)).unwrap()
    };
    assert_eq!(
        (step(&minutes), step(&quarters)),
        (TrendRange::SixHours.step(), TrendRange::SevenDays.step())
    );
    // Nothing for as long as the rings go back: they are gone.
    stage.store.step_clock(8 * 24 * 60 * 60_000);
    for range in [TrendRange::SixHours, TrendRange::SevenDays] {
        assert!(stage.trend(range).await.points.is_empty());
    }
    note(&stage, 7).await;
    assert_eq!(sum(&stage.trend(TrendRange::SevenDays).await).0, 7);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_adds_to_the_steps_it_comes_to_again() {
    let stage = Stage::new();
    for _ in 0..10 {
        note(&stage, 1).await;
        stage.store.step_clock(60_000);
    }
    stage.store.step_clock(-5 * 60_000);
    note(&stage, 100).await;
    let trend = stage.trend(TrendRange::SixHours).await;
    assert_eq!((trend.points.len(), sum(&trend).0), (6, 106), "what is in the future is not shown");
    assert_eq!(trend.points.last().unwrap().done, 101);
    stage.store.step_clock(5 * 60_000);
    assert_eq!(sum(&stage.trend(TrendRange::SixHours).await).0, 110, "until it is there");
    // By more than a ring, and by years: the places are used anew, in both directions.
    for back in [-7, -3_000] {
        stage.store.step_clock(back * 60 * 60_000);
        note(&stage, 3).await;
        let trend = stage.trend(TrendRange::SixHours).await;
        assert_eq!((trend.points.len(), sum(&trend).0), (1, 3), "{back} hours");
    }
    assert_eq!(sum(&stage.trend(TrendRange::SevenDays).await).0, 3);
}
