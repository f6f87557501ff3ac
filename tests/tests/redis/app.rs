//! What the tests share: an event, handlers whose behaviour each test chooses, and their history.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::config::GroupOptions;
use streamjobs::{Client, Event, Job, JobError, Runtime, RuntimeBuilder, State, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::RedisServer;
use tokio::sync::Notify;

/// The event of these tests.
#[derive(Clone, Debug, PartialEq, Eq, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed", key = "customer")]
pub struct Order {
    pub id: String,
    pub customer: String,
}

pub fn order(id: impl ToString) -> Order {
    Order { id: id.to_string(), customer: "alice".to_owned() }
}

pub fn orders(count: usize) -> Vec<Order> {
    (0..count).map(order).collect()
}

type Body = dyn Fn(Order, Job) -> futures_util::future::BoxFuture<'static, Result<(), JobError>>
    + Send
    + Sync;

/// What a handler does in one test, and what it has done so far.
#[derive(Clone)]
pub struct Work {
    body: Arc<Body>,
    runs: Arc<Mutex<Vec<Run>>>,
}

/// One start of a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub order: String,
    pub attempt: u32,
    pub delivery_count: u64,
    pub first: bool,
    pub consumer: String,
    pub event_id: String,
}

impl Work {
    pub fn new<F, R>(body: F) -> Self
    where
        F: Fn(Order, Job) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        let body = move |order, job| -> futures_util::future::BoxFuture<'static, _> {
            Box::pin(body(order, job))
        };
        Self { body: Arc::new(body), runs: Arc::default() }
    }

    /// Succeeds at once.
    pub fn fine() -> Self {
        Self::new(|_, _| async { Ok(()) })
    }

    /// Waits for the gate.
    pub fn gated(gate: &Gate) -> Self {
        let gate = gate.clone();
        Self::new(move |_, _| {
            let gate = gate.clone();
            async move {
                gate.passed().await;
                Ok(())
            }
        })
    }

    pub fn runs(&self) -> Vec<Run> {
        self.runs.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.runs.lock().unwrap().len()
    }

    /// The distinct orders that were started.
    pub fn distinct(&self) -> usize {
        let runs = self.runs.lock().unwrap();
        runs.iter().map(|run| &run.order).collect::<std::collections::HashSet<_>>().len()
    }

    pub async fn wait_for(&self, runs: usize) {
        until(DEADLINE, &format!("{runs} runs"), || self.count() >= runs).await;
    }

    pub async fn run(&self, order: Order, job: Job) -> Result<(), JobError> {
        self.runs.lock().unwrap().push(Run {
            order: order.id.clone(),
            attempt: job.attempt(),
            delivery_count: job.delivery_count(),
            first: job.is_first_delivery(),
            consumer: job.consumer().to_string(),
            event_id: job.event_id().to_string(),
        });
        (self.body)(order, job).await
    }
}

/// The same for the second group.
#[derive(Clone)]
pub struct OtherWork(pub Work);

#[handler(group = "work")]
pub async fn work(order: Order, State(work): State<Work>, job: Job) -> Result<(), JobError> {
    work.run(order, job).await
}

#[handler(group = "other")]
pub async fn other(order: Order, State(work): State<OtherWork>, job: Job) -> Result<(), JobError> {
    work.0.run(order, job).await
}

/// Holds handlers back until it is opened.
#[derive(Clone, Default)]
pub struct Gate {
    open: Arc<Mutex<bool>>,
    opened: Arc<Notify>,
}

impl Gate {
    pub fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_waiters();
    }

    pub async fn passed(&self) {
        loop {
            let opened = self.opened.notified();
            if *self.open.lock().unwrap() {
                return;
            }
            opened.await;
        }
    }
}

/// A private server and a client on it.
pub struct App {
    pub server: RedisServer,
    pub client: Client,
}

impl App {
    pub async fn start() -> Self {
        Self::on(RedisServer::start().unwrap()).await
    }

    pub async fn on(server: RedisServer) -> Self {
        let client = Client::connect(&server.url()).await.unwrap();
        Self { server, client }
    }

    /// A runtime with one group and short times.
    pub fn runtime(&self, work: &Work) -> RuntimeBuilder {
        self.bare(work).group("work", options())
    }

    pub fn bare(&self, work: &Work) -> RuntimeBuilder {
        quick(Runtime::builder(&self.client).handlers(handlers![self::work]).state(work.clone()))
    }

    /// Connections of clients of ours. The server may not have closed the harness's last one yet.
    pub fn connections(&self) -> usize {
        self.server.client_list().iter().filter(|client| client.name == "streamjobs").count()
    }

    pub async fn publish(&self, count: usize) {
        for answer in self.client.publish_all(&orders(count)).await {
            answer.unwrap();
        }
    }

