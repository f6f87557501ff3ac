//! What pages show of the rest where a part cannot be read.

use axum::Router;
use streamjobs::{Client, StreamName};
use streamjobs_dashboard::Dashboard;
use streamjobs_tests::eventually::eventually_async;

use crate::site::{DEADLINE, Site, by_name};

/// A new dashboard of these streams, whose first page takes a snapshot.
fn fresh(site: Site, client: Client, streams: &[&str]) -> Site {
    let streams = streams.iter().map(|name| StreamName::new(*name).unwrap()).collect::<Vec<_>>();
    let dashboard = Dashboard::builder(client, by_name).streams(streams).build();
    Site { app: Router::new().nest("/jobs", dashboard.router()), ..site }
}

fn text_key(site: &Site, key: &str) {
    site.server.command(&["SET", key, "text"]);
}

#[tokio::test]
async fn streams_whose_keys_have_another_type_hide_no_stream_after_them() {
    let site = Site::start().await;
    let names = ["a", "b", "c", "d", "orders"];
    for name in &names[..4] {
        text_key(&site, name);
    }
    let client = site.client.clone();
    let site = fresh(site, client, &names);
    let page = site.get("/jobs").await;
    page.is(200).says("data-group=\"work\" data-stream=\"orders\"");
    for name in &names[..4] {
        page.says(&format!("cannot read stream {name}"));
    }
}

#[tokio::test]
async fn streams_that_were_not_tried_keep_what_was_read_and_are_tried_next() {
    let site = Site::start().await;
    let names = ["orders", "a", "b", "c"];
    for name in &names[1..] {
        site.server.command(&["XGROUP", "CREATE", name, "work", "0", "MKSTREAM"]);
    }
    let client = site.client.clone();
    let site = fresh(site, client, &names);
    let page = site.get("/jobs").await;
    assert_eq!(page.is(200).text.matches("data-group=\"work\"").count(), 4);
    site.server.kill();
    let kept = async || {
        let page = site.get("/jobs").await;
        let rows = page.text.matches("data-group=\"work\"").count();
        page.status == 200 && page.text.contains("id=\"not-tried\"") && (1..4).contains(&rows)
    };
    eventually_async(DEADLINE, "some streams were not tried", kept).await;
    let failed = async || site.get("/jobs").await.status == 503;
    eventually_async(3 * DEADLINE, "each stream was tried", failed).await;
}

#[tokio::test]
async fn a_group_that_cannot_be_read_is_a_row_with_the_error_and_hides_no_other() {
    let site = Site::start().await;
    for group in ["audit", "bill"] {
        site.server.command(&["XGROUP", "CREATE", "orders", group, "0"]);
    }
    text_key(&site, "{orders}:retry:bill");
    let client = site.client.clone();
    let site = fresh(site, client, &["orders"]);
    for path in ["/jobs", "/jobs/streams/orders"] {
        let page = site.get(path).await;
        page.is(200).says("data-group=\"audit\"").says("data-group=\"work\"");
        page.says("data-failed=\"bill\"").says("WRONGTYPE").says_not("No problems detected");
        page.says("≥ 2 groups");
    }
    site.get("/jobs?q=audit").await.is(200).says_not("data-failed").says("data-group=\"audit\"");
    site.get("/jobs?state=healthy").await.is(200).says_not("data-failed");
    // Its problem is gone with the next snapshot after the key is gone.
    site.server.command(&["DEL", "{orders}:retry:bill"]);
    let client = site.client.clone();
    let site = fresh(site, client, &["orders"]);
    site.get("/jobs").await.is(200).says("data-group=\"bill\"").says_not("data-failed");
}

#[tokio::test]
async fn the_partitions_of_a_stream_are_listed_although_a_group_cannot_be_read() {
    let site = Site::start().await;
    let client = Client::builder(&site.server.url()).partitions("orders", 3);
    let client = client.connect().await.unwrap();
    let stream = client.stream("orders").unwrap();
    for group in ["audit", "work"] {
        stream.group(group).unwrap().create(Default::default()).await.unwrap();
    }
    text_key(&site, "{orders}:retry:work");
    let site = fresh(site, client, &["orders"]);
    let page = site.get("/jobs/streams/orders").await;
    page.is(200)
        .says("data-partition=\"2\"")
        .says("data-group=\"audit\"")
        .says("data-failed=\"work\"");
}

#[tokio::test]
async fn dead_letters_of_which_the_number_is_unknown_are_named() {
    let site = Site::start().await;
    text_key(&site, "{orders}:dead:work");
    let client = site.client.clone();
    let site = fresh(site, client, &["orders"]);
    let page = site.get("/jobs/dead").await;
    page.is(200).says("id=\"unknown\"").says("work on orders").says_not("No dead letters.");
    site.get("/jobs/dead?q=nothing").await.is(200).says_not("id=\"unknown\"");
}

#[tokio::test]
async fn an_empty_list_of_dead_letters_says_whether_the_filter_is_why() {
    let site = Site::start().await;
    site.get("/jobs/dead").await.is(200).says("No dead letters.");
    site.store_dead_letter("no", "{}");
    let client = site.client.clone();
    let site = fresh(site, client, &["orders"]);
    for query in ["reason=rejected", "q=nothing"] {
        let page = site.get(&format!("/jobs/dead?{query}")).await;
        page.is(200).says("No dead letters match the filter.").says_not("No dead letters.<");
    }
    site.get("/jobs/dead?reason=a%20reason").await.is(400).says_not("a reason");
    // The page reads much, so that it is not read again every two seconds.
    site.get("/jobs/dead").await.is(200).says("data-still");
}

/// Names in which a dash separates nothing.
#[tokio::test]
async fn rows_of_different_groups_have_different_ids() {
    let site = Site::start().await;
    for (stream, group) in [("a-b", "c"), ("a", "b-c"), ("a", "b c")] {
        site.server.command(&["XGROUP", "CREATE", stream, group, "0", "MKSTREAM"]);
        let key = format!("{{{stream}}}:dead:{group}");
        site.server.command(&["XADD", &key, "5-1", "sj-dead-reason", "exhausted", "type", "t"]);
    }
    let client = site.client.clone();
    let site = fresh(site, client, &["a-b", "a"]);
    for path in ["/jobs", "/jobs/dead"] {
        let page = site.get(path).await;
        let ids = page.is(200).text.split("<tr").skip(1).filter_map(|row| {
            let tag = row.split('>').next().unwrap();
            tag.contains("data-group")
                .then(|| tag.split(" id=\"").nth(1).unwrap().split('"').next())
        });
        let ids = ids.map(Option::unwrap).collect::<Vec<_>>();
        let distinct = ids.iter().collect::<std::collections::BTreeSet<_>>();
        assert_eq!((ids.len(), distinct.len()), (3, 3), "{path}: {ids:?}");
        assert!(ids.iter().all(|id| !id.contains(' ')), "{path}: {ids:?}");
    }
}

#[tokio::test]
async fn rates_that_are_not_known_yet_are_not_shown_as_zero() {
    let site = Site::start().await;
    let client = site.client.clone();
    let site = fresh(site, client, &["orders"]);
    let page = site.get("/jobs").await;
    for id in ["published", "done", "failing"] {
        page.is(200).says(&format!("<dd id=\"{id}\">–</dd>"));
    }
    let foot = page.text.split("id=\"sums\"").nth(1).unwrap();
    for label in ["Done", "Failed"] {
        let cell = foot.split(&format!("data-label=\"{label}\">")).nth(1).unwrap();
        assert!(cell.starts_with("–</td>"), "{label}: {cell}");
    }
}
