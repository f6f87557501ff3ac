//! Rates of groups, on streams in memory under a paused clock: when each job starts, and what waits.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::{Fault, MemoryStore};
use streamjobs::__store::{Consume, Inlet, Queue, Rates, ReadRequest, ReaderSetup, StartsAsked};
use streamjobs::config::GroupOptions;
use streamjobs::stream::{Group, SetRate};
use streamjobs::{
    ConsumerName, Event, GroupName, Job, JobError, Rate, Runtime, State, StreamName, handler,
    handlers,
};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::starts::assert_rate;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "calls", type = "call.due")]
struct Due {
    id: usize,
}

/// One start of a job.
#[derive(Clone, Debug)]
struct Start {
    at: Instant,
    id: usize,
    attempt: u32,
    deliveries: u64,
    consumer: String,
}

type Answer = dyn Fn(&Start) -> Result<(), JobError> + Send + Sync;

/// The starts of all jobs, and how each ends.
#[derive(Clone)]
struct Starts {
    all: Arc<Mutex<Vec<Start>>>,
    answer: Arc<Answer>,
}

impl Starts {
    fn fine() -> Self {
        Self::new(|_| Ok(()))
    }

    fn new(answer: impl Fn(&Start) -> Result<(), JobError> + Send + Sync + 'static) -> Self {
        Self { all: Arc::default(), answer: Arc::new(answer) }
    }

    fn all(&self) -> Vec<Start> {
        self.all.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.all.lock().unwrap().len()
    }

    async fn until(&self, count: usize) {
        let started = async || self.count() >= count;
        eventually_async(hours(100), &format!("{count} have started"), started).await;
    }

    fn assert_rate(&self, rate: Rate) {
        let all = self.all();
        let Some(first) = all.iter().map(|start| start.at).min() else { panic!("no start") };
        let times = all.iter().map(|start| (start.at - first).as_micros());
        assert_rate(times.collect(), rate);
    }
}

