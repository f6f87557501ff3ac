//! The table of all groups: its order, its filter, its sums, and what it costs with many groups.

use std::collections::BTreeMap;

use axum::Router;
use streamjobs::StreamName;
use streamjobs_dashboard::Dashboard;
use streamjobs_tests::eventually::eventually_async;

use crate::site::{Answer, DEADLINE, Site, by_name};

/// A new dashboard of these streams, whose first page takes a snapshot.
fn fresh(site: Site, streams: &[&str]) -> Site {
    let streams = streams.iter().map(|name| StreamName::new(*name).unwrap()).collect::<Vec<_>>();
    let dashboard = Dashboard::builder(site.client.clone(), by_name).streams(streams).build();
    Site { app: Router::new().nest("/jobs", dashboard.router()), ..site }
}

/// Creates groups in one request.
fn create_groups(site: &Site, stream: &str, from: usize, to: usize) {
    let script = "for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do
        redis.call('XGROUP', 'CREATE', KEYS[1], string.format('g%04d', i), '0', 'MKSTREAM') end";
    let (from, to) = (from.to_string(), to.to_string());
    site.server.command(&["EVAL", script, "1", stream, &from, &to]);
}

/// The names of the groups in the order of their rows, with their streams.
fn rows(page: &Answer) -> Vec<String> {
    let rows = page.text.split("data-group=\"").skip(1);
    let name = |text: &str| text.split('"').next().unwrap().to_owned();
    rows.map(|row| {
        let stream = row.split("data-stream=\"").nth(1).unwrap();
        format!("{}/{}", name(stream), name(row))
    })
    .collect()
}

/// The sums at the foot, by their column.
fn sums(page: &Answer) -> BTreeMap<String, String> {
    let foot = page.text.split("id=\"sums\"").nth(1).unwrap().split("</tr>").next().unwrap();
    let cells = foot.split("data-label=\"").skip(1);
    cells
        .map(|cell| {
            let (label, rest) = cell.split_once("\">").unwrap();
            let text = rest.split('<').next().unwrap();
            (label.to_owned(), text.trim().to_owned())
        })
        .collect()
}

/// Two streams: three entries in `orders` for two groups, one in `mail` for one.
async fn two_streams() -> Site {
    let site = Site::start().await;
    for _ in 0..3 {
        site.append("order.placed", "{}");
    }
    site.server.command(&["XGROUP", "CREATE", "orders", "audit", "$"]);
    site.server.command(&["XGROUP", "CREATE", "mail", "send", "0", "MKSTREAM"]);
    site.server.command(&["XADD", "mail", "*", "type", "t", "data", "{}"]);
    site.deliver("ghost", 1);
    site.store_dead_letter("no", "{}");
    fresh(site, &["orders", "mail", "missing"])
}

#[tokio::test]
async fn groups_of_all_streams_are_in_one_table_sorted_filtered_and_summed() {
    let site = two_streams().await;
    let page = site.get("/jobs").await;
    assert_eq!(rows(&page), ["mail/send", "orders/audit", "orders/work"]);
    assert_eq!(page.text.matches("<table").count(), 1);
    page.is(200).says("This stream does not exist yet");
    let of = |sums: &BTreeMap<String, String>, name: &str| sums[name].clone();
    let all = sums(&page);
    let names = ["Waiting", "Pending", "Retries", "Dead letters"];
    assert_eq!(names.map(|name| of(&all, name)), ["3", "1", "0", "1"]);
    assert_eq!(of(&all, "Sum of"), "3 groups");

    for (query, expected) in [
        ("sort=waiting", ["orders/work", "mail/send", "orders/audit"]),
        ("sort=waiting&order=asc", ["orders/audit", "mail/send", "orders/work"]),
        ("sort=group", ["orders/audit", "mail/send", "orders/work"]),
        ("sort=group&order=desc", ["orders/work", "mail/send", "orders/audit"]),
        ("sort=dead", ["orders/work", "mail/send", "orders/audit"]),
        ("sort=stream&order=desc", ["orders/audit", "orders/work", "mail/send"]),
    ] {
        let page = site.get(&format!("/jobs/overview?{query}")).await;
        assert_eq!(rows(page.is(200)), expected, "{query}");
    }
    // The link of the sorted column turns the order round; the filter stays.
    let page = site.get("/jobs/overview?sort=waiting&q=OR&state=problems").await;
    page.says("aria-sort=\"descending\"");
    page.says("overview?q=OR&amp;state=problems&amp;sort=waiting&amp;order=asc\"");
    page.says("name=\"sort\" value=\"waiting\"").says("name=\"q\" value=\"OR\"");
    assert_eq!(rows(&page), ["orders/work"], "it has no consumer");
    assert_eq!(of(&sums(&page), "Waiting"), "2", "the sums are of the rows that match");
    let healthy = site.get("/jobs?state=healthy").await;
    assert_eq!(rows(&healthy), ["orders/audit"]);
    site.get("/jobs?q=nothing").await.is(200).says("No groups match the filter.");
    for query in ["sort=x", "order=x", "state=x", "page=x"] {
        site.get(&format!("/jobs?{query}")).await.is(400);
    }
    // The page of a stream has the same table of its own groups.
    let page = site.get("/jobs/streams/orders?sort=waiting&order=asc").await;
    assert_eq!(rows(&page), ["orders/audit", "orders/work"]);
    page.says("streams/orders?sort=waiting&amp;order=desc\"").says_not("sort=stream");
}

