//! Limits over all processes on a server: order per key through failures, a full server, a flush, keys that
//! other clients wrote, and partitions.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use streamjobs::config::{GroupOptions, KeyOrder, Retention};
use streamjobs::stream::HolderState;
use streamjobs::{Backoff, Client, EventId, JobError, Runtime, handlers};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::RedisServer;
use tokio::time::{Instant, sleep_until};

use crate::app::{App, DEADLINE, Gate, Order, Work, options, order, quick, settled, until, work};

/// What ran, by key, and how many of a key ran at once at most.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<Ran>>);

#[derive(Default)]
struct Ran {
    done: BTreeMap<String, Vec<usize>>,
    running: BTreeMap<String, usize>,
    most_of_key: usize,
    most: usize,
    /// The keys of what is done, in order.
    ended: Vec<String>,
}

impl Runs {
    /// Work that fails as often as an order's id asks for, as in `7:2`.
    fn work(&self) -> Work {
        let runs = self.clone();
        Work::new(move |order: Order, job| {
            let runs = runs.clone();
            async move {
                let (number, failures) = order.id.split_once(':').unwrap();
                runs.begin(&order.customer);
                sleep_until(Instant::now() + Duration::from_millis(2)).await;
                let fails = job.attempt() <= failures.parse::<u32>().unwrap();
                runs.end(&order.customer, (!fails).then(|| number.parse().unwrap()));
                if fails { Err(JobError::retry("not yet")) } else { Ok(()) }
            }
        })
    }

    fn begin(&self, key: &str) {
        let mut ran = self.0.lock().unwrap();
        *ran.running.entry(key.to_owned()).or_default() += 1;
        ran.most_of_key = ran.most_of_key.max(ran.running[key]);
        ran.most = ran.most.max(ran.running.values().sum());
    }

    fn end(&self, key: &str, done: Option<usize>) {
        let mut ran = self.0.lock().unwrap();
        *ran.running.get_mut(key).unwrap() -= 1;
        ran.ended.extend(done.map(|_| key.to_owned()));
        ran.done.entry(key.to_owned()).or_default().extend(done);
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().done.values().map(Vec::len).sum()
    }

    async fn until(&self, count: usize) {
        until(DEADLINE, &format!("{count} are done"), || self.count() >= count).await;
    }

    fn done(&self, key: &str) -> Vec<usize> {
        self.0.lock().unwrap().done.get(key).cloned().unwrap_or_default()
    }

    fn most(&self) -> (usize, usize) {
        let ran = self.0.lock().unwrap();
        (ran.most_of_key, ran.most)
    }
}

fn ordered() -> GroupOptions {
    let backoff = Backoff::fixed(Duration::from_millis(20));
    options().order(KeyOrder::Block).backoff(backoff).max_attempts(NonZeroU32::new(9).unwrap())
}

async fn start(client: &Client, runs: &Runs, options: GroupOptions) -> Runtime {
    let builder = quick(Runtime::builder(client).handlers(handlers![work]).state(runs.work()));
    builder.group("work", options).start().await.unwrap()
}

/// Publishes jobs of these keys in turn; some of them fail once or twice.
async fn publish(client: &Client, keys: usize, numbers: std::ops::Range<usize>) {
    for number in numbers {
        for key in 0..keys {
            let failures = if (number + key).is_multiple_of(7) { 1 + key % 2 } else { 0 };
            let (id, customer) = (format!("{number}:{failures}"), format!("c-{key}"));
            client.publish(&Order { id, customer }).await.unwrap();
        }
    }
}

/// Nothing is left of the group's limit.
async fn empty(server: &RedisServer) {
    let keys = ["holds", "busy", "lines", "line-records", "turns", "shares"];
    let exist = || {
        let keys = keys.map(|key| format!("{{orders}}:{key}:work"));
        let command = ["EXISTS"].into_iter().chain(keys.iter().map(String::as_str));
        let exist = server.command(&command.collect::<Vec<_>>());
        redis::from_redis_value::<usize>(exist).unwrap()
    };
    until(DEADLINE, "nothing is left of the limit", || exist() == 0).await;
}

