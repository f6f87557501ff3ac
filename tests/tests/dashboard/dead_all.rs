//! The dead letters of all groups in one list.

use axum::Router;
use streamjobs::{Client, StreamName};
use streamjobs_dashboard::Dashboard;

use crate::site::{Answer, GROUP, Site, by_name};

/// A new dashboard of these streams.
fn fresh(site: Site, client: Client, streams: &[&str]) -> Site {
    let streams = streams.iter().map(|name| StreamName::new(*name).unwrap()).collect::<Vec<_>>();
    let dashboard = Dashboard::builder(client, by_name).streams(streams).build();
    Site { app: Router::new().nest("/jobs", dashboard.router()), ..site }
}

/// Stores letters with these ids in milliseconds.
fn store(site: &Site, key: &str, from: u64, to: u64, step: u64) {
    let script = "for i = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]) do
        redis.call('XADD', KEYS[1], i .. '-0', 'sj-dead-reason', ARGV[4], 'type', 't', 'data', '{}') end";
    let [from, to, step] = [from, to, step].map(|number| number.to_string());
    site.server.command(&["EVAL", script, "1", key, &from, &to, &step, "rejected"]);
}

/// The letters of a page with their groups.
fn rows(page: &Answer) -> Vec<(String, String)> {
    let name = |text: &str| text.split('"').next().unwrap().to_owned();
    let rows = page.text.split("data-letter=\"").skip(1);
    rows.map(|row| (name(row.split("data-group=\"").nth(1).unwrap()), name(row))).collect()
}

/// All pages, from one on.
async fn pages(site: &Site, first: &str) -> Vec<Vec<(String, String)>> {
    let (mut path, mut all) = (first.to_owned(), Vec::new());
    loop {
        let page = site.get(&path).await;
        all.push(rows(page.is(200)));
        let Some(next) = page.text.split("rel=\"next\" href=\"").nth(1) else { return all };
        let query = next.split('"').next().unwrap().split_once('?').unwrap().1;
        path = format!("/jobs/dead?{}", query.replace("&amp;", "&"));
    }
}

#[tokio::test]
async fn letters_of_all_groups_are_listed_newest_first_each_once() {
    let site = Site::start().await;
    site.server.command(&["XGROUP", "CREATE", "orders", "audit", "0"]);
    site.server.command(&["XGROUP", "CREATE", "mail", "send", "0", "MKSTREAM"]);
    store(&site, "{orders}:dead:work", 1, 120, 1);
    store(&site, "{orders}:dead:audit", 50, 60, 1);
    store(&site, "{mail}:dead:send", 100, 200, 10);
    let client = site.client.clone();
    let site = fresh(site, client, &["orders", "mail"]);
    let pages = pages(&site, "/jobs/dead").await;
    assert_eq!(pages[0][0], ("send".to_owned(), "200-0".to_owned()));
    assert!(pages.len() >= 3 && pages.iter().all(|page| page.len() <= 52), "{pages:?}");
    let all = pages.concat();
    let number = |(_, id): &(String, String)| id.split('-').next().unwrap().parse::<u64>().unwrap();
    assert!(all.is_sorted_by_key(|row| std::cmp::Reverse(number(row))), "{all:?}");
    let distinct = all.iter().collect::<std::collections::BTreeSet<_>>();
    assert_eq!((all.len(), distinct.len()), (120 + 11 + 11, 120 + 11 + 11));

    let page = site.get("/jobs/dead?q=MAIL").await;
    assert_eq!(rows(&page).len(), 11);
    page.says("send on mail").says_not("data-group=\"work\"");
    site.get("/jobs/dead?reason=exhausted").await.is(200).says("None of the letters that were");
    site.get("/jobs/dead?before=x").await.is(400);
    site.get("/jobs/dead?set=x").await.is(400);
    // A letter leads to its page and is redriven from its row, with the permission.
    let page = site.get("/jobs/dead").await;
    page.says("streams/mail/groups/send/dead/200-0\"").says("groups/send/dead/redrive\"");
    site.get_as("guest", "/jobs/dead").await.is(200).says_not("dead/redrive");
    let path = GROUP.replace("orders", "mail").replace("work", "send");
    site.post(&format!("{path}/dead/redrive"), &[("id", "200-0")]).await.is(303);
    assert_eq!(rows(&site.get("/jobs/dead").await).len(), 50);
    assert_ne!(rows(&site.get("/jobs/dead").await)[0].1, "200-0");
}

#[tokio::test]
async fn letters_of_two_partitions_with_one_id_are_on_one_page() {
    let site = Site::start().await;
    let client = Client::builder(&site.server.url()).partitions("orders", 3);
    let client = client.connect().await.unwrap();
    client
        .stream("orders")
        .unwrap()
        .group("work")
        .unwrap()
        .create(Default::default())
        .await
        .unwrap();
    for key in ["{orders}:dead:work", "orders:p1:{1801}:dead:work", "orders:p2:{22348}:dead:work"] {
        store(&site, key, 1, 40, 1);
    }
    let site = fresh(site, client, &["orders"]);
    let pages = pages(&site, "/jobs/dead").await;
    let all = pages.concat();
    let distinct = all.iter().collect::<std::collections::BTreeSet<_>>();
    assert_eq!((all.len(), distinct.len()), (120, 120), "{pages:?}");
    for page in &pages {
        let last = page.last().unwrap().1.split('@').next().unwrap().to_owned();
        let same = page.iter().filter(|(_, id)| id.split('@').next() == Some(&last));
        assert_eq!(same.count(), 3, "a page ends between two ids");
    }
}

#[tokio::test]
async fn many_groups_with_letters_are_read_twenty_at_a_time() {
    let site = Site::start().await;
    for number in 0..45 {
        let group = format!("g{number:02}");
        site.server.command(&["XGROUP", "CREATE", "orders", &group, "0"]);
        store(&site, &format!("{{orders}}:dead:{group}"), 1, 3, 1);
    }
    let client = site.client.clone();
    let site = fresh(site, client, &["orders"]);
    let mut groups = std::collections::BTreeSet::new();
    for set in 1..=3 {
        let before = scripts(&site);
        let pages = pages(&site, &format!("/jobs/dead?set={set}")).await;
        assert!(scripts(&site) - before <= 20 * pages.len() as u64 + 3 * 50, "set {set}");
        groups.extend(pages.concat().into_iter().map(|(group, _)| group));
    }
    assert_eq!(groups.len(), 45);
    site.get("/jobs/dead?set=3").await.says("3 of 3").says_not("Next groups");
    assert_eq!(rows(&site.get("/jobs/dead?q=g44").await).len(), 3);
}

fn scripts(site: &Site) -> u64 {
    let info = site.server.query::<String>(&["INFO", "commandstats"]);
    let calls = info.split("cmdstat_evalsha:calls=").nth(1).unwrap_or("0,");
    calls.split(',').next().unwrap().parse().unwrap()
}
