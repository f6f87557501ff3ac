//! Several worker processes on one group.

use std::time::{Duration, Instant};

use serde_json::json;
use streamjobs_tests::server::RedisServer;

use crate::child::{Task, Worker};
use crate::meter::{self, Cost, Meter};
use crate::table::Table;
use crate::work::{Side, server};
use crate::{Settings, by_hand};

const EVENTS: usize = 200_000;
/// Of one of many processes.
const FEW_SLOTS: usize = 16;
const MANY: usize = 50;
/// Slots, events, and bytes of a payload.
const MEMORY: [(usize, usize, usize); 6] = [
    (1, 10_000, 150),
    (100, 200_000, 150),
    (1_000, 200_000, 150),
    (10_000, 200_000, 150),
    (1_000, 50_000, 2_048),
    (1_000, 4_000, 65_536),
];

pub async fn run(settings: &Settings, table: &mut Table) {
    let name = "two processes, 1000 in flight each";
    if settings.wants(name) {
        let events = EVENTS / settings.share;
        let (mut own, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..=settings.rounds {
            let sides = [Side::Ours, Side::ByHand];
            for side in if round % 2 == 0 { sides } else { [sides[1], sides[0]] } {
                let (cost, _) = drain(side, 2, 1_000, events, 150).await;
                let costs = if side == Side::Ours { &mut own } else { &mut theirs };
                costs.extend(Some(cost).filter(|_| round > 0));
            }
        }
        table.work(name, events, &own, &theirs);
    }
    if settings.wants("memory") {
        memory(settings, table).await;
    }
    if settings.wants("scale: processes") {
        many(settings, table).await;
    }
}

/// What it takes until the server has every acknowledgement, and the bytes of memory that the processes
/// had at most.
async fn drain(
    side: Side,
    processes: usize,
    slots: usize,
    events: usize,
    bytes: usize,
) -> (Cost, u64) {
    let server = server(false);
    by_hand::fill(&server, events, bytes);
    let mut workers = start(&server, side, processes, slots);
    let before = client_time(&workers);
    let meter = Meter::start(&server);
    workers.iter_mut().for_each(Worker::begin);
    drained(&server, if side == Side::Ours { "bench" } else { "hand" }).await;
    let client = client_time(&workers).saturating_sub(before);
    let cost = Cost { client, allocations: None, ..meter.stop() };
    (cost, workers.iter().map(|worker| meter::memory_peak(worker.pid())).sum())
}

/// The memory of a new process that drains, which nothing before it has touched.
async fn memory(settings: &Settings, table: &mut Table) {
    for (slots, events, bytes) in MEMORY {
        let (mut own, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..settings.rounds {
            own.push(drain(Side::Ours, 1, slots, events / settings.share, bytes).await.1);
            theirs.push(drain(Side::ByHand, 1, slots, events / settings.share, bytes).await.1);
        }
        let [own, theirs] = [own, theirs].map(|peaks| peaks.into_iter().max().unwrap() / 1024);
        let text = format!("{own} KiB at most, by hand {theirs} KiB");
        let figures = json!({ "slots": slots, "bytes": bytes, "memory_kib": own,
            "by_hand_memory_kib": theirs });
        table.note(&format!("memory: {slots} in flight of {bytes} bytes"), &text, figures);
    }
}

/// What one of many processes costs when there is work, and when there is no work.
async fn many(settings: &Settings, table: &mut Table) {
    let (server, events) = (server(false), EVENTS / settings.share);
    by_hand::fill(&server, events, 150);
    let mut workers = start(&server, Side::Ours, MANY, FEW_SLOTS);
    let began = Instant::now();
    workers.iter_mut().for_each(Worker::begin);
    drained(&server, "bench").await;
    let rate = events as f64 / began.elapsed().as_secs_f64();
    let idle = meter::while_quiet(&server, || client_time(&workers)).await;
    let memory = workers.iter().map(|worker| meter::memory(worker.pid())).sum::<u64>();
    let (each, memory) = (MANY as f64, memory / MANY as u64 / 1024);
    let (requests, core) = (idle.requests / each, idle.server_percent);
    let text = format!(
        "{MANY} processes of {FEW_SLOTS} slots: {rate:.0}/s; idle {requests:.2} requests/s each, \
         server {core:.2} % of a core, clients {:.2} %, {memory} KiB each",
        idle.client_percent
    );
    let figures = json!({ "processes": MANY, "rate": rate, "requests_per_second": requests,
        "server_percent": core, "client_percent": idle.client_percent, "memory_kib": memory });
    table.note("scale: processes of one group", &text, figures);
}

fn start(server: &RedisServer, side: Side, processes: usize, slots: usize) -> Vec<Worker> {
    (0..processes).map(|_| Worker::start(server, Task::Work(side, slots))).collect()
}

fn client_time(workers: &[Worker]) -> Duration {
    workers.iter().map(|worker| meter::processor_time(&worker.pid().to_string())).sum()
}

/// Waits until a group has read all and nothing is pending.
async fn drained(server: &RedisServer, group: &str) {
    const LEFT: &str = "local all = redis.call('XLEN', KEYS[1])
        for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
          if info[2] == ARGV[1] then return all - (info[10] or 0) + info[6] end
        end
        return all";
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    while server.query::<usize>(&["EVAL", LEFT, "1", "orders", group]) > 0 {
        ticks.tick().await;
    }
}
