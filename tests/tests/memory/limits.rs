//! Limits over all processes on streams in memory under a paused clock: order per key, and how many run at
//! once, through failures, lost answers and the death of processes.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::{Fault, MemoryStore};
use streamjobs::__store::raw_access::RawAccess;
use streamjobs::__store::{Consume, HoldSweep, Holds, Inlet, Queue, SweepCursors};
use streamjobs::config::{GroupOptions, KeyOrder};
use streamjobs::{
    Backoff, Client, Event, GroupName, Job, JobError, Runtime, State, StreamName, handler, handlers,
};
use streamjobs_tests::eventually::eventually_async;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order", key = "customer")]
struct Order {
    customer: String,
    number: usize,
    /// How often it fails before it succeeds.
    failures: u32,
}

/// What ran: the jobs in the order of their ends, and how many ran at once.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<Ran>>);

#[derive(Default)]
struct Ran {
    done: BTreeMap<String, Vec<usize>>,
    ids: Vec<String>,
    at_once: BTreeMap<String, usize>,
    most_of_key: usize,
    most: usize,
}

impl Runs {
    fn begin(&self, key: &str) {
        let mut ran = self.0.lock().unwrap();
        let of_key = ran.at_once.entry(key.to_owned()).or_default();
        *of_key += 1;
        ran.most_of_key = ran.most_of_key.max(ran.at_once[key]);
        ran.most = ran.most.max(ran.at_once.values().sum());
    }

    fn end(&self, key: &str, done: Option<usize>) {
        let mut ran = self.0.lock().unwrap();
        *ran.at_once.get_mut(key).unwrap() -= 1;
        ran.done.entry(key.to_owned()).or_default().extend(done);
    }

    fn done(&self, key: &str) -> Vec<usize> {
        self.0.lock().unwrap().done.get(key).cloned().unwrap_or_default()
    }

    fn most(&self) -> (usize, usize) {
        let ran = self.0.lock().unwrap();
        (ran.most_of_key, ran.most)
    }

    async fn until(&self, count: usize) {
        let done = || self.0.lock().unwrap().done.values().map(Vec::len).sum::<usize>();
        eventually_async(Duration::from_secs(20_000), "all are done", async || done() >= count)
            .await;
    }
}

/// Counts as running until it is dropped, whichever way the attempt ends.
struct Running(Runs, String, Option<usize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.end(&self.1, self.2);
    }
}

/// In place of a number of failures: the first process to run it never ends.
const HANGS: u32 = 99;
/// In place of a number of failures: it runs for several leases.
const LASTS: u32 = 98;

async fn run(order: Order, job: Job, runs: Runs) -> Result<(), JobError> {
    if order.failures == HANGS && job.delivery_count() == 1 {
        std::future::pending::<()>().await;
    }
    runs.begin(&order.customer);
    let mut running = Running(runs.clone(), order.customer, None);
    let time = if order.failures == LASTS { 60_000 } else { 200 };
    sleep_until(Instant::now() + Duration::from_millis(time)).await;
    if order.failures < LASTS && job.attempt() <= order.failures {
        return Err("not yet".into());
    }
    running.2 = Some(order.number);
    runs.0.lock().unwrap().ids.push(job.event_id().to_string());
    Ok(())
}

#[handler(group = "ordered", order = "key", backoff = "3s", max_attempts = 4)]
async fn ordered(order: Order, job: Job, State(runs): State<Runs>) -> Result<(), JobError> {
    run(order, job, runs).await
}

#[handler(group = "plain", backoff = "3s", max_attempts = 4)]
async fn plain(order: Order, job: Job, State(runs): State<Runs>) -> Result<(), JobError> {
    run(order, job, runs).await
}

struct Stage {
    store: MemoryStore,
    client: Client,
    runs: Runs,
}

impl Stage {
    fn new() -> Self {
        let store = MemoryStore::new();
        let client = streamjobs::__store::client(&store);
        Self { store, client, runs: Runs::default() }
    }

    async fn ordered(&self) -> Runtime {
        let builder = Runtime::builder(&self.client).handlers(handlers![ordered]);
        builder.state(self.runs.clone()).start().await.unwrap()
    }

