//! What scheduled events and schedules cost: memory, entering many at once, lateness, and looking.

use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use streamjobs::schedule::Schedule;
use streamjobs::{Client, EventId, Runtime, handlers};

use crate::child::{Task, Worker};
use crate::job::{Counter, Order, count, order};
use crate::meter::{self, Meter};
use crate::table::Table;
use crate::work::server;
use crate::{Settings, ours};

const BATCH: usize = 500;
/// Long enough that all of them are scheduled before the first is due.
const AHEAD: Duration = Duration::from_secs(20);
const PROCESSES: usize = 10;

pub async fn run(settings: &Settings, table: &mut Table) {
    if settings.wants("scheduled: held") {
        held(1_000_000 / settings.share, table).await;
    }
    if settings.wants("scheduled: entering") {
        entering(100_000 / settings.share, settings.rounds, table).await;
    }
    if settings.wants("scheduled: lateness") {
        lateness(20_000 / settings.share, table).await;
    }
    if settings.wants("scheduled: schedules") {
        for schedules in [0, 10, 1_000] {
            looks(schedules, table).await;
        }
    }
}

async fn schedule(client: &Client, orders: &[Order], at: impl Fn(usize) -> SystemTime) {
    for chunk in orders.chunks(BATCH) {
        let items = chunk.iter().map(|order| (at(order.number), EventId::generate(), order));
        for answer in client.publish_all_at(items).await {
            answer.unwrap();
        }
    }
}

/// What events take that wait for a long time.
async fn held(events: usize, table: &mut Table) {
    let server = server(false);
    let (client, orders) = (ours::client(&server).await, ours::orders(events, 150));
    let memory = || server.info("used_memory").unwrap().trim().parse::<u64>().unwrap();
    let (before, meter) = (memory(), Meter::start(&server));
    let at = SystemTime::now() + Duration::from_secs(24 * 60 * 60);
    schedule(&client, &orders, |_| at).await;
    let cost = meter.stop();
    let each = (memory() - before) / events as u64;
    let rate = events as f64 / cost.wall.as_secs_f64();
    let text = format!(
        "{events} events of 141 bytes: {each} bytes each; scheduled {rate:.0}/s, server {:.2} µs",
        micros(cost.server, events)
    );
    let figures = json!({ "events": events, "bytes": each, "scheduled_per_second": rate });
    table.note("scheduled: held", &text, figures);
}

/// How quickly events enter that are due at one moment, beside publishing as many in batches.
async fn entering(events: usize, rounds: usize, table: &mut Table) {
    let (mut entered, mut published) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let server = server(false);
        let (client, orders) = (ours::client(&server).await, ours::orders(events, 150));
        let runtime = paused(&client).await;
        let at = SystemTime::now() + AHEAD;
        schedule(&client, &orders, |_| at).await;
        let rest = at.duration_since(SystemTime::now()).expect("all wait");
        meter::pass(rest).await;
        let begun = Instant::now();
        while server.length("orders") < events {
            meter::pass(Duration::from_millis(2)).await;
        }
        entered.push(events as f64 / begun.elapsed().as_secs_f64());
        let _ = runtime.shutdown().await;
        let server = self::server(false);
        let cost = ours::publish_batches(&server, events, 150).await;
        published.push(events as f64 / cost.wall.as_secs_f64());
    }
    let (entered, published) = (median(entered), median(published));
    let ratio = entered / published;
    let text = format!(
        "{events} due at once: {entered:.0}/s, published in batches {published:.0}/s: {ratio:.2}"
    );
    let figures = json!({ "events": events, "entered": entered, "published": published });
    table.note("scheduled: entering", &text, figures);
}

/// A group that reads nothing: entering does not depend on it.
async fn paused(client: &Client) -> Runtime {
    let builder = Runtime::builder(client).handlers(handlers![count]).state(Counter::default());
    let runtime = builder.start().await.unwrap();
    runtime.pause("bench").unwrap();
    runtime
}

/// How late events enter of which a thousand are due each second, by the server's clock.
async fn lateness(events: usize, table: &mut Table) {
    let server = server(false);
    let (client, orders) = (ours::client(&server).await, ours::orders(events, 150));
    let runtime = paused(&client).await;
    let begin = SystemTime::now() + AHEAD;
    schedule(&client, &orders, |number| begin + Duration::from_millis(number as u64)).await;
    while server.length("orders") < events {
        meter::pass(Duration::from_millis(50)).await;
    }
    let _ = runtime.shutdown().await;
    let mut late = server.entries("orders").into_iter().map(|entry| {
        let due = entry.text("sj-due").unwrap().parse::<u64>().unwrap();
        entry.id.split_once('-').unwrap().0.parse::<u64>().unwrap() - due
    });
    let mut late = late.by_ref().collect::<Vec<_>>();
    late.sort_unstable();
    let quantile = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
    let (half, most, worst) = (quantile(0.5), quantile(0.99), quantile(1.0));
    let text = format!("1000 due a second: p50 {half} ms, p99 {most} ms, at most {worst} ms");
    let figures = json!({ "events": events, "p50_ms": half, "p99_ms": most, "max_ms": worst });
    table.note("scheduled: lateness", &text, figures);
}

/// What many processes ask that have the same schedules, of which none is due.
async fn looks(schedules: usize, table: &mut Table) {
    let server = server(false);
    let mut processes = (0..PROCESSES)
        .map(|_| Worker::start(&server, Task::Schedules(schedules)))
        .collect::<Vec<_>>();
    processes.iter_mut().for_each(Worker::begin);
    let pids = processes.iter().map(Worker::pid).collect::<Vec<_>>();
    let time = || pids.iter().map(|pid| meter::processor_time(&pid.to_string())).sum();
    let idle = meter::while_quiet(&server, time).await;
    let text = format!(
        "{PROCESSES} processes with {schedules} schedules: {:.1} requests/s, server {:.2} % of a core, \
         clients {:.2} %",
        idle.requests, idle.server_percent, idle.client_percent
    );
    let figures = json!({ "processes": PROCESSES, "schedules": schedules,
        "requests_per_second": idle.requests, "server_percent": idle.server_percent });
    table.note("scheduled: schedules that are not due", &text, figures);
}

/// The child of that: a group without work, and so many schedules of its stream.
pub async fn child(client: &Client, schedules: usize) -> Runtime {
    let builder = Runtime::builder(client).handlers(handlers![count]).state(Counter::default());
    let all = (0..schedules).map(|number| {
        let schedule = Schedule::cron(&format!("new-year-{number}"), "0 0 1 1 *").unwrap();
        schedule.publishes(&order(number, 150)).unwrap()
    });
    all.fold(builder, streamjobs::RuntimeBuilder::schedule).start().await.unwrap()
}

fn micros(time: Duration, events: usize) -> f64 {
    time.as_secs_f64() * 1e6 / events as f64
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates[rates.len() / 2]
}
