//! Retries that one request schedules: what is refused, what is lost, and what they cost.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use streamjobs::__store::inspect::RetriesFrom;
use streamjobs::__store::{
    self, Delivery, FenceResult, Hold, Inlet, NewRetry, Queue, ReadRequest, ReaderSetup, StandIn,
    Store, StoreError,
};
use streamjobs::config::{Retention, Start};
use streamjobs::{Backoff, Client, ConsumerName, EntryId, Fields, GroupName, Runtime};
use streamjobs::{StreamName, handlers};
use streamjobs_tests::conformance::append;
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::proxy::{FaultProxy, Mode};
use streamjobs_tests::server::EntryRow;

use crate::app::{App, DEADLINE, Gate, Work, options, quick, settled, until, work};

/// Entries of one consumer, and the store beneath the runtime.
struct Pending {
    app: App,
    store: Arc<dyn Store>,
    queue: Queue,
    me: ConsumerName,
    holds: Vec<Hold>,
}

impl Pending {
    async fn start(count: usize) -> Self {
        let app = App::start().await;
        let store = __store::of(&app.client);
        let (stream, group) = (StreamName::new("orders").unwrap(), GroupName::new("work").unwrap());
        let (queue, me) = (Queue { stream, group }, ConsumerName::new("me").unwrap());
        store.prepare(&queue, Start::Beginning).await.unwrap();
        let entries = (0..count).map(|_| job()).collect();
        append(store.as_ref(), &queue.stream, Retention::Unlimited, entries).await;
        let setup = ReaderSetup::waiting(Duration::from_secs(1));
        let mut reader = store.reader(&queue, &me, setup).await.unwrap();
        let request = ReadRequest { acks: &[], inlet: Inlet::STREAM, count, block: None };
        let delivered = reader.read(request).await.unwrap().deliveries.unwrap();
        let holds = delivered.iter().map(Delivery::hold).collect();
        Self { app, store, queue, me, holds }
    }

    fn retries(&self) -> Vec<NewRetry> {
        let delay = Duration::from_secs(3_600);
        let retry = |hold: &Hold| NewRetry { hold: *hold, stand_in: None, delay, job: job() };
        self.holds.iter().map(retry).collect()
    }

    async fn schedule(&self, retries: &[NewRetry]) -> Vec<Result<FenceResult, StoreError>> {
        self.store.schedule_retries(&self.queue, &self.me, retries).await
    }

    /// How many jobs wait for retry, records of theirs, and entries that are pending.
    fn counts(&self) -> [usize; 3] {
        let number = |command: &str, key: &str| self.app.number(&[command, key]);
        let waiting = number("ZCARD", "{orders}:retry:work");
        [waiting, number("HLEN", "{orders}:retry-records:work"), self.app.pending("work")]
    }
}

fn job() -> Fields {
    vec![("type".into(), "order.placed".into()), ("data".into(), "{}".into())]
}

fn is_refused(answer: &Result<FenceResult, StoreError>, expected: &str) -> bool {
    matches!(answer, Err(StoreError::Refused { code, .. }) if code == expected)
}

#[tokio::test]
async fn a_retry_that_is_refused_leaves_those_beside_it_alone() {
    let on = Pending::start(4).await;
    // As if the id had existed many times.
    for plus in 0..=64 {
        let name = format!("s:{}{}", on.holds[1].id, "+".repeat(plus));
        on.app.server.command(&["HSET", "{orders}:retry-records:work", &name, "theirs"]);
    }
    let mut retries = on.retries();
    on.app.server.command(&["SET", "{orders}:dead:work", "of another type"]);
    on.app.server.command(&["XACK", "orders", "work", &on.holds[3].id.to_string()]);
    retries[3].stand_in = Some(StandIn::DeadLetter(EntryId::new(1, 1)));
    let answers = on.schedule(&retries).await;
    assert!(matches!(answers[0], Ok(FenceResult::Owned)), "{answers:?}");
    assert!(matches!(answers[2], Ok(FenceResult::Owned)), "{answers:?}");
    assert!(is_refused(&answers[1], "ERR") && is_refused(&answers[3], "WRONGTYPE"), "{answers:?}");
    assert_eq!(on.counts(), [2, 65 + 2, 1]);
    assert!(on.app.server.pending("orders", "work")[0].id == on.holds[1].id.to_string());
    // Nothing is hidden when each is refused.
    let answers = on.schedule(&[retries[1].clone(), retries[1].clone()]).await;
    assert!(answers.iter().all(|answer| is_refused(answer, "ERR")), "{answers:?}");
}

