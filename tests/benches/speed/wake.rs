//! How soon many waiting groups of one process start a job, and what that takes: with a connection for
//! each reader, on which a read waits, and with shared ones.

use std::io::{BufRead, BufReader};
use std::num::NonZeroU32;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use serde_json::json;
use streamjobs::config::GroupOptions;
use streamjobs::{HandlerDef, Runtime, State, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::RedisServer;
use tokio::sync::Notify;

use crate::child::Task;
use crate::job::{Counter, Order, order};
use crate::meter::{self, Meter};
use crate::table::Table;
use crate::work::server;
use crate::{Settings, by_hand};

/// Groups, streams and events a second.
const SHAPES: [(usize, usize, usize); 4] =
    [(2, 2, 200), (20, 4, 200), (100, 100, 200), (100, 1, 20)];
const SECONDS: usize = 10;

pub async fn run(settings: &Settings, table: &mut Table) {
    for (groups, streams, rate) in SHAPES {
        let name = format!("wake-up: {groups} groups on {streams} streams, {rate} events/s");
        if !settings.wants(&name) {
            continue;
        }
        for (kind, own) in [("a connection each", usize::MAX), ("shared connections", 0)] {
            let server = server(false);
            let mut sleeper = Sleeper::start(&server, Task::Wake(groups, streams, rate), own);
            let start = sleeper.number();
            let memory = meter::memory(sleeper.child.id()) / 1024;
            let connections = server.client_list().len();
            let meter = Meter::start(&server);
            let [half, most] = [sleeper.number(), sleeper.number()];
            let jobs = (rate * SECONDS * groups / streams) as f64;
            let cost = meter.stop().server.as_secs_f64() * 1e6 / jobs;
            let text = format!(
                "{kind}: p50 {half:.0} µs, p99 {most:.0} µs, server {cost:.0} µs a job, \
                 {connections} connections, {memory} KiB, started in {start:.1} ms"
            );
            let figures = json!({ "kind": kind, "p50_us": half, "p99_us": most,
                "server_us_per_job": cost, "connections": connections, "memory_kib": memory,
                "start_ms": start });
            table.note(&name, &text, figures);
        }
    }
}

/// How fast many groups of one process are done with a backlog each, in both ways.
pub async fn drains(settings: &Settings, table: &mut Table) {
    for (groups, slots) in [(3, 100), (20, 100)] {
        let name = format!("drain: {groups} groups with {slots} slots each");
        if !settings.wants(&name) {
            continue;
        }
        let events = 300_000 / groups / settings.share;
        let (mut own, mut shared) = (Vec::new(), Vec::new());
        for round in 0..2 * settings.rounds {
            let (rates, most) =
                if round % 2 == 0 { (&mut own, usize::MAX) } else { (&mut shared, 0) };
            let server = server(false);
            let task = Task::DrainMany(groups, events, slots);
            rates.push(Sleeper::start(&server, task, most).number());
        }
        let median = |rates: &mut Vec<f64>| {
            rates.sort_unstable_by(f64::total_cmp);
            rates[rates.len() / 2]
        };
        let (own, shared) = (median(&mut own), median(&mut shared));
        let text = format!(
            "a connection each {own:.0} jobs/s, shared {shared:.0} jobs/s: {:.2}",
            shared / own
        );
        let figures = json!({ "own": own, "shared": shared, "ratio": shared / own });
        table.note(&name, &text, figures);
    }
}

/// A process that says how long its start took, and later two quantiles.
struct Sleeper {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Sleeper {
    fn start(server: &RedisServer, task: Task, own: usize) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(task.words(server));
        command.env("STREAMJOBS_OWN_READ_CONNECTIONS", own.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn number(&mut self) -> f64 {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim().parse().unwrap()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _status = self.child.wait().is_ok();
    }
}

/// When each event was due, and how much later its jobs started.
#[derive(Clone, Default)]
struct Starts {
    due: Arc<Mutex<Vec<Instant>>>,
    delays: Arc<Mutex<Vec<Duration>>>,
    more: Arc<Notify>,
}

#[handler(group = "wake")]
async fn wake(order: Order, State(starts): State<Starts>) {
    let due = starts.due.lock().unwrap()[order.number];
    starts.delays.lock().unwrap().push(due.elapsed());
    starts.more.notify_one();
}

#[handler(group = "drain")]
async fn drain_one(_order: Order, State(counter): State<Counter>) {
    counter.add();
}

/// Drains a stream for each group, and says how many jobs a second that was.
pub async fn drain(server: &str, groups: usize, events: usize, slots: usize) {
    let client = crate::child::client(server).await;
    let mut publisher = by_hand::connect(server).await;
    let counter = Counter::expect(groups * events);
    let slots = NonZeroU32::new(u32::try_from(slots).unwrap()).unwrap();
    let mut builder = Runtime::builder(&client).state(counter.clone());
    let mut all = Vec::new();
    for number in 0..groups {
        let (group, stream) = (format!("drain-{number}"), format!("drain-{number}"));
        for chunk in (0..events).collect::<Vec<_>>().chunks(1_000) {
            let mut pipe = redis::pipe();
            for number in chunk {
                pipe.add_command(by_hand::add_to(&stream, &order(*number, 150)));
            }
            let _ids: Vec<String> = pipe.query_async(&mut publisher).await.unwrap();
        }
        builder = builder.group(&group, GroupOptions::new().concurrency(slots));
        let [one] = handlers![drain_one];
        all.push(HandlerDef { group: group.leak(), stream: stream.leak(), ..one });
    }
    let runtime = builder.handlers(all).start().await.unwrap();
    counter.reached().await;
    println!("{}", (groups * events) as f64 / counter.first().elapsed().as_secs_f64());
    let _ = runtime.shutdown().await;
}

/// Returns when all readers wait: on the server, or in the process, after which the server remembers their
/// streams.
async fn waiting(connection: &mut MultiplexedConnection, groups: usize, streams: usize) {
    let deadline = Duration::from_secs(60);
    eventually_async(deadline, "all readers wait", async || {
        let info: String = redis::cmd("INFO").query_async(&mut connection.clone()).await.unwrap();
        let is =
            |name: &str, count: usize| info.lines().any(|line| line == format!("{name}:{count}"));
        is("blocked_clients", groups)
            || is("blocked_clients", 0) && is("tracking_total_keys", streams)
    })
    .await;
}

/// What the child does.
pub async fn child(server: &str, groups: usize, streams: usize, rate: usize) {
    let client = crate::child::client(server).await;
    let starts = Starts::default();
    let few = GroupOptions::new().concurrency(NonZeroU32::new(10).unwrap());
    let mut builder = Runtime::builder(&client).state(starts.clone());
    let mut all = Vec::new();
    for number in 0..groups {
        let [wake] = handlers![wake];
        let group = format!("wake-{number}");
        builder = builder.group(&group, few);
        let stream = format!("wake-{}", number % streams);
        all.push(HandlerDef { group: group.leak(), stream: stream.leak(), ..wake });
    }
    let began = Instant::now();
    let runtime = builder.handlers(all).start().await.unwrap();
    let took = began.elapsed();
    let mut publisher = by_hand::connect(server).await;
    waiting(&mut publisher, groups, streams).await;
    println!("{}", took.as_secs_f64() * 1e3);
    let began = Instant::now();
    for number in 0..rate * SECONDS {
        let due = began + Duration::from_secs_f64(number as f64 / rate as f64);
        tokio::time::sleep_until(due.into()).await;
        starts.due.lock().unwrap().push(Instant::now());
        let stream = format!("wake-{}", number % streams);
        let add = by_hand::add_to(&stream, &order(number, 150));
        let _id: String = add.query_async(&mut publisher).await.unwrap();
    }
    let wanted = rate * SECONDS * groups / streams;
    while starts.delays.lock().unwrap().len() < wanted {
        starts.more.notified().await;
    }
    let mut delays = starts.delays.lock().unwrap().clone();
    delays.sort_unstable();
    for part in [50, 99] {
        println!("{}", delays[delays.len() * part / 100].as_secs_f64() * 1e6);
    }
    let _ = runtime.shutdown().await;
}
