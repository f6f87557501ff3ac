//! What a stream of many partitions costs beside one of one, and what many of them cost that wait.

use std::num::NonZeroU32;
use std::time::Instant;

use futures_util::future::join_all;
use serde_json::json;
use streamjobs::config::{GroupOptions, Retention};
use streamjobs::{Client, Runtime, handlers};
use streamjobs_tests::server::RedisCluster;

use crate::job::{self, Counter, count_in};
use crate::meter::{self, Cost, Meter};
use crate::ours;
use crate::table::Table;
use crate::work::server;
use crate::{Settings, table};

const EVENTS: usize = 200_000;
const SLOTS: u32 = 100;
const MANY: u16 = 48;

pub async fn run(settings: &Settings, table: &mut Table) {
    let name = "drain: 48 partitions beside 1";
    if settings.wants(name) {
        let events = EVENTS / settings.share;
        let (mut many, mut one) = (Vec::new(), Vec::new());
        // The first round warms up.
        for round in 0..=settings.rounds {
            let order = if round % 2 == 0 { [MANY, 1] } else { [1, MANY] };
            for count in order {
                let cost = drain(count, events).await;
                if round > 0 {
                    if count == MANY { many.push(cost) } else { one.push(cost) }
                }
            }
        }
        let rate = |costs: &[Cost]| {
            table::median(
                costs.iter().map(|cost| events as f64 / cost.wall.as_secs_f64()).collect(),
            )
        };
        let server = |costs: &[Cost]| {
            let each = |cost: &Cost| cost.server.as_secs_f64() * 1e6 / events as f64;
            table::median(costs.iter().map(each).collect())
        };
        let ratio = rate(&many) / rate(&one);
        let text = format!(
            "48: {:.0} jobs/s, server {:.2} µs a job; 1: {:.0} jobs/s, server {:.2} µs; {ratio:.2}",
            rate(&many),
            server(&many),
            rate(&one),
            server(&one)
        );
        let figures = json!({ "many": rate(&many), "one": rate(&one), "ratio": ratio,
            "many_server_us": server(&many), "one_server_us": server(&one) });
        table.note(name, &text, figures);
    }
    for partitions in [12, 48, 384] {
        let name = format!("idle: {partitions} partitions and 3 groups on 3 masters");
        if settings.wants(&name) {
            idle(&name, partitions, table).await;
        }
    }
}

async fn client(url: &str, partitions: u16) -> Client {
    let builder = Client::builder(url).retention_default(Retention::Unlimited);
    builder.partitions("orders", partitions).connect().await.unwrap()
}

/// All events are there before the first is read.
async fn drain(partitions: u16, events: usize) -> Cost {
    let server = server(false);
    let client = client(&server.url(), partitions).await;
    ours::publish_in_batches(&client, &ours::orders(events, 150)).await;
    let counter = Counter::expect(events);
    let builder = Runtime::builder(&client).handlers(handlers![job::count]).state(counter.clone());
    let options = GroupOptions::new().concurrency(NonZeroU32::new(SLOTS).unwrap());
    let meter = Meter::start(&server);
    let runtime = builder.group("bench", options).start().await.unwrap();
    counter.reached().await;
    let cost = Cost { wall: counter.first().elapsed(), ..meter.stop() };
    let _ = runtime.shutdown().await;
    cost
}

async fn idle(name: &str, partitions: u16, table: &mut Table) {
    let cluster = RedisCluster::start().unwrap();
    let client = client(&cluster.url(), partitions).await;
    let groups = (0..3).map(|number| count_in(format!("bench-{number}"))).collect::<Vec<_>>();
    let builder = Runtime::builder(&client).handlers(groups).state(Counter::default());
    let began = Instant::now();
    let runtime = builder.start().await.unwrap();
    let start = began.elapsed().as_secs_f64() * 1e3;
    let nodes = cluster.nodes();
    let quiet = join_all(
        nodes.iter().map(|node| meter::while_quiet(node, || meter::processor_time("self"))),
    )
    .await;
    let connections = nodes
        .iter()
        .map(|node| node.client_list().iter().filter(|client| client.name == "streamjobs").count());
    let connections = connections.sum::<usize>();
    let requests = quiet.iter().map(|idle| idle.requests).sum::<f64>() / nodes.len() as f64;
    let memory = meter::memory(std::process::id()) / 1024;
    let text = format!(
        "{connections} connections, {requests:.1} requests a second and node, started in {start:.0} ms, \
         client {:.1} % of a core, {memory} KiB",
        quiet[0].client_percent
    );
    let figures = json!({ "connections": connections, "requests_per_node": requests,
        "start_ms": start, "client_percent": quiet[0].client_percent, "memory_kib": memory });
    table.note(name, &text, figures);
    let _ = runtime.shutdown().await;
}