#[tokio::test]
async fn a_stream_that_cannot_be_read_hides_no_other_and_its_error_is_shown_once() {
    let site = two_streams().await;
    site.server.command(&["SET", "broken", "text"]);
    let site = fresh(site, &["broken", "orders", "mail"]);
    for path in ["/jobs", "/jobs/processes", "/jobs/alerts"] {
        let page = site.get(path).await;
        page.is(200).says("cannot read stream broken");
        assert_eq!(page.text.matches("role=\"alert\"").count(), 1, "{path}");
    }
    let page = site.get("/jobs").await;
    assert_eq!(rows(&page), ["mail/send", "orders/audit", "orders/work"]);
}

#[tokio::test]
async fn the_requests_of_the_overview_are_bounded_with_one_group_thirty_and_a_thousand() {
    let mut site = Site::start().await;
    let mut scripts = Vec::new();
    for (from, to) in [(1, 29), (30, 999), (1_000, 1_999)] {
        site = fresh(site, &["orders"]);
        scripts.push(scripts_of(&site, "/jobs").await);
        create_groups(&site, "orders", from, to);
    }
    site = fresh(site, &["orders"]);
    scripts.push(scripts_of(&site, "/jobs").await);
    let [one, thirty, thousand, two_thousand] = scripts[..] else { panic!("{scripts:?}") };
    assert!(one < 10 && thirty < 100, "{scripts:?}");
    assert!(thousand <= 300 && thousand == two_thousand, "{scripts:?}");
    let page = site.get("/jobs").await;
    page.says("There are many groups").says("Not all groups were read yet.");
    assert!(page.text.len() < 300_000, "{} bytes", page.text.len());
}

#[tokio::test]
async fn the_requests_of_the_page_of_an_event_are_bounded_with_a_thousand_groups() {
    let site = Site::start().await;
    let id = site.append("order.placed", "{}");
    for path in [format!("event?id={id}"), "event?id=nothing".to_owned()] {
        let path = format!("/jobs/streams/orders/{path}");
        let groups = site.client.stream("orders").unwrap().group_names().await.unwrap().len();
        create_groups(&site, "orders", groups, groups + 60);
        let few = scripts_of(&site, &path).await;
        create_groups(&site, "orders", groups + 61, groups + 940);
        assert_eq!(scripts_of(&site, &path).await, few, "{path}");
        let left = groups + 941 - 50;
        if path.ends_with(&id) {
            site.get(&path).await.says(&format!("{left} more groups were not asked."));
        }
    }
}

/// How many scripts the server ran for a page: of the overview, two or three for each group that is read.
async fn scripts_of(site: &Site, path: &str) -> u64 {
    site.server.command(&["CONFIG", "RESETSTAT"]);
    site.get(path).await.is(200);
    let info = site.server.query::<String>(&["INFO", "commandstats"]);
    let calls = info.split("cmdstat_evalsha:calls=").nth(1).unwrap();
    calls.split(',').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn more_groups_than_one_update_reads_are_read_in_turn_and_shown_page_by_page() {
    let site = Site::start().await;
    create_groups(&site, "orders", 1, 150);
    create_groups(&site, "mail", 1, 30);
    let site = fresh(site, &["orders", "mail"]);
    site.get("/jobs").await.says("Not all groups were read yet.").says("≥ 98 groups");
    let complete = async || {
        let page = site.get("/jobs").await;
        !page.text.contains("Not all groups") && sums(&page)["Sum of"] == "181 groups"
    };
    eventually_async(DEADLINE, "all groups were read", complete).await;
    let first = site.get("/jobs/overview?sort=group").await;
    first.says("Page 1 of 2").says("rel=\"next\"").says("sort=group&amp;page=2\"");
    let second = site.get("/jobs/overview?sort=group&page=2").await;
    second.says("Page 2 of 2").says("rel=\"prev\"");
    let shown = [rows(&first), rows(&second)].concat();
    assert_eq!((rows(&first).len(), shown.len()), (100, 181));
    let names = shown.iter().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(names.len(), 181, "each group is shown once");
    // A group that is gone leaves the table.
    site.server.command(&["XGROUP", "DESTROY", "orders", "g0150"]);
    let gone = async || sums(&site.get("/jobs").await)["Sum of"] == "180 groups";
    eventually_async(DEADLINE, "the group is gone", gone).await;
}
