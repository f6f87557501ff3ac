//! One stream with many entries, and much of everything that a group can have.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use streamjobs::config::Start;
use streamjobs::schedule::Schedule;
use streamjobs::{Client, Event, EventId};
use streamjobs_tests::server::RedisServer;

use crate::Sizes;
use crate::site::{Known, Site, heading};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "reminder")]
struct Reminder {
    tenant: u64,
}

const STREAM: &str = "/jobs/streams/orders";
const GROUP: &str = "/jobs/streams/orders/groups/work";

pub async fn measure(sizes: Sizes) -> Vec<String> {
    let server = RedisServer::start().unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let group = client.stream("orders").unwrap().group("work").unwrap();
    group.create(Start::Beginning).await.unwrap();
    fill(&server, sizes.entries);
    define(&client).await;
    let site = Site::start(server, &["orders".to_owned()], None).await;
    heading(&format!(
        "A stream of {} entries: {} pending, {LISTED} retries, dead letters and scheduled events, {} notes of \
         finished jobs.",
        sizes.entries,
        sizes.entries / 10,
        sizes.entries / 10
    ));
    tokio::task::spawn_blocking(move || report(&site)).await.unwrap()
}

fn report(site: &Site) -> Vec<String> {
    let letter = site.server.query::<Vec<(String, Vec<String>)>>(&[
        "XREVRANGE",
        "{orders}:dead:work",
        "+",
        "-",
        "COUNT",
        "1",
    ]);
    let letter = &letter[0].0;
    let ends = site.server.query::<Vec<String>>(&["EVAL", ENDS, "1", "orders"]);
    let [last, middle] = &ends[..] else { panic!("{ends:?}") };
    let long_ago = EventId::generate();
    let mut paths = vec![
        "/jobs".to_owned(),
        "/jobs/processes".into(),
        "/jobs/alerts".into(),
        "/jobs/dead".into(),
        "/jobs/trends?range=6h".into(),
        "/jobs/trends?range=7d".into(),
        STREAM.into(),
        format!("{STREAM}/replay?limit=200"),
        format!("{STREAM}/replay?limit=200&start={middle}"),
        format!("{STREAM}/find?text=nowhere"),
        format!("{STREAM}/find?text=alice&limit=200"),
        format!("{STREAM}/find?text=nowhere&before={middle}"),
        format!("{STREAM}/event?id={middle}"),
        format!("{STREAM}/event?id=dead-{LISTED}"),
        format!("{STREAM}/event?id=retry-9"),
        format!("{STREAM}/event?id=nowhere"),
        format!("{STREAM}/event?id={long_ago}"),
        format!("{STREAM}/scheduled?limit=200"),
        format!("{STREAM}/schedules?limit=200"),
    ];
    for rest in [
        String::new(),
        "?range=6h".into(),
        "?range=7d".into(),
        "/pending?limit=200".into(),
        "/pending?limit=200&idle=100000".into(),
        format!("/pending?limit=200&after={last}"),
        "/pending?limit=200&consumer=consumer-7".into(),
        "/retries?limit=200".into(),
        "/finished?limit=200".into(),
        "/finished?limit=200&key=unknown".into(),
        "/dead?limit=200".into(),
        "/dead?limit=200&reason=crashed".into(),
        format!("/dead/{letter}"),
    ] {
        paths.push(format!("{GROUP}{rest}"));
    }
    paths.iter().filter_map(|path| site.measure(path, Known::Nothing, LOADS)).collect()
}

fn fill(server: &RedisServer, entries: usize) {
    let lot = LOT.to_string();
    for _ in 0..entries / LOT {
        server.command(&["EVAL", ENTRIES, "1", "orders", &lot]);
    }
    for number in 0..entries / 10 / LOT {
        let consumer = format!("consumer-{}", number % 20);
        let words =
            ["XREADGROUP", "GROUP", "work", &consumer, "COUNT", &lot, "STREAMS", "orders", ">"];
        server.command(&words);
        server.command(&["EVAL", FINISHED, "1", "{orders}:done:work", &lot]);
    }
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let history = history(time);
    let (listed, time) = (LISTED.to_string(), time.to_string());
    let keys = ["{orders}:dead:work", "{orders}:retry:work", "{orders}:retry-records:work"];
    let more = ["{orders}:later", "{orders}:later-records", "{orders}:cancelled"];
    let limits = ["{orders}:lines:work", "{orders}:turns:work", "{orders}:holds:work"];
    let words = [&["EVAL", LISTS, "9"], &keys[..], &more, &limits, &[&*listed, &*time, &*history]];
    server.command(&words.concat());
    trends(server, "orders", "work");
}

