//! Every page of the dashboard over loopback, on a large stream.
//!
//! `cargo bench -p streamjobs-tests --bench dashboard`; `-- --entries 100000 --pending 10000` for a
//! shorter run. Reports the time of each page, the number of commands that the server ran for it (including
//! those in scripts), and the longest command.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark prints its results and fails by panicking"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use axum::Router;
use streamjobs::config::Start;
use streamjobs::{Client, StreamName};
use streamjobs_dashboard::{Access, Dashboard};
use streamjobs_tests::figures::median;
use streamjobs_tests::server::RedisServer;

const GROUP: &str = "/jobs/streams/orders/groups/work";

fn number(name: &str, default: usize) -> usize {
    let arguments = std::env::args().collect::<Vec<_>>();
    let place = arguments.iter().position(|argument| argument == name);
    place.and_then(|place| arguments.get(place + 1)?.parse().ok()).unwrap_or(default)
}

#[tokio::main]
async fn main() {
    let (entries, pending) = (number("--entries", 1_000_000), number("--pending", 100_000));
    let letters = number("--letters", 10_000);
    let server = RedisServer::start().unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let group = client.stream("orders").unwrap().group("work").unwrap();
    group.create(Start::Beginning).await.unwrap();
    fill(&server, entries, pending, letters);
    println!("{entries} entries, {pending} pending, {letters} dead letters");
    let all = |_: &axum::http::request::Parts| Ok(Access::read_only("me").payloads().allow_all());
    let streams = [StreamName::new("orders").unwrap()];
    let dashboard = Dashboard::builder(client, all).streams(streams).build();
    let app = Router::new().nest("/jobs", dashboard.router());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(async move { axum::serve(listener, app).await.unwrap() });
    let measure = tokio::task::spawn_blocking(move || report(&server, &address));
    measure.await.unwrap();
}

fn report(server: &RedisServer, address: &str) {
    let last = server.query::<String>(&["EVAL", LAST, "1", "orders"]);
    let paths = [
        "/jobs".to_owned(),
        "/jobs/processes".into(),
        "/jobs/alerts".into(),
        "/jobs/streams/orders".into(),
        "/jobs/streams/orders/replay?limit=200".into(),
        GROUP.into(),
        format!("{GROUP}/pending?limit=200"),
        format!("{GROUP}/pending?limit=200&idle=1"),
        format!("{GROUP}/pending?limit=200&after={last}"),
        format!("{GROUP}/retries"),
        format!("{GROUP}/dead?limit=200"),
    ];
    println!("{:<64} {:>9} {:>9} {:>9}", "page", "median", "slowest", "commands");
    for path in paths {
        let before = commands(server);
        let times = (0..20).map(|_| ask(address, &path)).collect::<Vec<_>>();
        let asked = (commands(server) - before) / 20;
        let slowest = times.iter().copied().max().unwrap_or_default();
        println!("{path:<64} {:>6.1} ms {:>6.1} ms {asked:>9}", ms(median(times)), ms(slowest));
    }
    println!("longest command of the server: {:.1} ms", slowest_command(server));
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// The time until a page has been received completely.
fn ask(address: &str, path: &str) -> Duration {
    let start = Instant::now();
    let mut connection = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{path}");
    start.elapsed()
}

fn commands(server: &RedisServer) -> u64 {
    let info = server.query::<String>(&["INFO", "commandstats"]);
    let rows = info.lines().filter(|line| !line.starts_with("cmdstat_info"));
    let calls =
        rows.filter_map(|line| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok());
    calls.sum()
}

/// The longest command in milliseconds since the stream was filled; commands below 1 ms count as zero.
fn slowest_command(server: &RedisServer) -> f64 {
    let log = server
        .query::<Vec<(u64, u64, u64, Vec<Vec<u8>>, String, String)>>(&["SLOWLOG", "GET", "100"]);
    log.iter().map(|entry| entry.2).max().unwrap_or(0) as f64 / 1_000.0
}

fn fill(server: &RedisServer, entries: usize, pending: usize, letters: usize) {
    for _ in 0..entries / LOT {
        server.command(&["EVAL", FILL, "1", "orders", &LOT.to_string()]);
    }
    for number in 0..pending / LOT {
        let (consumer, lot) = (format!("consumer-{}", number % 20), LOT.to_string());
        let words =
            ["XREADGROUP", "GROUP", "work", &consumer, "COUNT", &lot, "STREAMS", "orders", ">"];
        server.command(&words);
    }
    server.command(&["EVAL", STORE_DEAD_LETTER, "1", "{orders}:dead:work", &letters.to_string()]);
    server.command(&["CONFIG", "SET", "slowlog-log-slower-than", "1000"]);
    server.command(&["SLOWLOG", "RESET"]);
}

const LOT: usize = 5_000;
const FILL: &str = "for i = 1, tonumber(ARGV[1]) do
    redis.call('XADD', KEYS[1], '*', 'type', 'order.placed', 'data',
        '{\"order_id\":\"o-1234\",\"customer\":\"alice\",\"amount\":\"49.50\"}', 'sj-id', '0199ab3e-1111-7abc-8def-000000000001')
end";
const STORE_DEAD_LETTER: &str = "for i = 1, tonumber(ARGV[1]) do
    redis.call('XADD', KEYS[1], '*', 'sj-dead-reason', 'exhausted', 'sj-dead-error', 'order ' .. i .. ' not found',
        'sj-dead-attempts', '5', 'sj-dead-event', 'e' .. i, 'type', 'order.placed', 'data', '{\"a\":1}')
end";
/// The last pending id. Nothing is pending after it.
const LAST: &str = "return redis.call('XPENDING', KEYS[1], 'work')[3]";