    /// A process that follows one which has died with the first of three jobs of a key.
    async fn after_a_death(&self) -> Runtime {
        let dead = self.ordered().await;
        self.publish("a", 0..1, HANGS).await;
        self.publish("a", 1..3, 0).await;
        let read = async || dead.counters().parked == 2;
        eventually_async(Duration::from_secs(60), "the first runs and two wait", read).await;
        drop(dead);
        self.ordered().await
    }

    async fn with(&self, options: GroupOptions) -> Runtime {
        let builder = Runtime::builder(&self.client).handlers(handlers![plain]);
        builder.state(self.runs.clone()).group("plain", options).start().await.unwrap()
    }

    async fn publish(&self, customer: &str, numbers: std::ops::Range<usize>, failures: u32) {
        for number in numbers {
            let customer = customer.to_owned();
            self.client.publish(&Order { customer, number, failures }).await.unwrap();
        }
    }

    /// Nothing is left in the group's limit, nor anywhere else.
    async fn is_empty(&self, group: &str) {
        let group = GroupName::new(group).unwrap();
        let queue = Queue { stream: StreamName::new("orders").unwrap(), group };
        let empty = async || {
            let sweep = HoldSweep { rule: None, cursors: SweepCursors::default() };
            let parked = self.store.sweep_holds(&queue, sweep).await.unwrap().parked;
            let keys = [queue.key(Inlet::STREAM), queue.key(Inlet::LANE)];
            let pending = keys.map(|key| self.store.pending(&key, queue.group.as_str()).len());
            (parked, pending) == (0, [0, 0])
        };
        eventually_async(Duration::from_secs(600), "nothing is left", empty).await;
    }
}

