//! What many of something cost: held jobs, idle groups, a long backlog, pending entries of others,
//! a stream that is trimmed.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use serde_json::json;
use streamjobs::config::{GroupOptions, Retention};
use streamjobs::{Client, Runtime, State, handler, handlers};
use streamjobs_tests::server::RedisServer;
use tokio::sync::watch;

use crate::child::{Task, Worker};
use crate::job::{self, Counter, Order};
use crate::meter::{self, Cost, Meter};
use crate::table::Table;
use crate::work::server;
use crate::{Settings, by_hand, ours};

/// Several leases of the default 10 s, so that all are renewed many times.
const WATCHED: Duration = Duration::from_secs(45);
const BACKLOGS: [usize; 5] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];
/// What is drained of each backlog, by a new group each time.
const DRAINED: [usize; 2] = [10_000, 200_000];

pub async fn run(settings: &Settings, table: &mut Table) {
    if settings.wants("scale: renewals") {
        // One job has a group look after itself as many do: the difference is what renewing takes.
        for held in [1, 10_000 / settings.share] {
            renewals(held, table).await;
        }
    }
    if settings.wants("scale: idle") {
        idle(settings, table).await;
    }
    if settings.wants("scale: backlog") {
        backlog(settings, table).await;
    }
    if settings.wants("scale: pending") {
        pending(settings, table).await;
    }
    if settings.wants("scale: trimming") {
        trimming(settings, table).await;
    }
}

/// Holds its job until the end.
#[handler(group = "held")]
async fn hold(
    _order: Order,
    State(open): State<watch::Receiver<bool>>,
    State(counter): State<Counter>,
) {
    counter.add();
    let _gone = open.clone().wait_for(|open| *open).await.is_err();
}

async fn renewals(held: usize, table: &mut Table) {
    let server = server(false);
    by_hand::fill(&server, held, 150);
    let client = ours::client(&server).await;
    let (gate, open) = watch::channel(false);
    let counter = Counter::expect(held);
    let options = GroupOptions::new().concurrency(NonZeroU32::new(10_000).unwrap());
    let builder = Runtime::builder(&client).handlers(handlers![hold]);
    let builder = builder.state(counter.clone()).state(open).group("held", options);
    let runtime = builder.start().await.unwrap();
    counter.reached().await;
    let cost = watch_for(&server).await;
    gate.send_replace(true);
    let _ = runtime.shutdown().await;
    let (core, own) = (share(cost.server), share(cost.client));
    let text = format!(
        "{held} jobs held: server {core:.2} % of a core, client {own:.2} %, {:.1} commands/s",
        cost.commands as f64 / WATCHED.as_secs_f64()
    );
    let figures = json!({ "held": held, "server_percent": core, "client_percent": own });
    table.note("scale: renewals at the default lease", &text, figures);
}

/// Groups of one process that have nothing to do.
async fn idle(settings: &Settings, table: &mut Table) {
    for groups in [1, 100] {
        let groups = (groups / settings.share).max(1);
        let server = server(false);
        let mut process = Worker::start(&server, Task::Idle(groups));
        process.begin();
        let pid = process.pid();
        let idle = meter::while_quiet(&server, || meter::processor_time(&pid.to_string())).await;
        let connections = server.client_list().len();
        let memory = meter::memory(pid) / 1024;
        let each = groups as f64;
        let (requests, commands) = (idle.requests / each, idle.commands / each);
        let (core, own) = (idle.server_percent, idle.client_percent);
        let text = format!(
            "{groups} groups: {requests:.2} requests/s each, {commands:.2} commands with those of \
             scripts, server {core:.2} % of a core, client {own:.2} %, {memory} KiB, \
             {connections} connections"
        );
        let figures = json!({ "groups": groups, "requests_per_second": requests,
            "commands_per_second": commands, "server_percent": core, "client_percent": own,
            "memory_kib": memory, "connections": connections });
        table.note("scale: idle groups", &text, figures);
    }
}

/// How quickly the first entries of a backlog are done, from the start of the runtime on.
async fn backlog(settings: &Settings, table: &mut Table) {
    for entries in BACKLOGS.map(|entries| entries / settings.share) {
        let server = server(false);
        by_hand::fill(&server, entries, 150);
        let client = ours::client(&server).await;
        for wanted in DRAINED.into_iter().filter(|wanted| *wanted <= entries.max(10_000)) {
            let wanted = wanted.min(entries);
            let mut rates = Vec::new();
            // The first warms up.
            for round in 0..=settings.rounds {
                let cost = first_of(&server, &client, wanted, round).await;
                rates.extend((round > 0).then(|| wanted as f64 / cost.wall.as_secs_f64()));
            }
            rates.sort_by(f64::total_cmp);
            let (rate, least) = (rates[rates.len() / 2], rates[0]);
            let most = rates[rates.len() - 1];
            let text = format!(
                "the first {wanted} of {entries} waiting entries: {rate:.0}/s ({least:.0} to {most:.0})"
            );
            let figures = json!({ "entries": entries, "drained": wanted, "rate": rate,
                "rate_min": least, "rate_max": most });
            table.note("scale: backlog", &text, figures);
        }
    }
}