/// The last ten attempts of a job, as its fields carry them.
fn history(time: u128) -> String {
    let attempt = |number: u128| {
        let at = time - 600_000 + number * 1_000;
        format!(
            r#"{{"n":{number},"attempt":{number},"end":"failed","at":{at},"ms":3200,"by":"web-{number}","deliveries":1,"next":{},"error":"{}"}}"#,
            at + 900,
            "the bank refused the card: ".repeat(18)
        )
    };
    (1..=10).map(attempt).collect::<Vec<_>>().join("\n")
}

/// What a group did in every step of 6 hours and of 7 days, with times that are spread over a thousandfold.
pub fn trends(server: &RedisServer, stream: &str, group: &str) {
    for (ring, step, places) in [("minutes", "60", "360"), ("quarters", "900", "672")] {
        let key = format!("{{{stream}}}:trend-{ring}:{group}");
        server.command(&["EVAL", TRENDS, "1", &key, step, places]);
    }
}

async fn define(client: &Client) {
    let schedules = client.schedules("orders").unwrap();
    for number in 0..SCHEDULES {
        let name = format!("tenant-{number:03}");
        let schedule = Schedule::every(&name, Duration::from_secs(3_600 + number)).unwrap();
        let schedule = schedule.publishes(&Reminder { tenant: number }).unwrap();
        schedules.put(&schedule).await.unwrap();
    }
}

const LOADS: usize = 15;
const LOT: usize = 5_000;
/// Retries, dead letters, scheduled events, cancel marks, and jobs in lines.
const LISTED: usize = 10_000;
const SCHEDULES: u64 = 200;

const ENTRIES: &str = "local n = redis.call('XLEN', KEYS[1])
for i = n + 1, n + tonumber(ARGV[1]) do
    redis.call('XADD', KEYS[1], '*', 'type', 'order.placed', 'data',
        '{\"order_id\":\"o-' .. i .. '\",\"customer\":\"alice\",\"amount\":\"49.50\"}', 'sj-id', 'order-' .. i, 'sj-key', 'alice')
end";
const FINISHED: &str = "local n = redis.call('XLEN', KEYS[1])
for i = n + 1, n + tonumber(ARGV[1]) do
    redis.call('XADD', KEYS[1], '*', 'id', 'order-' .. i, 'type', 'order.placed', 'key', 'alice', 'origin', '1-7',
        'at', '1764000000000', 'ms', '3200', 'attempt', '2', 'by', 'web-1')
end";
const LISTS: &str = "local listed, time, history = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local function text(number) return string.format('%.0f', number) end
for i = 1, listed do
    redis.call('XADD', KEYS[1], '*', 'sj-dead-reason', 'exhausted', 'sj-dead-error', 'order ' .. i .. ' not found',
        'sj-dead-attempts', '5', 'sj-dead-deliveries', '5', 'sj-dead-event', 'dead-' .. i,
        'type', 'order.placed', 'data', '{\"a\":1}', 'sj-id', 'dead-' .. i, 'sj-history', history)
    local due = text(time + 3600000 + i)
    redis.call('ZADD', KEYS[2], due, 's:' .. i .. '-0')
    redis.call('HSET', KEYS[3], 's:' .. i .. '-0', cmsgpack.pack({'type', 'order.placed', 'data', '{\"a\":1}',
        'sj-id', 'retry-' .. i, 'sj-attempt', '2', 'sj-error', 'order ' .. i .. ' not found', 'sj-history', history}))
    redis.call('ZADD', KEYS[4], due, 'later-' .. i)
    redis.call('HSET', KEYS[5], 'later-' .. i,
        cmsgpack.pack({'type', 'order.placed', 'data', '{\"a\":1}', 'sj-id', 'later-' .. i, 'sj-due', due}))
    redis.call('ZADD', KEYS[6], text(time - listed + i), 'cancelled-' .. i)
    redis.call('ZADD', KEYS[7], 0, string.format('alice:%020.0f', i))
    redis.call('HSET', KEYS[9], 's:' .. text(time) .. '-' .. i, 'customer-' .. i)
end
redis.call('ZADD', KEYS[8], listed, 'alice')";
const TRENDS: &str = "local step, places = tonumber(ARGV[1]), tonumber(ARGV[2])
local times = {}
for bucket = 10, 30 do times[#times + 1] = bucket .. ':' .. (bucket * 7) end
local spread, now = table.concat(times, ','), math.floor(redis.call('TIME')[1] / step)
for number = now - places + 1, now do
    redis.call('HSET', KEYS[1], number % places,
        string.format('%.0f 2940 31 %.0f 3000 %s %s', number, number % 7, spread, spread))
end";
/// The last pending entry, and one in the middle of the stream.
const ENDS: &str = "local last, first = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][1], redis.call('XPENDING', KEYS[1], 'work')
local function ms(id) return tonumber(string.match(id, '^%d+')) end
local middle = string.format('%.0f-0', (ms(last) + ms(first[2])) / 2)
return {first[3], redis.call('XRANGE', KEYS[1], middle, '+', 'COUNT', 1)[1][1]}";