#[tokio::test]
async fn jobs_of_a_key_are_done_in_order_by_several_processes_through_failures() {
    let app = App::start().await;
    let runs = Runs::default();
    let mut runtimes = Vec::new();
    for _ in 0..3 {
        runtimes.push(start(&app.client, &runs, ordered()).await);
    }
    publish(&app.client, 8, 0..25).await;
    runs.until(200).await;
    for key in 0..8 {
        assert_eq!(runs.done(&format!("c-{key}")), (0..25).collect::<Vec<_>>(), "{key}");
    }
    let (most_of_key, most) = runs.most();
    assert!(most_of_key == 1 && most > 1, "{most_of_key} {most}");
    for runtime in runtimes {
        let _ = runtime.shutdown().await;
    }
    empty(&app.server).await;
}

#[tokio::test]
async fn a_limit_of_the_group_holds_over_processes() {
    let app = App::start().await;
    let (runs, limit) = (Runs::default(), NonZeroU32::new(3).unwrap());
    let one = start(&app.client, &runs, options().concurrency_total(limit)).await;
    let other = start(&app.client, &runs, options().concurrency_total(limit)).await;
    publish(&app.client, 6, 0..30).await;
    runs.until(180).await;
    assert_eq!(runs.most().1, 3);
    for runtime in [one, other] {
        let _ = runtime.shutdown().await;
    }
    empty(&app.server).await;
}

/// It is set in each partition, for processes that start later, too.
#[tokio::test]
async fn an_operator_changes_a_limit_of_running_processes_in_each_partition() {
    let server = RedisServer::start().unwrap();
    let builder = Client::builder(&server.url()).partitions("orders", 4);
    let client = builder.connect().await.unwrap();
    let (runs, gate) = (Runs::default(), Gate::default());
    let blocked = |runs: &Runs, gate: &Gate| {
        let (runs, gate) = (runs.clone(), gate.clone());
        Work::new(move |order: Order, _| {
            let (runs, gate) = (runs.clone(), gate.clone());
            async move {
                runs.begin(&order.customer);
                gate.passed().await;
                runs.end(&order.customer, Some(0));
                Ok(())
            }
        })
    };
    let limit = options().concurrency_per_key(NonZeroU32::MIN);
    let start = async || {
        let builder = quick(Runtime::builder(&client).handlers(handlers![work]));
        builder.state(blocked(&runs, &gate)).group("work", limit).start().await.unwrap()
    };
    let one = start().await;
    publish(&client, 8, 0..6).await;
    let running = || runs.0.lock().unwrap().running.values().sum::<usize>();
    until(DEADLINE, "one of each key runs", || running() == 8).await;
    let group = client.stream("orders").unwrap().group("work").unwrap();
    let number = |limit| NonZeroU32::new(limit).unwrap();
    assert!(group.set_limit(number(2), "alice", "a second printer").await.unwrap());
    until(DEADLINE, "two of each key run", || running() == 16).await;
    let info = group.info().await.unwrap();
    let told = info.limit.unwrap().to_string();
    assert_eq!(told, "concurrency_per_key is changed from 1 to 2 by alice: a second printer");
    assert_eq!((info.limit_in, info.partitions), (4, 4));
    let other = start().await;
    assert!(group.set_limit(number(3), "bob", "a third").await.unwrap());
    until(DEADLINE, "three of each key run", || running() == 24).await;
    assert!(group.reset_limit().await.unwrap());
    let (most, jobs) = (runs.most().0, 48);
    runs.0.lock().unwrap().most_of_key = 0;
    gate.open();
    runs.until(jobs).await;
    assert_eq!((most, runs.most().0), (3, 1), "as the code says again");
    for runtime in [one, other] {
        let _ = runtime.shutdown().await;
    }
}

/// Sweeps look for places without a job meanwhile.
#[tokio::test]
async fn a_job_that_retention_trims_while_it_runs_keeps_its_place() {
    let server = RedisServer::start().unwrap();
    let retention = Retention::MaxLenExact(NonZeroU64::new(2).unwrap());
    let builder = Client::builder(&server.url()).retention("orders", retention);
    let app = App { client: builder.connect().await.unwrap(), server };
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let options = ordered().lease(Duration::from_secs(1));
    let builder = quick(Runtime::builder(&app.client).handlers(handlers![work]));
    let runtime = builder.state(gated.clone()).group("work", options).start().await.unwrap();
    app.client.publish(&order(0)).await.unwrap();
    gated.wait_for(1).await;
    for number in 1..4 {
        app.client.publish(&order(number)).await.unwrap();
        until(DEADLINE, "it waits", || runtime.counters().parked == number).await;
    }
    until(DEADLINE, "it is trimmed", || runtime.counters().trimmed == 1).await;
    let before = app.calls("hscan");
    until(DEADLINE, "two sweeps", || app.calls("hscan") >= before + 2).await;
    assert_eq!((gated.count(), runtime.counters().places_freed), (1, 0));
    gate.open();
    gated.wait_for(4).await;
    let ran = gated.runs().into_iter().map(|run| run.order).collect::<Vec<_>>();
    assert_eq!(ran, ["0", "1", "2", "3"]);
    app.drained("work").await;
    let _ = runtime.shutdown().await;
    empty(&app.server).await;
}