#[tokio::test]
async fn a_full_server_refuses_each_retry_of_a_request_and_changes_nothing() {
    let on = Pending::start(150).await;
    let mut retries = on.retries();
    let other = Hold { delivery_count: 9, ..on.holds[7] };
    retries.insert(8, NewRetry { hold: other, ..retries[0].clone() });
    on.app.server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let answers = on.schedule(&retries).await;
    for (place, answer) in answers.iter().enumerate() {
        match place {
            8 => assert!(matches!(answer, Ok(FenceResult::TakenOver)), "{answer:?}"),
            _ => assert!(is_refused(answer, "OOM"), "{answer:?}"),
        }
    }
    assert_eq!(on.counts(), [0, 0, 150]);
    on.app.server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    let answers = on.schedule(&retries).await;
    let owned = answers.iter().filter(|answer| matches!(answer, Ok(FenceResult::Owned))).count();
    assert_eq!((owned, on.counts()), (150, [150, 150, 0]));
    let first = on.store.retries(&on.queue, RetriesFrom::First, 1).await.unwrap();
    assert!(first.has_more);
}

#[tokio::test]
async fn keys_of_another_type_refuse_the_retries_and_the_entries_stay_pending() {
    for key in ["{orders}:retry:work", "{orders}:retry-records:work"] {
        let on = Pending::start(3).await;
        on.app.server.command(&["SET", key, "of another type"]);
        let answers = on.schedule(&on.retries()).await;
        assert!(answers.iter().all(|answer| is_refused(answer, "WRONGTYPE")), "{answers:?}");
        assert_eq!(on.app.pending("work"), 3);
        on.app.server.command(&["DEL", key]);
        let answers = on.schedule(&on.retries()).await;
        assert!(answers.iter().all(|answer| matches!(answer, Ok(FenceResult::Owned))));
        assert_eq!(on.counts(), [3, 3, 0]);
    }
}

/// How many entries the lane has, and how many jobs wait for retry.
fn moved(on: &Pending) -> [usize; 2] {
    [on.app.server.length("{orders}:lane:work"), on.counts()[0]]
}

#[tokio::test]
async fn a_job_that_cannot_be_promoted_leaves_those_before_it_in_the_lane_once() {
    let on = Pending::start(2).await;
    let due = |job| NewRetry { delay: Duration::ZERO, ..job };
    on.schedule(&on.retries().into_iter().map(due).collect::<Vec<_>>()).await;
    // A member without a record, due after the others, whose dead letter the server refuses to store: the
    // last possible id is taken.
    let retry = "{orders}:retry:work";
    let last = format!("{0}-{0}", u64::MAX);
    on.app.server.command(&["XADD", "{orders}:dead:work", &last, "a", "b"]);
    let last: Vec<String> = on.app.server.query(&["ZRANGE", retry, "-1", "-1", "WITHSCORES"]);
    let after = last[1].parse::<u64>().unwrap() + 1;
    on.app.server.command(&["ZADD", retry, &after.to_string(), "s:9-9"]);
    let now = async || on.store.now(&on.queue.stream).await.unwrap().0;
    eventually_async(DEADLINE, "all are due", async || now().await >= after).await;
    for _ in 0..2 {
        let answer = on.store.promote(&on.queue, &on.me, 500).await;
        assert!(matches!(answer, Err(StoreError::Refused { .. })), "{answer:?}");
        assert_eq!(moved(&on), [2, 1]);
    }
    on.app.server.command(&["ZREM", retry, "s:9-9"]);
    assert_eq!(on.store.promote(&on.queue, &on.me, 500).await.unwrap().promoted, 0);
    assert_eq!(on.counts(), [0, 0, 0]);
}

