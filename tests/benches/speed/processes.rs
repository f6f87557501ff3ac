//! Several worker processes on one group.

use std::time::{Duration, Instant};

use serde_json::json;
use streamjobs_tests::server::RedisServer;

use crate::child::Worker;
use crate::meter::{self, Cost, Meter};
use crate::table::Table;
use crate::work::{Side, server};
use crate::{Settings, by_hand};

const EVENTS: usize = 200_000;
/// Of one of many processes.
const FEW_SLOTS: usize = 16;
const MANY: usize = 50;

pub async fn run(settings: &Settings, table: &mut Table) {
    let name = "two processes, 1000 in flight each";
    if settings.wants(name) {
        let events = EVENTS / settings.share;
        let (mut own, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..=settings.rounds {
            let sides = [Side::Ours, Side::ByHand];
            for side in if round % 2 == 0 { sides } else { [sides[1], sides[0]] } {
                let cost = drain(side, 2, 1_000, events).await;
                let costs = if side == Side::Ours { &mut own } else { &mut theirs };
                costs.extend(Some(cost).filter(|_| round > 0));
            }
        }
        table.work(name, events, &own, &theirs);
    }
    if settings.wants("scale: processes") {
        many(settings, table).await;
    }
}

/// Until the server has every acknowledgement.
async fn drain(side: Side, processes: usize, slots: usize, events: usize) -> Cost {
    let server = server(false);
    by_hand::fill(&server, events, 150);
    let mut workers = start(&server, side, processes, slots);
    let before = client_time(&workers);
    let meter = Meter::start(&server);
    workers.iter_mut().for_each(Worker::begin);
    drained(&server, if side == Side::Ours { "bench" } else { "hand" }).await;
    let client = client_time(&workers).saturating_sub(before);
    Cost { client, allocations: None, ..meter.stop() }
}

/// What one of many processes costs when there is work, and when there is none.
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
    (0..processes).map(|_| Worker::start(server, side, slots)).collect()
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