async fn first_of(server: &RedisServer, client: &Client, wanted: usize, round: usize) -> Cost {
    let counter = Counter::expect(wanted);
    let name = format!("drain-{wanted}-{round}");
    let options = GroupOptions::new().concurrency(NonZeroU32::new(1_000).unwrap());
    let builder = Runtime::builder(client).handlers([job::count_in(name.clone())]);
    let builder = builder.state(counter.clone()).group(name, options);
    let meter = Meter::start(server);
    let runtime = builder.start().await.unwrap();
    counter.reached().await;
    let cost = meter.stop();
    let _ = runtime.shutdown().await;
    cost
}

/// What it takes to watch entries that live consumers of other processes have.
async fn pending(settings: &Settings, table: &mut Table) {
    for entries in [1_000, 100_000, 1_000_000].map(|entries| entries / settings.share) {
        let server = server(false);
        by_hand::fill(&server, entries, 150);
        server.command(&["XGROUP", "CREATE", "orders", "bench", "0"]);
        let count = entries.to_string();
        let read = ["XREADGROUP", "GROUP", "bench", "other", "COUNT", &count, "STREAMS", "orders"];
        let script = "redis.call('XREADGROUP', unpack(ARGV)) return 0";
        server.command(&[&["EVAL", script, "1", "orders"], &read[1..], &[">"]].concat());
        let client = ours::client(&server).await;
        let builder = Runtime::builder(&client).handlers(handlers![job::count]);
        // What was read by hand is not renewed, and with this lease nothing is idle yet.
        let options = GroupOptions::new().lease(Duration::from_secs(600));
        let builder = builder.state(Counter::default()).group("bench", options);
        let runtime = builder.start().await.unwrap();
        let began = Instant::now();
        let idle: Vec<redis::Value> =
            server.query(&["XPENDING", "orders", "bench", "IDLE", "600000", "-", "+", "1"]);
        let scan = began.elapsed();
        assert!(idle.is_empty());
        let cost = watch_for(&server).await;
        let _ = runtime.shutdown().await;
        let (core, scan) = (share(cost.server), scan.as_secs_f64() * 1e3);
        let text = format!(
            "{entries} entries pending elsewhere: server {core:.2} % of a core, one scan for idle \
             ones {scan:.1} ms"
        );
        let figures =
            json!({ "entries": entries, "server_percent": core, "scan_milliseconds": scan });
        table.note("scale: pending", &text, figures);
    }
}

/// Whether a drain notices that its stream is trimmed behind it.
async fn trimming(settings: &Settings, table: &mut Table) {
    let entries = 1_000_000 / settings.share;
    for (what, retention) in
        [("untrimmed", Retention::Unlimited), ("trimmed to the last 10,000", Retention::default())]
    {
        let server = server(false);
        by_hand::fill(&server, entries, 150);
        let client = Client::builder(&server.url()).retention_default(retention);
        let client = client.connect().await.unwrap();
        let counter = Counter::expect(entries);
        let builder = Runtime::builder(&client).handlers(handlers![job::count]);
        let options = GroupOptions::new().concurrency(NonZeroU32::new(1_000).unwrap());
        let builder = builder.state(counter.clone()).group("bench", options);
        let meter = Meter::start(&server);
        let runtime = builder.janitor_interval(Duration::from_millis(200)).start().await.unwrap();
        counter.reached().await;
        let cost = meter.stop();
        let _ = runtime.shutdown().await;
        let rate = entries as f64 / cost.wall.as_secs_f64();
        let (server_us, left) =
            (cost.server.as_secs_f64() * 1e6 / entries as f64, server.length("orders"));
        let text = format!(
            "{entries} entries, {what}: {rate:.0}/s, server {server_us:.2} us each, {left} left"
        );
        let figures = json!({ "entries": entries, "trimmed": what, "rate": rate,
            "server_us": server_us, "left": left });
        table.note("scale: trimming", &text, figures);
    }
}

async fn watch_for(server: &RedisServer) -> Cost {
    let meter = Meter::start(server);
    meter::pass(WATCHED).await;
    meter.stop()
}

fn share(time: Duration) -> f64 {
    time.as_secs_f64() / WATCHED.as_secs_f64() * 100.0
}