/// Another client has written them. Such a record ended every promotion, and later jobs stayed.
#[tokio::test]
async fn records_that_no_entry_can_be_made_of_become_dead_letters_and_hold_up_no_other() {
    let on = Pending::start(2).await;
    let due = |job| NewRetry { delay: Duration::ZERO, ..job };
    on.schedule(&on.retries().into_iter().map(due).collect::<Vec<_>>()).await;
    let words = |count: u16| {
        let head = [b"\xdc".as_slice(), &count.to_be_bytes()].concat();
        [head, b"\xa1x".repeat(count.into())].concat()
    };
    // More words than a script can pass on, more than any job has; nil, a truth value, a list and a number.
    let broken = [b"\x92\xa1x\xc2".to_vec(), b"\x92\xa1x\x90".to_vec(), b"\x92\xa1x\x01".to_vec()];
    let broken =
        [vec![words(10_000), words(2_102), b"\x94\xa1x\xc0\xa1x\xa1x".to_vec()], broken.into()];
    let broken = broken.concat();
    let (retry, records) = ("{orders}:retry:work", "{orders}:retry-records:work");
    for (place, record) in broken.iter().enumerate() {
        let name = format!("s:9-{place}");
        on.app.server.command(&["ZADD", retry, &place.to_string(), &name]);
        on.app.server.command(&[b"HSET".as_slice(), records.as_bytes(), name.as_bytes(), record]);
    }
    on.app.server.command(&["ZADD", retry, "9", "s:9-9"]);
    on.app.server.command(&[b"HSET".as_slice(), records.as_bytes(), b"s:9-9", &words(2_100)]);
    let promoted = on.store.promote(&on.queue, &on.me, 500).await.unwrap();
    assert_eq!((promoted.promoted, promoted.left, moved(&on)), (3, 0, [3, 0]));
    let letters = on.app.server.entries("{orders}:dead:work");
    let told = |letter: &EntryRow| letter.text("sj-dead-entry");
    let told = letters.iter().filter_map(told).collect::<Vec<_>>();
    assert_eq!(told, (0..6).map(|place| format!("9-{place}")).collect::<Vec<_>>());
    assert_eq!(on.counts(), [0, 0, 0]);
}

/// An eviction takes it while memory is full.
#[tokio::test]
async fn a_full_server_that_has_lost_the_lane_promotes_all_the_same() {
    let on = Pending::start(3).await;
    let due = |job| NewRetry { delay: Duration::ZERO, ..job };
    on.schedule(&on.retries().into_iter().map(due).collect::<Vec<_>>()).await;
    let lose = || on.app.server.command(&["DEL", "{orders}:lane:work"]);
    on.app.server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    for (limit, promoted) in [(0, 0), (500, 3), (500, 0)] {
        lose();
        let answer = on.store.promote(&on.queue, &on.me, limit).await.unwrap();
        assert_eq!((answer.promoted, answer.waiting), (promoted, promoted), "at most {limit}");
    }
    assert_eq!(on.counts(), [0, 0, 0]);
}

#[tokio::test]
async fn of_large_retries_a_few_mebibytes_are_promoted_at_once() {
    let on = Pending::start(12).await;
    let large = |retry: NewRetry| {
        let job = vec![("type".into(), "t".into()), ("data".into(), vec![b'x'; 1 << 20].into())];
        NewRetry { delay: Duration::ZERO, job, ..retry }
    };
    let retries = on.retries().into_iter().map(large).collect::<Vec<_>>();
    on.schedule(&retries).await;
    for expected in [[4, 8], [8, 4], [12, 0]] {
        let promoted = on.store.promote(&on.queue, &on.me, 500).await.unwrap();
        assert_eq!((promoted.promoted, moved(&on)), (4, expected));
        assert!(promoted.next_due == Some(Duration::ZERO) || expected[1] == 0, "{promoted:?}");
    }
    assert_eq!(on.counts(), [0, 0, 0]);
}

#[tokio::test]
async fn of_wide_retries_a_few_thousand_words_are_promoted_at_once() {
    let on = Pending::start(13).await;
    let wide = |retry: NewRetry| {
        let job = (0..990).map(|_| ("x".into(), "1".into())).collect();
        NewRetry { delay: Duration::ZERO, job, ..retry }
    };
    on.schedule(&on.retries().into_iter().map(wide).collect::<Vec<_>>()).await;
    for (count, expected) in [(7, [7, 6]), (6, [13, 0])] {
        let promoted = on.store.promote(&on.queue, &on.me, 500).await.unwrap();
        assert_eq!((promoted.promoted, moved(&on)), (count, expected));
        assert_eq!(promoted.next_due, (expected[1] > 0).then_some(Duration::ZERO));
    }
    assert_eq!(on.counts(), [0, 0, 0]);
}