/// What ends jobs is accepted, and so is what lets the next ones go on.
#[tokio::test]
async fn on_a_full_server_jobs_end_and_lines_go_on() {
    let app = App::start().await;
    let runs = Runs::default();
    // The group is there already: a new one needs memory.
    let _ = start(&app.client, &runs, ordered()).await.shutdown().await;
    for number in 0..20 {
        let (id, customer) = (format!("{number}:0"), format!("c-{}", number % 2));
        app.client.publish(&Order { id, customer }).await.unwrap();
    }
    app.server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let runtime = start(&app.client, &runs, ordered()).await;
    runs.until(20).await;
    settled(&runtime).await;
    assert_eq!(runs.most().0, 1);
    app.server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    let _ = runtime.shutdown().await;
    empty(&app.server).await;
}

#[tokio::test]
async fn after_a_flush_new_jobs_of_the_same_keys_run() {
    let app = App::start().await;
    let runs = Runs::default();
    let runtime = start(&app.client, &runs, ordered()).await;
    publish(&app.client, 2, 0..10).await;
    until(DEADLINE, "some run", || runs.count() > 3).await;
    app.server.command(&["FLUSHALL"]);
    let event = Order { id: "77:0".to_owned(), customer: "c-0".to_owned() };
    app.client.publish(&event).await.unwrap();
    until(DEADLINE, "it is done", || runs.done("c-0").contains(&77)).await;
    settled(&runtime).await;
    let _ = runtime.shutdown().await;
    empty(&app.server).await;
}

/// Its jobs wait in the stream, and are named in the log, until the key is gone.
#[tokio::test]
async fn a_key_of_another_type_loses_nothing_and_is_named() {
    let app = App::start().await;
    let runs = Runs::default();
    app.server.command(&["SET", "{orders}:lines:work", "x"]);
    let runtime = start(&app.client, &runs, ordered()).await;
    publish(&app.client, 1, 1..4).await;
    until(DEADLINE, "it is refused", || runtime.counters().server_errors > 2).await;
    assert_eq!((runs.count(), app.undelivered("work")), (0, 3));
    app.server.command(&["DEL", "{orders}:lines:work"]);
    runs.until(3).await;
    assert_eq!(runs.done("c-0"), [1, 2, 3]);
    let _ = runtime.shutdown().await;
    empty(&app.server).await;
}

/// Of a job that ran and was acknowledged by another client, and of one whose consumer was deleted.
#[tokio::test]
async fn a_key_goes_on_after_its_job_was_removed_by_hand() {
    let app = App::start().await;
    let runs = Runs::default();
    app.server.command(&["XGROUP", "CREATE", "orders", "work", "0", "MKSTREAM"]);
    app.server.command(&["HSET", "{orders}:holds:work", "s:5-0", "c-0", "l:7-0", "c-1"]);
    app.server.command(&["HSET", "{orders}:busy:work", "c-0", "1", "c-1", "1"]);
    publish(&app.client, 2, 1..4).await;
    let runtime = start(&app.client, &runs, ordered()).await;
    runs.until(6).await;
    assert_eq!((runs.done("c-0"), runs.done("c-1")), (vec![1, 2, 3], vec![1, 2, 3]));
    assert_eq!(runtime.counters().places_freed, 2);
    let _ = runtime.shutdown().await;
    empty(&app.server).await;
}

#[tokio::test]
async fn each_key_has_its_order_in_a_stream_with_partitions() {
    let server = RedisServer::start().unwrap();
    let builder = Client::builder(&server.url()).partitions("orders", 4);
    let client = builder.connect().await.unwrap();
    let runs = Runs::default();
    let total = options().concurrency_total(NonZeroU32::new(3).unwrap());
    let refused = quick(Runtime::builder(&client).handlers(handlers![work]).state(runs.work()));
    let error = refused.group("work", total).start().await.unwrap_err().to_string();
    let expected = "group work on stream orders: concurrency_total 3 cannot count the jobs of 4";
    assert!(error.contains(expected), "{error}");
    let (one, other) =
        (start(&client, &runs, ordered()).await, start(&client, &runs, ordered()).await);
    publish(&client, 8, 0..15).await;
    runs.until(120).await;
    for key in 0..8 {
        assert_eq!(runs.done(&format!("c-{key}")), (0..15).collect::<Vec<_>>(), "{key}");
    }
    assert_eq!(runs.most().0, 1);
    for runtime in [one, other] {
        let _ = runtime.shutdown().await;
    }
}

