//! A stream that is spread over partitions: one row in the overview, and actions in the right partition.

use std::sync::Arc;

use axum::Router;
use streamjobs::config::Start;
use streamjobs::{Client, StreamName};
use streamjobs_dashboard::Dashboard;
use streamjobs_tests::server::RedisServer;

use crate::site::{GROUP, Site, by_name};

const NAMES: [&str; 3] = ["orders", "orders:p1:{1801}", "orders:p2:{22348}"];

/// A dashboard of a stream with three partitions. In the first two, an entry with the same id is pending.
async fn site() -> Site {
    let server = RedisServer::start().unwrap();
    let client = Client::builder(&server.url()).partitions("orders", 3).connect().await.unwrap();
    let streams = [StreamName::new("orders").unwrap()];
    let dashboard = Dashboard::builder(client.clone(), by_name).streams(streams).build();
    let app = Router::new().nest("/jobs", dashboard.router());
    let site = Site { server, client, app, done: Arc::default() };
    site.group().create(Start::Beginning).await.unwrap();
    for (name, ids) in NAMES.into_iter().zip([&["1-0", "2-0"][..], &["1-0"], &["3-0"]]) {
        for id in ids {
            site.server.command(&["XADD", name, id, "type", "order.placed", "data", "{}"]);
        }
    }
    for name in &NAMES[..2] {
        let words = ["XREADGROUP", "GROUP", "work", "web-1", "COUNT", "1", "STREAMS", name, ">"];
        site.server.command(&words);
    }
    site
}

fn letter(site: &Site, key: &str) {
    let words = ["XADD", key, "5-0", "sj-dead-reason", "exhausted", "type", "order.placed"];
    site.server.command(&[&words[..], &["data", "{}"]].concat());
}

#[tokio::test]
async fn the_overview_has_one_row_for_the_stream_and_its_page_one_for_each_partition() {
    let site = site().await;
    let overview = site.get("/jobs").await;
    assert_eq!(overview.text.matches("data-group=\"work\"").count(), 1);
    overview.says_not("orders:p1");
    let page = site.get("/jobs/streams/orders").await;
    page.is(200).says("<dd id=\"length\">4</dd>").says("<dd id=\"parts\">3</dd>");
    let rows = page.text.split("data-partition=").skip(1).collect::<Vec<_>>();
    assert_eq!(rows.len(), 3);
    for (row, (name, figures)) in
        rows.iter().zip(NAMES.into_iter().zip([["2", "1", "1"], ["1", "0", "1"], ["1", "1", "0"]]))
    {
        let cells = row.split("<td class=\"number\">").skip(2).take(3);
        let cells = cells.map(|cell| cell.split('<').next().unwrap().trim());
        assert_eq!(cells.collect::<Vec<_>>(), figures, "{name}: {row}");
        assert!(row.contains(name), "{row}");
    }
    // Entries are named with their partitions, also across pages.
    page.says("1-0@1").says("3-0@2");
    let replay = site.get("/jobs/streams/orders/replay?limit=1").await;
    replay.is(200).says("1-0@0").says("start=%281-0%400").says_not("1-0@1");
    let rest = site.get("/jobs/streams/orders/replay?start=(1-0@0").await;
    rest.says("1-0@1").says_not(">1-0@0<");
    site.get(GROUP).await.says("id=\"parts\"");
}

#[tokio::test]
async fn an_action_on_a_row_reaches_its_partition() {
    let site = site().await;
    let pending = site.get(&format!("{GROUP}/pending")).await;
    pending.says("value=\"1-0@0\"").says("value=\"1-0@1\"");
    let released = site.post(&format!("{GROUP}/pending/release"), &[("id", "1-0@1")]).await;
    assert!(released.notice().starts_with("1 entries released"), "{released:?}");
    let owner = |name: &str| site.server.pending(name, "work")[0].consumer.clone();
    assert_eq!(owner(NAMES[0]), "web-1");
    assert_ne!(owner(NAMES[1]), "web-1");
    let twice = site.post(&format!("{GROUP}/pending/release"), &[("id", "1-0")]).await;
    twice.is(409).says("partitions 0, 1 of stream orders have an id 1-0");
    letter(&site, "{orders}:dead:work");
    letter(&site, "orders:p1:{1801}:dead:work");
    site.get(&format!("{GROUP}/dead/5-0@9")).await.is(404);
    let letters = site.get(&format!("{GROUP}/dead")).await;
    letters.says("5-0@0").says("5-0@1");
    site.get(&format!("{GROUP}/dead/5-0@1")).await.is(200).says("Dead letter 5-0@1");
    let purged = site.post(&format!("{GROUP}/dead/purge"), &[("id", "5-0@1")]).await;
    assert_eq!(purged.notice(), "Deleted 1 dead letters.");
    let lengths = ["{orders}:dead:work", "orders:p1:{1801}:dead:work"];
    assert_eq!(lengths.map(|key| site.server.length(key)), [1, 0]);
}

#[tokio::test]
async fn a_pause_reaches_every_partition_and_one_of_some_can_be_ended_or_completed() {
    let site = site().await;
    let second = site.client.stream("orders").unwrap().partitions().remove(1);
    second.group("work").unwrap().pause().await.unwrap();
    let page = site.get(GROUP).await;
    page.says("paused in 1").says("Resume").says("Pause work in all processes");
    site.post(&format!("{GROUP}/pause"), &[]).await;
    assert_eq!(site.group().info().await.unwrap().paused_in, 3);
    site.get(GROUP).await.says("Resume").says_not("Pause work in all processes");
    site.post(&format!("{GROUP}/resume"), &[]).await;
    assert_eq!(site.group().info().await.unwrap().paused, None);
}

#[tokio::test]
async fn the_names_of_groups_are_those_of_all_partitions() {
    let site = site().await;
    site.server.command(&["XGROUP", "CREATE", NAMES[2], "audit", "0"]);
    let orders = site.client.stream("orders").unwrap();
    let names = orders.group_names().await.unwrap();
    assert_eq!(names.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["audit", "work"]);
    let missing = site.client.stream("missing").unwrap().group_names().await;
    assert!(missing.unwrap_err().to_string().contains("there is no stream missing"));
}

#[tokio::test]
async fn the_page_of_a_stream_reads_a_bounded_number_of_groups_in_its_partitions() {
    let site = site().await;
    let script = "for i = 1, 400 do redis.call('XGROUP', 'CREATE', KEYS[1], 'g' .. i, '0') end";
    for name in NAMES {
        site.server.command(&["EVAL", script, "1", name]);
    }
    site.server.command(&["CONFIG", "RESETSTAT"]);
    let page = site.get("/jobs/streams/orders").await;
    assert_eq!(page.is(200).text.matches("data-partition=").count(), 3);
    page.says("the partitions have more than 1,000 groups together");
    let info = site.server.query::<String>(&["INFO", "commandstats"]);
    let scripts = info.split("cmdstat_evalsha:calls=").nth(1).unwrap().split(',').next().unwrap();
    // An update of the table of groups reads 99 of them, each with two or three scripts in every partition.
    assert!(scripts.parse::<u64>().unwrap() < 99 * 3 * 3 + 50, "{scripts}");
}
