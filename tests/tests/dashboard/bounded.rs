//! The number of a page's requests does not grow with the data, nor its bytes with the payloads.

use std::collections::BTreeMap;

use crate::site::{GROUP, Site};

const PAGES: [&str; 17] = [
    "/jobs",
    "/jobs/processes",
    "/jobs/trends?range=7d",
    "/jobs/alerts",
    "/jobs/dead",
    "/jobs/streams/orders",
    "/jobs/streams/orders/replay",
    "/jobs/streams/orders/scheduled",
    "/jobs/streams/orders/schedules",
    "/jobs/streams/orders/groups/work",
    "/jobs/streams/orders/groups/work/pending",
    "/jobs/streams/orders/groups/work/pending?idle=100000",
    "/jobs/streams/orders/groups/work/pending?deliveries=7&consumer=ghost",
    "/jobs/streams/orders/groups/work/retries",
    "/jobs/streams/orders/groups/work/finished",
    "/jobs/streams/orders/groups/work/finished?key=alice",
    "/jobs/streams/orders/groups/work/dead",
];

/// Pages that compare up to a thousand rows of each list.
const SEARCHES: [&str; 2] = [
    "/jobs/streams/orders/event?id=nothing",
    "/jobs/streams/orders/event?id=0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
];

/// How often the server ran each command, those in scripts included.
fn calls(site: &Site) -> BTreeMap<String, u64> {
    let info = site.server.query::<String>(&["INFO", "commandstats"]);
    let rows = info.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(':'));
    let rows = rows.filter(|(name, _)| !["info", "config|resetstat", "ping"].contains(name));
    rows.map(|(name, facts)| {
        let calls = facts.strip_prefix("calls=").unwrap().split(',').next().unwrap();
        (name.to_owned(), calls.parse().unwrap())
    })
    .collect()
}

pub async fn calls_of(site: &Site, path: &str) -> BTreeMap<String, u64> {
    site.server.command(&["CONFIG", "RESETSTAT"]);
    site.get(path).await.is(200);
    calls(site)
}

/// What the server has sent to its clients.
fn bytes_sent(site: &Site) -> u64 {
    site.server.info("total_net_output_bytes").unwrap().parse().unwrap()
}

/// A new dashboard on the same server, because a snapshot is shared for two seconds.
pub fn fresh(site: Site) -> Site {
    let streams = [streamjobs::StreamName::new("orders").unwrap()];
    let client = site.client.clone();
    let dashboard = streamjobs_dashboard::Dashboard::builder(client, crate::site::by_name);
    let app = axum::Router::new().nest("/jobs", dashboard.streams(streams).build().router());
    Site { app, ..site }
}

/// If the server's own lag is unreliable, up to 1,000 entries are counted, so there are more than that
/// from the start.
#[tokio::test]
async fn the_requests_of_a_page_do_not_grow_with_the_data() {
    let mut site = fresh(Site::start().await);
    fill(&site, 1_500, 300);
    let mut few = Vec::new();
    for path in PAGES {
        site = fresh(site);
        few.push(calls_of(&site, path).await);
    }
    fill(&site, 30_000, 20_000);
    for (path, few) in PAGES.into_iter().zip(few) {
        site = fresh(site);
        let many = calls_of(&site, path).await;
        assert_eq!(many, few, "{path}");
        assert!(many.values().sum::<u64>() < 300, "{path}: {many:?}");
    }
    assert!(site.get(&format!("{GROUP}/pending?limit=100000")).await.text.len() < 200_000);
}

#[tokio::test]
async fn the_requests_of_a_search_for_an_event_do_not_grow_with_the_data() {
    let mut site = fresh(Site::start().await);
    fill(&site, 1_500, 300);
    let mut few = Vec::new();
    for path in SEARCHES {
        few.push(calls_of(&site, path).await);
    }
    fill(&site, 30_000, 20_000);
    for (path, few) in SEARCHES.into_iter().zip(few) {
        site = fresh(site);
        let many = calls_of(&site, path).await;
        assert_eq!(many, few, "{path}");
        // Most of them run within a few scripts.
        assert!(many.values().sum::<u64>() < 1_700, "{path}: {many:?}");
        assert!(many["evalsha"] < 15, "{path}: {many:?}");
    }
}

/// Sixty payloads of a megabyte: a page that moved those that it does not show would have 10 MB or more.
#[tokio::test]
async fn the_bytes_of_a_page_do_not_grow_with_the_payloads() {
    let mut site = fresh(Site::start().await);
    let payload = format!("{{\"note\":\"{}\"}}", "x".repeat(1_000_000));
    for number in 0..30 {
        site.append("order.placed", &payload);
        site.store_dead_letter(&format!("order {number} failed"), &payload);
    }
    site.deliver("ghost", 5);
    for path in PAGES.into_iter().chain(SEARCHES) {
        site = fresh(site);
        let before = bytes_sent(&site);
        let page = site.get(path).await;
        let sent = bytes_sent(&site) - before;
        assert!(sent < 500_000, "{path}: {sent} bytes");
        assert!(page.is(200).text.len() < 500_000, "{path}: {} bytes", page.text.len());
    }
    // The list is complete although a page of large letters ends early.
    let (mut path, mut listed) = (format!("{GROUP}/dead"), 0);
    loop {
        let page = site.get(&path).await;
        page.says("976 KiB");
        listed += page.text.matches("data-letter=").count();
        let Some(next) = page.text.split("dead?before=").nth(1) else { break };
        path = format!("{GROUP}/dead?before={}", next.split('"').next().unwrap());
    }
    assert_eq!(listed, 30);
}

#[tokio::test]
async fn a_filter_scans_a_bounded_part_for_each_page_and_finds_late_entries() {
    let site = fresh(Site::start().await);
    fill(&site, 3_000, 3_000);
    let far = site.server.pending("orders", "work").pop().unwrap().id;
    site.server.age("orders", "work", &far, std::time::Duration::from_secs(500));
    let (mut path, mut pages) = (format!("{GROUP}/pending?idle=400"), 0);
    let found = loop {
        let page = site.get(&path).await;
        pages += 1;
        if page.text.contains(&format!("data-entry=\"{far}\"")) {
            break pages;
        }
        let next = page.is(200).text.split("pending?after=").nth(1).unwrap();
        path = format!("{GROUP}/pending?after={}&idle=400", next.split('&').next().unwrap());
    };
    assert_eq!(found, 3, "a thousand at a time");
}

/// Appends entries, delivers some of them, and stores as many dead letters.
fn fill(site: &Site, entries: usize, pending: usize) {
    let script = "for i = 1, tonumber(ARGV[1]) do redis.call('XADD', KEYS[1], '*', 'type', 'order.placed', 'data', '{}') \
                  redis.call('XADD', KEYS[2], '*', 'sj-dead-reason', 'exhausted', 'sj-dead-error', 'order ' .. i .. ' failed', 'type', 't')
                  local due = redis.call('TIME')[1] * 1000 + 3600000 + i
                  local record = {'type', 't', 'data', '{}', 'sj-due', string.format('%.0f', due)}
                  redis.call('HSET', KEYS[4], 'e-' .. i, cmsgpack.pack(record))
                  redis.call('ZADD', KEYS[3], due, 'e-' .. i) end";
    let entries = entries.to_string();
    let keys = ["orders", "{orders}:dead:work", "{orders}:later", "{orders}:later-records"];
    let words = ["EVAL", script, "4"];
    site.server.command(&[&words[..], &keys[..], &[&entries]].concat());
    site.deliver("ghost", pending);
}
