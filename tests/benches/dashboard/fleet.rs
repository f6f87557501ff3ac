//! Many groups, on one stream or on many.

use streamjobs_tests::server::RedisServer;

use crate::Sizes;
use crate::site::{Known, REFRESHED, Site, heading, wait};
use crate::stream::trends;

pub async fn measure(sizes: Sizes, streams: usize) -> Vec<String> {
    let server = RedisServer::start().unwrap();
    let names = (0..streams).map(|number| format!("stream-{number:03}")).collect::<Vec<_>>();
    let groups = sizes.groups / streams;
    for name in &names {
        let keys = format!("{{{name}}}:");
        let words = ["EVAL", GROUPS, "2", name, &keys, &groups.to_string()];
        server.command(&words);
    }
    for number in 0..TRENDS {
        let (stream, group) = (number / groups, number % groups);
        trends(&server, &names[stream % streams], &format!("group-{group:04}"));
    }
    println!("\nRedis {}", server.info("redis_version").unwrap());
    let site = Site::start(server, &names, None).await;
    let all = groups * streams;
    let what = format!(
        "{all} groups on {streams} streams, each with a process, 10 pending entries and 5 dead letters"
    );
    tokio::task::spawn_blocking(move || report(&site, &what, all)).await.unwrap()
}

fn report(site: &Site, what: &str, groups: usize) -> Vec<String> {
    let group = "/jobs/streams/stream-000/groups/group-0000";
    let first = [
        "/jobs",
        "/jobs/processes",
        "/jobs/alerts",
        "/jobs/dead",
        "/jobs/trends?range=6h",
        "/jobs/trends?range=7d",
        "/jobs/streams/stream-000",
        "/jobs/streams/stream-000/event?id=e-7",
        "/jobs/streams/stream-000/event?id=nowhere",
        "/jobs/streams/stream-000/find?text=nowhere",
        group,
    ];
    heading(&format!("{what}. The first page of a dashboard that has just been started:"));
    let load = |path: &&str| site.measure(path, Known::Nothing, LOADS);
    let mut slow = first.iter().filter_map(load).collect::<Vec<_>>();
    site.forget();
    for _ in 0..groups / 50 {
        site.ask("/jobs");
        wait(REFRESHED);
    }
    let later = [
        "/jobs",
        "/jobs?sort=oldest&order=desc&page=10",
        "/jobs?q=group-0001",
        "/jobs?state=problems",
        "/jobs/processes",
        "/jobs/alerts",
        "/jobs/dead",
        "/jobs/dead?set=50",
        "/jobs/dead?q=group-0001&reason=crashed",
        "/jobs/streams/stream-000",
    ];
    heading("The same when it has read all of them, each load with an update:");
    let load = |path: &&str| site.measure(path, Known::Everything, UPDATES);
    slow.extend(later.iter().filter_map(load));
    slow
}

const LOADS: usize = 10;
/// Loads that wait until the state is read again.
const UPDATES: usize = 6;
/// Groups with charts: more than a page sums.
const TRENDS: usize = 60;

const GROUPS: &str = "local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000)
for i = 1, 100 do
    redis.call('XADD', KEYS[1], '*', 'type', 'order.placed', 'data', '{\"order_id\":\"o-1234\"}', 'sj-id', 'e-' .. i)
end
for i = 0, tonumber(ARGV[1]) - 1 do
    local group = string.format('group-%04d', i)
    redis.call('XGROUP', 'CREATE', KEYS[1], group, '0')
    redis.call('XREADGROUP', 'GROUP', group, 'web-' .. i, 'COUNT', 10, 'STREAMS', KEYS[1], '>')
    redis.call('HSET', KEYS[2] .. 'group:' .. group, 'floor', '0-0', 'beat:web-' .. i, now, 'about:web-' .. i,
        '{\"host\":\"web\",\"process\":' .. i .. ',\"version\":\"0.1.0\",\"started\":' .. now .. ',\"beat_every\":3333,\"lease\":10000,'
        .. '\"in_flight\":10,\"slots\":16,\"done\":12345,\"failed\":12,\"recent_done\":100,\"recent_failed\":1,\"claimed\":0,\"types\":[\"*\"]}',
        'type:*', now)
    for n = 1, 5 do
        redis.call('XADD', KEYS[2] .. 'dead:' .. group, '*', 'sj-dead-reason', 'exhausted', 'sj-dead-error', 'order not found',
            'sj-dead-attempts', '5', 'sj-dead-event', 'e-' .. n, 'type', 'order.placed', 'data', '{\"a\":1}')
    end
end";