/// Each job fails once, when the gate opens.
fn failing_once(gate: &Gate) -> Work {
    let gate = gate.clone();
    Work::new(move |_, job| {
        let gate = gate.clone();
        async move {
            gate.passed().await;
            if job.attempt() == 1 { Err("not-yet-canary".into()) } else { Ok(()) }
        }
    })
}

fn each_ran_twice(work: &Work, jobs: usize) {
    let mut attempts = work.runs().into_iter().map(|run| (run.order, run.attempt));
    let mut seen = attempts.by_ref().collect::<Vec<_>>();
    seen.sort();
    let expected = (0..jobs).flat_map(|id| [1, 2].map(|attempt| (id.to_string(), attempt)));
    let mut expected = expected.collect::<Vec<_>>();
    expected.sort();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn retries_whose_common_answer_is_lost_are_scheduled_once() {
    let (app, gate) = (App::start().await, Gate::default());
    let failing = failing_once(&gate);
    let proxy = FaultProxy::start(&app.server).unwrap();
    let client = Client::connect(proxy.url()).await.unwrap();
    let builder = Runtime::builder(&client).handlers(handlers![work]).state(failing.clone());
    let group = options().lease(Duration::from_secs(60));
    let runtime = quick(builder.group("work", group)).start().await.unwrap();
    app.publish(16).await;
    failing.wait_for(16).await;
    proxy.set(Mode::LoseReplyTo("not-yet-canary".to_owned()));
    gate.open();
    app.drained("work").await;
    settled(&runtime).await;
    each_ran_twice(&failing, 16);
    let counters = runtime.counters();
    assert!(counters.server_errors > 0, "an answer was lost");
    assert_eq!((counters.failed, counters.retried, counters.refused_late), (16, 16, 0));
    assert_eq!((counters.acknowledged, app.server.length("{orders}:dead:work")), (16, 0));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn failed_jobs_wait_for_a_full_server_and_are_retried_once_it_has_room() {
    let (app, gate) = (App::start().await, Gate::default());
    let failing = failing_once(&gate);
    let runtime = app.runtime(&failing).start().await.unwrap();
    app.publish(16).await;
    failing.wait_for(16).await;
    app.server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    gate.open();
    until(DEADLINE, "each is refused", || runtime.counters().server_errors >= 16).await;
    assert_eq!((app.pending("work"), runtime.counters().retried), (16, 0));
    app.server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    app.drained("work").await;
    settled(&runtime).await;
    each_ran_twice(&failing, 16);
    assert_eq!((runtime.counters().retried, runtime.counters().leases_lost), (16, 0));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_failed_attempt_costs_the_server_few_commands() {
    let (app, gate) = (App::start().await, Gate::default());
    let failing = failing_once(&gate);
    let many = options().concurrency(NonZeroU32::new(400).unwrap());
    let group = many.lease(Duration::from_secs(60)).backoff(Backoff::fixed(Duration::from_secs(1)));
    // With the usual times of the loops, which look for due jobs now and then.
    let builder = Runtime::builder(&app.client).handlers(handlers![work]).state(failing.clone());
    let runtime = builder.group("work", group).start().await.unwrap();
    app.publish(400).await;
    failing.wait_for(400).await;
    let names = ["xpending", "hsetnx", "zadd", "hget", "xadd", "zrem", "hdel", "xack", "xdel"];
    let calls = || names.map(|name| app.calls(name));
    let before = calls();
    gate.open();
    app.drained("work").await;
    settled(&runtime).await;
    let each = names.iter().zip(calls()).zip(before).map(|((name, now), then)| (name, now - then));
    let each = each.collect::<Vec<_>>();
    let sum = each.iter().map(|(_, calls)| calls).sum::<usize>();
    assert!(sum <= 4 * 400, "{each:?}");
    let _ = runtime.shutdown().await;
}
