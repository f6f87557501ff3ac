//! What many of something cost: held jobs, idle groups, a long backlog.

use std::num::NonZeroU32;
use std::time::Duration;

use serde_json::json;
use streamjobs::config::GroupOptions;
use streamjobs::{Runtime, State, handler, handlers};
use streamjobs_tests::server::RedisServer;
use tokio::sync::watch;

use crate::job::{self, Counter, Order};
use crate::meter::{Cost, Meter};
use crate::table::Table;
use crate::work::server;
use crate::{Settings, by_hand, ours};

/// Several leases of the default 10 s, so that all are renewed many times.
const WATCHED: Duration = Duration::from_secs(45);
const BACKLOGS: [usize; 3] = [10_000, 1_000_000, 10_000_000];
/// What is drained of each backlog.
const DRAINED: usize = 200_000;

pub async fn run(settings: &Settings, table: &mut Table) {
    if settings.wants("scale: renewals") {
        renewals(settings, table).await;
    }
    if settings.wants("scale: idle") {
        idle(settings, table).await;
    }
    if settings.wants("scale: backlog") {
        backlog(settings, table).await;
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

async fn renewals(settings: &Settings, table: &mut Table) {
    let held = 10_000 / settings.share;
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
        per_second(cost.commands)
    );
    let figures = json!({ "held": held, "server_percent": core, "client_percent": own });
    table.note("scale: renewals at the default lease", &text, figures);
}

/// Groups of one process that have nothing to do.
async fn idle(settings: &Settings, table: &mut Table) {
    for groups in [1, 100] {
        let groups = (groups / settings.share).max(1);
        let server = server(false);
        let client = ours::client(&server).await;
        let mut runtimes = Vec::new();
        for number in 0..groups {
            let [handler] = handlers![job::count];
            let group = Box::leak(format!("idle-{number}").into_boxed_str());
            let builder = Runtime::builder(&client).state(Counter::default());
            let handler = streamjobs::HandlerDef { group, ..handler };
            runtimes.push(builder.handlers([handler]).start().await.unwrap());
        }
        let cost = watch_for(&server).await;
        let connections = server.client_list().len();
        for runtime in runtimes {
            let _ = runtime.shutdown().await;
        }
        let each = per_second(cost.commands) / groups as f64;
        let (core, own) = (share(cost.server), share(cost.client));
        let text = format!(
            "{groups} groups: {each:.2} commands/s each, server {core:.2} % of a core, client {own:.2} %, {connections} connections"
        );
        let figures = json!({ "groups": groups, "commands_per_second": each,
            "server_percent": core, "client_percent": own, "connections": connections });
        table.note("scale: idle groups", &text, figures);
    }
}

async fn backlog(settings: &Settings, table: &mut Table) {
    for entries in BACKLOGS {
        let entries = entries / settings.share;
        let mut rates = Vec::new();
        for _ in 0..settings.rounds.min(3) {
            let server = server(false);
            by_hand::fill(&server, entries, 150);
            let wanted = entries.min(DRAINED);
            let client = ours::client(&server).await;
            let counter = Counter::expect(wanted);
            let builder = Runtime::builder(&client).handlers(handlers![job::count]);
            let options = GroupOptions::new().concurrency(NonZeroU32::new(1_000).unwrap());
            let meter = Meter::start(&server);
            let builder = builder.state(counter.clone()).group("bench", options);
            let runtime = builder.start().await.unwrap();
            counter.reached().await;
            rates.push(wanted as f64 / meter.stop().wall.as_secs_f64());
            let _ = runtime.shutdown().await;
        }
        rates.sort_by(f64::total_cmp);
        let rate = rates[rates.len() / 2];
        let text = format!("{entries} entries wait: {rate:.0}/s");
        let figures = json!({ "entries": entries, "rate": rate });
        table.note("scale: backlog", &text, figures);
    }
}

async fn watch_for(server: &RedisServer) -> Cost {
    let meter = Meter::start(server);
    tokio::time::sleep_until(tokio::time::Instant::now() + WATCHED).await;
    meter.stop()
}

fn share(time: Duration) -> f64 {
    time.as_secs_f64() / WATCHED.as_secs_f64() * 100.0
}

fn per_second(commands: u64) -> f64 {
    commands as f64 / WATCHED.as_secs_f64()
}