#[handler(group = "outside")]
async fn call(due: Due, State(starts): State<Starts>, job: Job) -> Result<(), JobError> {
    let start = Start {
        at: Instant::now(),
        id: due.id,
        attempt: job.attempt(),
        deliveries: job.delivery_count(),
        consumer: job.consumer().to_string(),
    };
    starts.all.lock().unwrap().push(start.clone());
    (starts.answer)(&start)
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

fn rate(text: &str, burst: u32) -> Rate {
    text.parse::<Rate>().unwrap().burst(NonZeroU32::new(burst).unwrap())
}

fn queue() -> Queue {
    let (stream, group) = (StreamName::new("calls"), GroupName::new("outside"));
    Queue { stream: stream.unwrap(), group: group.unwrap() }
}

fn group(store: &MemoryStore) -> Group {
    let client = streamjobs::__store::client(store);
    client.stream("calls").unwrap().group("outside").unwrap()
}

async fn publish(store: &MemoryStore, count: usize) {
    let client = streamjobs::__store::client(store);
    for id in 0..count {
        client.publish(&Due { id }).await.unwrap();
    }
}

async fn process(store: &MemoryStore, starts: &Starts, rate: impl Into<Option<Rate>>) -> Runtime {
    let client = streamjobs::__store::client(store);
    let builder = Runtime::builder(&client).handlers(handlers![call]).state(starts.clone());
    let options = rate.into().map_or(GroupOptions::new(), |rate| GroupOptions::new().rate(rate));
    builder.group("outside", options).start().await.unwrap()
}

async fn wait(time: Duration) {
    sleep_until(Instant::now() + time).await;
}

async fn stop(processes: impl IntoIterator<Item = Runtime>) {
    for process in processes {
        let _ = process.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn six_processes_together_start_what_the_rate_allows_and_one_burst() {
    // Each fifth fails once: its retry is a start as well.
    let starts = Starts::new(|start| match (start.id % 5, start.attempt) {
        (0, 1) => Err(JobError::retry_after(Duration::from_millis(700), "once")),
        _ => Ok(()),
    });
    let (store, rate) = (MemoryStore::new(), rate("20/1s", 6));
    let mut processes = Vec::new();
    for _ in 0..6 {
        processes.push(process(&store, &starts, rate).await);
    }
    publish(&store, 500).await;
    let begun = Instant::now();
    starts.until(600).await;
    let took = begun.elapsed();
    starts.assert_rate(rate);
    assert!((28..34).contains(&took.as_secs()), "600 starts at 20 in a second took {took:?}");
    let mut consumers = starts.all().into_iter().map(|start| start.consumer).collect::<Vec<_>>();
    consumers.sort_unstable();
    consumers.dedup();
    assert_eq!(consumers.len(), 6, "each has started some");
    // After a quiet time, a burst and no more.
    wait(Duration::from_secs(60)).await;
    publish(&store, 30).await;
    starts.until(630).await;
    starts.assert_rate(rate);
    stop(processes).await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_stays_in_the_stream_and_nothing_is_counted_for_it() {
    let (store, starts, rate) = (MemoryStore::new(), Starts::fine(), rate("1/2m", 2));
    let runtimes = [process(&store, &starts, rate).await, process(&store, &starts, rate).await];
    publish(&store, 5).await;
    starts.until(2).await;
    wait(Duration::from_secs(60)).await;
    let info = group(&store).info().await.unwrap();
    assert_eq!((info.pending, info.backlog.entries, starts.count()), (0, 3, 2));
    for health in runtimes.iter().map(Runtime::health) {
        assert!(health.is_healthy() && health.queues[0].saturated, "{health:?}");
    }
    let diagnosis = group(&store).diagnose().await.unwrap();
    let text = diagnosis.to_string();
    assert!(
        diagnosis.problems.len() == 1 && text.contains("because of the rate of 1/2m, burst 2; "),
        "{text}"
    );
    starts.until(5).await;
    starts.assert_rate(rate);
    for start in starts.all() {
        assert_eq!((start.attempt, start.deliveries), (1, 1), "{start:?}");
    }
    stop(runtimes).await;
}

#[tokio::test(start_paused = true)]
async fn jobs_after_a_crash_count_as_starts_and_lost_starts_are_made_up_for_by_none() {
    let (store, starts, rate) = (MemoryStore::new(), Starts::fine(), rate("10/1s", 3));
    let dead = ConsumerName::new("dead").unwrap();
    let stopped = process(&store, &starts, rate).await;
    let _ = stopped.shutdown().await;
    publish(&store, 120).await;
    // A process that died with 40 jobs, and with starts that it has not used.
    let asked = StartsAsked { rate: Some(rate), wanted: 40, joined: 0 };
    assert!(store.reserve_starts(&queue(), asked).await.unwrap().starts.count > 5);
    let setup = ReaderSetup::waiting(Duration::from_secs(2));
    let mut reader = store.reader(&queue(), &dead, setup).await.unwrap();
    let request = ReadRequest { acks: &[], inlet: Inlet::STREAM, count: 40, block: None };
    assert_eq!(reader.read(request).await.unwrap().deliveries.unwrap().len(), 40);
    let runtimes = [process(&store, &starts, rate).await, process(&store, &starts, rate).await];
    let begun = Instant::now();
    starts.until(120).await;
    starts.assert_rate(rate);
    assert!((11..26).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let claimed = starts.all().iter().filter(|start| start.deliveries == 2).count();
    assert_eq!(claimed, 40);
    stop(runtimes).await;
}

#[tokio::test(start_paused = true)]
async fn lost_answers_and_clocks_that_are_set_back_cost_starts_and_grant_none() {
    let (store, starts, rate) = (MemoryStore::new(), Starts::fine(), rate("10/1s", 4));
    let runtimes = [process(&store, &starts, rate).await, process(&store, &starts, rate).await];
    publish(&store, 200).await;
    for count in [20, 60, 100] {
        starts.until(count).await;
        store.fail_next("reserve_starts", Fault::AnswerLost);
        store.fail_next("return_starts", Fault::AnswerLost);
    }
    starts.until(120).await;
    store.step_clock(-3_600_000);
    let begun = Instant::now();
    starts.until(200).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    starts.assert_rate(rate);
    stop(runtimes).await;
}

#[tokio::test(start_paused = true)]
async fn while_the_server_refuses_starts_the_jobs_wait() {
    let (store, starts) = (MemoryStore::new(), Starts::fine());
    let runtime = process(&store, &starts, rate("10/1s", 4)).await;
    for _ in 0..60 {
        store.fail_next("reserve_starts", Fault::Refused);
    }
    publish(&store, 5).await;
    wait(Duration::from_secs(60)).await;
    assert_eq!((starts.count(), runtime.counters().failed), (0, 0));
    assert_eq!(group(&store).info().await.unwrap().pending, 0);
    starts.until(5).await;
    stop([runtime]).await;
}

/// With a rate, and without one.
#[tokio::test(start_paused = true)]
async fn a_limit_of_the_other_side_lets_the_whole_group_wait_and_counts_nothing() {
    for rate in [None, Some(rate("100/1s", 20))] {
        let pause = Duration::from_secs(30);
        let (store, asked) = (MemoryStore::new(), Arc::new(Mutex::new(None::<Instant>)));
        let first = Arc::clone(&asked);
        let starts = Starts::new(move |start| {
            if start.id == 3 && start.attempt == 1 && first.lock().unwrap().is_none() {
                *first.lock().unwrap() = Some(start.at);
                return Err(JobError::limited(pause, "429"));
            }
            Ok(())
        });
        let runtimes = [process(&store, &starts, rate).await, process(&store, &starts, rate).await];
        publish(&store, 4).await;
        let heard = async || asked.lock().unwrap().is_some();
        eventually_async(hours(1), "the limit was met", heard).await;
        let met = asked.lock().unwrap().unwrap();
        // Until then the other process may know nothing.
        wait(Duration::from_millis(3_500)).await;
        let before = starts.count();
        publish(&store, 50).await;
        let info = group(&store).info().await.unwrap();
        let limited = info.rate.and_then(|rate| rate.limited);
        assert!(limited.is_some_and(|rest| rest <= pause), "{limited:?}");
        starts.until(before + 51).await;
        for start in starts.all().into_iter().skip(before) {
            let waited = start.at - met;
            assert!(waited >= pause, "{start:?} {waited:?}");
            assert!(waited < pause + Duration::from_secs(3), "{start:?} {waited:?}");
            assert_eq!(start.attempt, 1);
        }
        assert_eq!(runtimes.iter().map(|runtime| runtime.counters().failed).sum::<u64>(), 0);
        stop(runtimes).await;
    }
}

/// Its promoter has ended by then.
#[tokio::test(start_paused = true)]
async fn a_limit_that_a_job_meets_during_a_stop_reaches_the_group() {
    #[handler(group = "outside")]
    async fn slow(_due: Due) -> Result<(), JobError> {
        wait(Duration::from_secs(10)).await;
        Err(JobError::limited(hours(1), "429"))
    }

    let store = MemoryStore::new();
    let client = streamjobs::__store::client(&store);
    let runtime = Runtime::builder(&client).handlers(handlers![slow]).start().await.unwrap();
    publish(&store, 1).await;
    wait(Duration::from_secs(5)).await;
    stop([runtime]).await;
    let limited = group(&store).info().await.unwrap().rate.and_then(|rate| rate.limited);
    assert!(limited.is_some_and(|rest| rest > Duration::from_secs(3_000)), "{limited:?}");
}

/// Two processes learn of the wait from the answer to a request for a start, before a promotion reports it.
#[tokio::test(start_paused = true)]
async fn a_wait_that_was_learned_by_asking_for_a_start_ends_when_the_server_says_so() {
    let rate = rate("10/1s", 4);
    for end in ["reset", "set again", "clock set forward"] {
        let (store, starts) = (MemoryStore::new(), Starts::fine());
        let runtimes = [process(&store, &starts, rate).await, process(&store, &starts, rate).await];
        let group = group(&store);
        if end == "set again" {
            assert!(group.set_rate(Some(rate.into())).await.unwrap());
        }
        wait(Duration::from_secs(60)).await;
        store.limit_group(&queue(), hours(1)).await.unwrap();
        publish(&store, 2).await;
        wait(Duration::from_secs(30)).await;
        assert_eq!(starts.count(), 0, "{end}");
        let begun = Instant::now();
        match end {
            "reset" => assert!(group.set_rate(None).await.unwrap()),
            "set again" => assert!(group.set_rate(Some(rate.into())).await.unwrap()),
            _ => store.step_clock(7_200_000),
        }
        starts.until(2).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "{end}: {:?}", begun.elapsed());
        stop(runtimes).await;
    }
}

/// A read, a claim and a recovery that certainly took nothing, with a start for one job in an hour. The server
/// may refuse to take the start back as well.
#[tokio::test(start_paused = true)]
async fn starts_of_a_step_that_took_nothing_are_not_used_up() {
    for (step, fault) in [
        ("read", Fault::Unreachable),
        ("read", Fault::Refused),
        ("claim_idle", Fault::Unreachable),
        ("claim_idle", Fault::Refused),
        ("recover", Fault::Unreachable),
    ] {
        for takes_back in [true, false] {
            let (store, starts) = (MemoryStore::new(), Starts::fine());
            let (dead, begun) = (ConsumerName::new("dead").unwrap(), Instant::now());
            let setup = ReaderSetup::waiting(Duration::from_secs(2));
            if step == "claim_idle" {
                let stopped = process(&store, &starts, rate("1/1h", 1)).await;
                let _ = stopped.shutdown().await;
                publish(&store, 1).await;
                let mut reader = store.reader(&queue(), &dead, setup).await.unwrap();
                let request =
                    ReadRequest { acks: &[], inlet: Inlet::STREAM, count: 1, block: None };
                assert_eq!(reader.read(request).await.unwrap().deliveries.unwrap().len(), 1);
            }
            let burst = if step == "recover" { 2 } else { 1 };
            let runtime = process(&store, &starts, rate("1/1h", burst)).await;
            wait(Duration::from_secs(3)).await;
            if step == "recover" {
                // The answer of the read may have brought the entry, so its start is used.
                store.fail_next("read", Fault::AnswerLost);
            }
            store.fail_next(step, fault);
            if !takes_back {
                store.fail_next("return_starts", Fault::Unreachable);
            }
            if step != "claim_idle" {
                publish(&store, 1).await;
            }
            starts.until(1).await;
            let (what, took) = (format!("{step} {fault:?} {takes_back}"), begun.elapsed());
            assert!(took < Duration::from_secs(60), "{what}: {took:?}");
            stop([runtime]).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_operators_rate_holds_at_once_also_for_code_without_one() {
    let (store, starts) = (MemoryStore::new(), Starts::fine());
    let slow = process(&store, &starts, rate("1/1m", 2)).await;
    let free = process(&store, &starts, None).await;
    let group = group(&store);
    let slowly = rate("1/1m", 2);
    assert!(group.set_rate(Some(slowly.into())).await.unwrap());
    wait(Duration::from_secs(4)).await;
    publish(&store, 200).await;
    wait(Duration::from_secs(150)).await;
    assert!((2..=4).contains(&starts.count()), "{}", starts.count());
    starts.assert_rate(slowly);
    let (before, raised) = (starts.count(), rate("10/1s", 2));
    assert!(group.set_rate(Some(raised.into())).await.unwrap());
    let begun = Instant::now();
    starts.until(before + 40).await;
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    assert!(group.set_rate(Some(SetRate::Unlimited)).await.unwrap());
    let begun = Instant::now();
    starts.until(200).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(group.set_rate(None).await.unwrap());
    assert!(!group.set_rate(None).await.unwrap());
    let text = group.diagnose().await.unwrap().to_string();
    assert!(
        text.contains("processes have different rates: 1/1m, burst 2 in ")
            && text.contains("none in ")
    );
    stop([slow, free]).await;
}

#[tokio::test(start_paused = true)]
async fn a_rate_that_cannot_be_kept_is_refused_by_name() {
    let store = MemoryStore::new();
    let client = streamjobs::__store::client(&store);
    let absurd = Rate::new(NonZeroU32::MIN, Duration::from_secs(365 * 86_400));
    let builder = Runtime::builder(&client).handlers(handlers![call]).state(Starts::fine());
    let started = builder.group("outside", GroupOptions::new().rate(absurd)).start().await;
    let error = started.unwrap_err().to_string();
    let expected = "group outside on stream calls: the time of a rate is 1ms to 30d, and not";
    assert!(error.contains(expected), "{error}");
    let runtime = process(&store, &Starts::fine(), None).await;
    let error = group(&store).set_rate(Some(absurd.into())).await.unwrap_err().to_string();
    assert!(error.contains("cannot set the rate of a group of stream calls"), "{error}");
    stop([runtime]).await;
}