fn at_most(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

#[tokio::test(start_paused = true)]
async fn jobs_of_a_key_are_done_in_order_through_failures_and_other_keys_beside_them() {
    let stage = Stage::new();
    let processes = [stage.ordered().await, stage.ordered().await, stage.ordered().await];
    let keys = ["a", "b", "c", "d", "e"];
    for round in 0..6 {
        for (place, key) in keys.into_iter().enumerate() {
            let failures = u32::try_from((round + place) % 3).unwrap();
            stage.publish(key, round * 4..round * 4 + 4, failures).await;
        }
    }
    stage.runs.until(keys.len() * 24).await;
    for key in keys {
        assert_eq!(stage.runs.done(key), (0..24).collect::<Vec<_>>(), "{key}");
    }
    let (most_of_key, most) = stage.runs.most();
    assert_eq!((most_of_key, most), (1, keys.len()));
    for process in processes {
        let _ = process.shutdown().await;
    }
    stage.is_empty("ordered").await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_lets_those_behind_it_pass_where_that_is_asked_for() {
    let stage = Stage::new();
    let process = stage.with(GroupOptions::new().order(KeyOrder::Skip)).await;
    stage.publish("a", 0..1, 1).await;
    stage.publish("a", 1..4, 0).await;
    stage.runs.until(4).await;
    assert_eq!((stage.runs.done("a"), stage.runs.most().0), (vec![1, 2, 3, 0], 1));
    let _ = process.shutdown().await;
    stage.is_empty("plain").await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_lets_those_behind_it_go_on() {
    let stage = Stage::new();
    let process = stage.ordered().await;
    stage.publish("a", 0..1, 9).await;
    stage.publish("a", 1..3, 0).await;
    stage.runs.until(2).await;
    assert_eq!(stage.runs.done("a"), [1, 2]);
    assert_eq!(process.counters().dead_lettered, 1);
    assert_eq!(process.counters().places_freed, 0, "no sweep had to");
    let _ = process.shutdown().await;
    stage.is_empty("ordered").await;
}

#[tokio::test(start_paused = true)]
async fn limits_hold_over_all_processes_and_are_used_to_the_full() {
    for (options, expected) in [
        (GroupOptions::new().concurrency_per_key(at_most(2)), (2, 6)),
        (GroupOptions::new().concurrency_total(at_most(4)), (4, 4)),
    ] {
        let stage = Stage::new();
        let processes = [stage.with(options).await, stage.with(options).await];
        for key in ["a", "b", "c"] {
            stage.publish(key, 0..30, 1).await;
        }
        stage.runs.until(90).await;
        let (most_of_key, most) = stage.runs.most();
        assert!(most_of_key <= expected.0 && most == expected.1, "{most_of_key} {most}");
        for process in processes {
            let _ = process.shutdown().await;
        }
        stage.is_empty("plain").await;
    }
}

/// The jobs last for a minute, so that none goes on because another one ends.
#[tokio::test(start_paused = true)]
async fn a_raised_limit_starts_waiting_jobs_at_once_and_a_lower_one_stops_none() {
    let seconds = Duration::from_secs;
    for options in [
        GroupOptions::new().concurrency_per_key(at_most(1)),
        GroupOptions::new().concurrency_total(at_most(1)),
    ] {
        let stage = Stage::new();
        let processes = [stage.with(options).await, stage.with(options).await];
        stage.publish("a", 0..10, LASTS).await;
        let at_once = |stage: &Stage| stage.runs.0.lock().unwrap().at_once.values().sum::<usize>();
        eventually_async(seconds(5), "one runs", async || at_once(&stage) == 1).await;
        let group = stage.client.stream("orders").unwrap().group("plain").unwrap();
        assert!(group.set_limit(at_most(5), "alice", "faster").await.unwrap());
        let raised = Instant::now();
        eventually_async(seconds(5), "five run", async || at_once(&stage) == 5).await;
        assert!(raised.elapsed() < seconds(5), "{:?}", raised.elapsed());
        let late = stage.with(options).await;
        assert!(group.set_limit(at_most(2), "bob", "slower").await.unwrap());
        stage.runs.until(5).await;
        let before = std::mem::take(&mut stage.runs.0.lock().unwrap().most);
        assert_eq!(before, 5);
        stage.runs.until(10).await;
        assert_eq!(stage.runs.most().1, 2, "the other jobs run two at a time");
        for process in processes.into_iter().chain([late]) {
            let _ = process.shutdown().await;
        }
        stage.is_empty("plain").await;
    }
}

#[tokio::test(start_paused = true)]
async fn errors_between_any_two_requests_break_no_order_and_leave_nothing_behind() {
    let stage = Stage::new();
    let processes = [stage.ordered().await, stage.ordered().await];
    let faults = [Fault::AnswerLost, Fault::RequestLost, Fault::Unreachable, Fault::Refused];
    let (mut number, keys) = (0, ["a", "b"]);
    for fault in faults {
        for step in ["take", "finish", "schedule_retries", "promote", "sweep_holds", "recover"] {
            for failures in [0, 1] {
                stage.store.fail_next(step, fault);
                for key in keys {
                    stage.publish(key, number..number + 3, failures).await;
                }
                number += 3;
                stage.runs.until(number * keys.len()).await;
            }
        }
    }
    for key in keys {
        assert_eq!(stage.runs.done(key), (0..number).collect::<Vec<_>>(), "{key}");
    }
    assert_eq!(stage.runs.most().0, 1);
    for process in processes {
        let _ = process.shutdown().await;
    }
    stage.is_empty("ordered").await;
}

#[tokio::test(start_paused = true)]
async fn the_key_of_a_dead_process_goes_on_when_its_job_is_claimed() {
    let stage = Stage::new();
    let process = stage.after_a_death().await;
    stage.runs.until(3).await;
    assert_eq!((stage.runs.done("a"), stage.runs.most().0), (vec![0, 1, 2], 1));
    assert_eq!(process.counters().places_freed, 0, "the place went on with the job");
    let _ = process.shutdown().await;
    stage.is_empty("ordered").await;
}

#[tokio::test(start_paused = true)]
async fn a_key_goes_on_within_two_leases_after_its_job_was_acknowledged_by_hand() {
    let stage = Stage::new();
    let process = stage.after_a_death().await;
    let queue = Queue {
        stream: StreamName::new("orders").unwrap(),
        group: GroupName::new("ordered").unwrap(),
    };
    let pending = stage.store.pending("orders", "ordered");
    let ids = pending.iter().map(|row| (Inlet::STREAM, row.id)).collect::<Vec<_>>();
    assert_eq!(stage.store.acknowledge(&queue, &ids).await.unwrap(), 1);
    let before = Instant::now();
    stage.runs.until(2).await;
    assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
    assert_eq!((stage.runs.done("a"), process.counters().places_freed), (vec![1, 2], 1));
    let _ = process.shutdown().await;
    stage.is_empty("ordered").await;
}

#[tokio::test(start_paused = true)]
async fn an_event_of_another_client_keeps_its_id_while_it_waits_in_a_line() {
    let stage = Stage::new();
    let pair = |name: &'static str, value: &'static str| {
        (Bytes::from_static(name.as_bytes()), Bytes::from_static(value.as_bytes()))
    };
    for number in ["0", "1", "2"] {
        let (kind, key) = (pair("type", "order"), pair("sj-key", "a"));
        let payload = [pair("customer", "a"), pair("number", number), pair("failures", "0")];
        stage.store.append("orders", [&[kind][..], &payload, &[key]].concat());
    }
    let processes = [stage.ordered().await, stage.with(GroupOptions::new()).await];
    stage.runs.until(6).await;
    let mut ids = stage.runs.0.lock().unwrap().ids.clone();
    ids.sort();
    let of_both = ids.chunks(2).all(|pair| pair[0] == pair[1]);
    assert!(of_both, "each group has the same ids: {ids:?}");
    for process in processes {
        let _ = process.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn lines_of_a_group_that_lost_its_limit_go_on_when_the_last_process_with_one_is_gone() {
    let stage = Stage::new();
    let limited = stage.with(GroupOptions::new().order(KeyOrder::Block)).await;
    stage.publish("a", 0..5, 0).await;
    let parked = async || limited.counters().parked >= 4;
    eventually_async(Duration::from_secs(60), "four wait", parked).await;
    drop(limited);
    let process = stage.with(GroupOptions::new()).await;
    stage.runs.until(5).await;
    // The job of the process that is gone may have ended there, unacknowledged.
    stage.is_empty("plain").await;
    let _ = process.shutdown().await;
}

/// The renewal finds its payload gone: the entry is not pending any more, but the job runs on.
#[tokio::test(start_paused = true)]
async fn a_job_whose_entry_is_trimmed_while_it_runs_keeps_its_place() {
    let stage = Stage::new();
    let processes = [stage.ordered().await, stage.ordered().await];
    let first = Order { customer: "a".to_owned(), number: 0, failures: LASTS };
    let entry = stage.client.publish(&first).await.unwrap().entry_id;
    stage.publish("a", 1..3, 0).await;
    let lined = async || processes.iter().map(|one| one.counters().parked).sum::<u64>() == 2;
    eventually_async(Duration::from_secs(60), "the first runs and two wait", lined).await;
    stage.store.delete("orders", entry);
    stage.runs.until(3).await;
    assert_eq!((stage.runs.done("a"), stage.runs.most().0), (vec![0, 1, 2], 1));
    for process in processes {
        let _ = process.shutdown().await;
    }
    stage.is_empty("ordered").await;
}

#[tokio::test(start_paused = true)]
async fn the_place_of_a_trimmed_job_ends_with_its_process() {
    let stage = Stage::new();
    let dead = stage.ordered().await;
    let first = Order { customer: "a".to_owned(), number: 0, failures: HANGS };
    let entry = stage.client.publish(&first).await.unwrap().entry_id;
    stage.publish("a", 1..3, 0).await;
    let lined = async || dead.counters().parked == 2;
    eventually_async(Duration::from_secs(60), "the first runs and two wait", lined).await;
    stage.store.delete("orders", entry);
    let begun = Instant::now();
    sleep_until(begun + Duration::from_secs(60)).await;
    assert_eq!((dead.counters().trimmed, stage.runs.done("a").len()), (1, 0));
    drop(dead);
    let process = stage.ordered().await;
    stage.runs.until(2).await;
    assert_eq!(stage.runs.done("a"), [1, 2]);
    assert!(begun.elapsed() < Duration::from_secs(100), "{:?}", begun.elapsed());
    let _ = process.shutdown().await;
    stage.is_empty("ordered").await;
}

#[tokio::test(start_paused = true)]
async fn limits_that_exclude_each_other_are_refused_by_name() {
    let stage = Stage::new();
    let options = GroupOptions::new().order(KeyOrder::Block).concurrency_total(at_most(2));
    let builder = Runtime::builder(&stage.client).handlers(handlers![plain]);
    let builder = builder.state(stage.runs.clone()).group("plain", options);
    let error = builder.start().await.unwrap_err().to_string();
    let expected = "group plain on stream orders: order and concurrency_total exclude each other";
    assert!(error.contains(expected), "{error}");
    let options = GroupOptions::new().backoff(Backoff::fixed(Duration::from_secs(1)));
    let process = stage.with(options.order(KeyOrder::Skip)).await;
    let _ = process.shutdown().await;
}
