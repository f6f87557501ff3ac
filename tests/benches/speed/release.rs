//! How long the server is held up by a script of a clean stop, and of a hand-over, beside so many
//! pending entries.

use std::num::NonZeroU32;
use std::time::Duration;

use redis::Value;
use serde_json::json;
use streamjobs::config::GroupOptions;
use streamjobs::{ConsumerName, Runtime, State, handler, handlers};
use streamjobs_tests::server::RedisServer;

use crate::job::{Counter, Order};
use crate::table::Table;
use crate::work::server;
use crate::{Settings, by_hand, ours};

const PENDING: [usize; 3] = [1_000, 10_000, 100_000];
const RUNNING: usize = 500;

pub async fn run(settings: &Settings, table: &mut Table) {
    for pending in PENDING {
        let name = format!("release: {RUNNING} of {pending} pending");
        if !settings.wants(&name) {
            continue;
        }
        let [stop, hand_over] = release(pending).await;
        let text = format!("longest script: clean stop {stop} µs, hand-over {hand_over} µs");
        let figures = json!({ "pending": pending, "stop": stop, "hand_over": hand_over });
        table.note(&name, &text, figures);
    }
}

/// Runs until it is cut off.
#[handler(group = "bench")]
async fn endless(_order: Order, State(counter): State<Counter>) {
    counter.add();
    std::future::pending::<()>().await;
}

/// The microseconds of the longest script, of a stop that releases its jobs and of a hand-over of as many
/// entries of another consumer.
async fn release(pending: usize) -> [i64; 2] {
    let server = server(false);
    let (client, counter) = (ours::client(&server).await, Counter::expect(RUNNING));
    let slots = NonZeroU32::new(u32::try_from(RUNNING).unwrap()).unwrap();
    let options = GroupOptions::new().concurrency(slots).lease(Duration::from_secs(3_600));
    let builder = Runtime::builder(&client).handlers(handlers![endless]).state(counter.clone());
    let runtime = builder.grace(Duration::ZERO).group("bench", options).start().await.unwrap();
    by_hand::fill(&server, RUNNING, 150);
    counter.reached().await;
    by_hand::fill(&server, pending - RUNNING, 150);
    let read = ["XREADGROUP", "GROUP", "bench", "peer", "COUNT"];
    let count = pending.to_string();
    server.query::<Value>(&[&read[..], &[&count, "STREAMS", "orders", ">"]].concat());

    watch(&server);
    let report = runtime.shutdown().await;
    assert_eq!(report.released, RUNNING as u64);
    let stop = longest(&server);
    watch(&server);
    let group = client.stream("orders").unwrap().group("bench").unwrap();
    let peer = ConsumerName::new("peer").unwrap();
    let moved = group.hand_over(&peer, &ConsumerName::new("heir").unwrap()).await.unwrap();
    assert_eq!(moved.moved.len(), pending - RUNNING);
    [stop, longest(&server)]
}

fn watch(server: &RedisServer) {
    server.query::<()>(&["CONFIG", "SET", "slowlog-max-len", "100000"]);
    server.query::<()>(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    server.query::<()>(&["SLOWLOG", "RESET"]);
}

/// The microseconds of the longest script since then.
fn longest(server: &RedisServer) -> i64 {
    let lines: Vec<Vec<Value>> = server.query(&["SLOWLOG", "GET", "-1"]);
    let scripts = lines.into_iter().filter_map(|line| {
        let [_, _, micros, Value::Array(words), ..] = line.as_slice() else { return None };
        let name: String = redis::from_redis_value(words[0].clone()).unwrap();
        let is_script = name.eq_ignore_ascii_case("EVALSHA");
        is_script.then(|| redis::from_redis_value(micros.clone()).unwrap())
    });
    scripts.max().expect("a script was run")
}