/// The group's other jobs are not held up by a key that is slow.
#[tokio::test]
async fn a_cancelled_job_in_a_line_lets_the_next_one_go_on() {
    let app = App::start().await;
    let runs = Runs::default();
    let event = |number: usize| Order { id: format!("{number}:0"), customer: "c-0".to_owned() };
    let id = EventId::new("second").unwrap();
    app.client.publish(&event(1)).await.unwrap();
    app.client.publish_with_id(&event(2), id.clone()).await.unwrap();
    app.client.publish(&event(3)).await.unwrap();
    app.client.stream("orders").unwrap().cancel(&id).await.unwrap();
    let runtime = start(&app.client, &runs, ordered()).await;
    runs.until(2).await;
    assert_eq!(runs.done("c-0"), [1, 3]);
    assert_eq!(runtime.counters().dead_lettered, 1);
    let _ = runtime.shutdown().await;
    empty(&app.server).await;
}

#[tokio::test]
async fn small_keys_behind_a_noisy_one_have_their_share_over_processes_and_failures() {
    let app = App::start().await;
    let runs = Runs::default();
    let order = |number: usize, failures, customer: String| Order {
        id: format!("{number}:{failures}"),
        customer,
    };
    let noisy = (0..1_500).map(|number| order(number, 0, "noisy".to_owned()));
    let small =
        (0..50).map(|number| order(number, u32::from(number < 10), format!("c-{}", number % 5)));
    let orders = noisy.chain(small).collect::<Vec<_>>();
    assert!(app.client.publish_all(&orders).await.iter().all(Result::is_ok));
    let fair = || options().fair().concurrency(NonZeroU32::new(4).unwrap());
    let one = start(&app.client, &runs, fair()).await;
    let other = start(&app.client, &runs, fair()).await;
    runs.until(orders.len()).await;
    let ended = runs.0.lock().unwrap().ended.clone();
    let last = ended.iter().rposition(|key| key != "noisy").unwrap();
    assert!(last < 700, "in the order of the stream it is the last of all: {last}");
    assert_eq!(runs.done("c-0").len(), 10);
    for runtime in [one, other] {
        let _ = runtime.shutdown().await;
    }
    empty(&app.server).await;
}

/// As `streamjobs diagnose` and the page of the group name it.
#[tokio::test]
async fn the_job_for_which_a_key_waits_is_named_with_its_consumer() {
    let (app, gate) = (App::start().await, Gate::default());
    let held = gate.clone();
    let blocked = Work::new(move |_order, _job| {
        let gate = held.clone();
        async move {
            gate.passed().await;
            Ok(())
        }
    });
    let builder = quick(Runtime::builder(&app.client).handlers(handlers![work]).state(blocked));
    let runtime = builder.group("work", ordered()).start().await.unwrap();
    let group = app.client.stream("orders").unwrap().group("work").unwrap();
    for number in 0..3 {
        let order = Order { id: number.to_string(), customer: "c-7".to_owned() };
        let id = EventId::new(format!("e-{number}")).unwrap();
        app.client.publish_with_id(&order, id).await.unwrap();
    }
    let two_wait = async || group.info().await.unwrap().parked == Some(2);
    eventually_async(DEADLINE, "two jobs wait for their key", two_wait).await;
    let line = group.line_holder().await.unwrap().unwrap();
    assert_eq!((line.key.as_str(), line.jobs, line.complete), ("c-7", 2, true));
    let holder = line.holder.clone().unwrap();
    assert_eq!(holder.event_id.as_deref(), Some("e-0"));
    let name = group.consumers().await.unwrap()[0].name.clone();
    let HolderState::Pending { consumer, .. } = &holder.state else { panic!("{holder:?}") };
    assert_eq!(*consumer, name);
    assert!(
        line.to_string().starts_with(&format!("job e-0 runs in {name} and has had its place for "))
    );
    gate.open();
    empty(&app.server).await;
    assert_eq!(group.line_holder().await.unwrap(), None);
    let _ = runtime.shutdown().await;
}