    /// Waits until nothing is pending, undelivered, waiting for retry or in a lane for the group.
    pub async fn drained(&self, group: &str) {
        until(DEADLINE, &format!("group {group} drained"), || self.left(group) == 0).await;
    }

    /// Jobs of the group that have not come to an end, as the server sees it in one moment.
    pub fn left(&self, group: &str) -> usize {
        let lane = format!("{{orders}}:lane:{group}");
        let retry = format!("{{orders}}:retry:{group}");
        self.number(&["EVAL", LEFT, "3", "orders", &lane, &retry, group])
    }

    /// Entries of the stream behind the group's cursor, as far as ten.
    pub fn undelivered(&self, group: &str) -> usize {
        let from = format!("({}", self.cursor(group));
        let behind = self.server.command(&["XRANGE", "orders", &from, "+", "COUNT", "10"]);
        behind.as_sequence().map_or(0, <[_]>::len)
    }

    /// The group's last delivered id.
    pub fn cursor(&self, group: &str) -> String {
        let groups: Vec<std::collections::HashMap<String, redis::Value>> =
            redis::from_redis_value(self.server.command(&["XINFO", "GROUPS", "orders"])).unwrap();
        let name = |row: &std::collections::HashMap<String, redis::Value>| -> String {
            redis::from_redis_value(row["name"].clone()).unwrap()
        };
        let row = groups.into_iter().find(|row| name(row) == group).unwrap();
        redis::from_redis_value(row["last-delivered-id"].clone()).unwrap()
    }

    /// Sends a command whose arguments are not all text.
    pub fn run(&self, command: &redis::Cmd) {
        command.query::<redis::Value>(&mut self.connection()).unwrap();
    }

    pub fn run_pipeline(&self, pipeline: &redis::Pipeline) {
        pipeline.query::<redis::Value>(&mut self.connection()).unwrap();
    }

    fn connection(&self) -> redis::Connection {
        redis::Client::open(self.server.plain_url()).unwrap().get_connection().unwrap()
    }

    pub fn number(&self, command: &[&str]) -> usize {
        redis::from_redis_value(self.server.command(command)).unwrap()
    }

    pub fn pending(&self, group: &str) -> usize {
        self.server.pending("orders", group).len()
    }

    /// How often the server has carried a command out.
    pub fn calls(&self, command: &str) -> usize {
        let stats: String =
            redis::from_redis_value(self.server.command(&["INFO", "commandstats"])).unwrap();
        let line =
            stats.lines().find(|line| line.starts_with(&format!("cmdstat_{command}:calls=")));
        let count = line.and_then(|line| line.split(['=', ',']).nth(1)).map(str::parse);
        count.map_or(0, Result::unwrap)
    }
}

const LEFT: &str = "
local group, cursor, pending = ARGV[1], '0-0', 0
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  if info[2] == group then pending, cursor = info[6], info[8] end
end
local behind = #redis.call('XRANGE', KEYS[1], '(' .. cursor, '+', 'COUNT', 10)
return pending + behind + redis.call('XLEN', KEYS[2]) + redis.call('ZCARD', KEYS[3])";

/// Short times for tests: a lease of 600 ms.
pub fn options() -> GroupOptions {
    GroupOptions::new()
        .lease(LEASE)
        .concurrency(NonZeroU32::new(16).unwrap())
        .backoff(streamjobs::Backoff::fixed(Duration::from_millis(20)))
}

pub fn quick(builder: RuntimeBuilder) -> RuntimeBuilder {
    builder
        .block(Duration::from_millis(200))
        .promote_interval(Duration::from_millis(20))
        .janitor_interval(Duration::from_millis(50))
        .grace(Duration::from_secs(10))
}

/// How long a named event may take before the test fails.
pub const DEADLINE: Duration = Duration::from_secs(20);
pub const LEASE: Duration = Duration::from_millis(600);

/// A runtime for both groups of this file.
pub fn both(app: &App, one: &Work, two: &Work) -> RuntimeBuilder {
    let builder = Runtime::builder(&app.client).handlers(handlers![work, other]);
    let builder = builder.state(one.clone()).state(OtherWork(two.clone()));
    quick(builder.group("work", options()).group("other", options()))
}

/// Waits until the runtime knows the end of every job it had. The server knows it first, so a
/// test that checks counters after waiting for the server waits for this too.
pub async fn settled(runtime: &Runtime) {
    let in_flight = || runtime.health().queues.iter().map(|queue| queue.in_flight).sum::<usize>();
    until(DEADLINE, "every job has settled", || in_flight() == 0).await;
}

/// Waits until something holds, leaving the executor free.
pub async fn until(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    eventually_async(deadline, what, async || condition()).await;
}
