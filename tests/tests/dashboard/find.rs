//! Entries that contain a text.

use streamjobs::StreamName;
use streamjobs_dashboard::Dashboard;

use crate::accessible;
use crate::bounded::{calls_of, fresh};
use crate::site::{Site, by_name};

const FIND: &str = "/jobs/streams/orders/find";

fn append(site: &Site, id: &str, key: &str, data: &str) -> String {
    let words = ["type", "order.placed", "data", data, "sj-id", id, "sj-key", key];
    site.server.query::<String>(&[&["XADD", "orders", "*"], &words[..]].concat())
}

#[tokio::test]
async fn entries_are_found_by_id_key_and_text_and_the_range_is_said() {
    let site = Site::start().await;
    let first = append(&site, "e-1", "alice", r#"{"parcel":4711,"to":"<b>Köln</b>"}"#);
    for number in 0..30 {
        append(&site, &format!("f-{number}"), "bob", "{}");
    }
    site.get("/jobs/streams/orders").await.says("Find entries by key, or by a text in the payload");
    let page = site.get(FIND).await;
    page.is(200).says("Give a part of a key").says_not("were compared");
    accessible::check(FIND, &page.text);
    for text in ["4711", "alice", "e-1", &first, "%3Cb%3EK%C3%B6ln"] {
        let page = site.get(&format!("{FIND}?text={text}")).await;
        page.is(200).says(&format!("id=\"e-{first}\"")).says("31 entries were compared");
        page.says(&format!("back to <code>{first}</code>")).says(": the beginning of the stream.");
        page.says_not("<b>Köln").says_not("Search on");
        accessible::check(FIND, &page.text);
    }
    site.get(&format!("{FIND}?text=nothing")).await.is(200).says("No entry contains it.");
    // Page by page, each of them once.
    let (mut path, mut listed, mut pages) = (format!("{FIND}?text=bob&limit=12"), 0, 0);
    loop {
        let page = site.get(&path).await;
        listed += page.is(200).text.matches("<tr id=\"e-").count();
        pages += 1;
        let Some(next) = page.text.split("find?text=bob&amp;").nth(1) else { break };
        path = format!("{FIND}?text=bob&{}", next.split('"').next().unwrap().replace("&amp;", "&"));
    }
    assert_eq!((listed, pages), (30, 3));
    site.get(&format!("{FIND}?text=x&before=nonsense")).await.is(400);
    site.get("/jobs/streams/hidden/find?text=x").await.is(404);
}

#[tokio::test]
async fn what_a_visitor_does_not_see_cannot_be_found() {
    let site = Site::start().await;
    let id = append(&site, "e-1", "alice", r#"{"card":"4242","n":1}"#);
    let found = format!("id=\"e-{id}\"");
    for (text, is_found) in [("alice", true), ("e-1", true), ("4242", false), ("card", false)] {
        let page = site.get_as("blind", &format!("{FIND}?text={text}")).await;
        assert_eq!(page.is(200).text.contains(&found), is_found, "{text}");
        page.says("You do not have permission to see payloads, so they are not searched");
        site.get(&format!("{FIND}?text={text}")).await.says(&found).says_not("permission");
    }
    let dashboard = Dashboard::builder(site.client.clone(), by_name)
        .streams([StreamName::new("orders").unwrap()])
        .redact(|_, payload| {
            if let Some(card) = payload.get_mut("card") {
                *card = "…".into();
            }
        });
    let app = axum::Router::new().nest("/jobs", dashboard.build().router());
    let site = Site { app, ..site };
    site.get(&format!("{FIND}?text=4242")).await.is(200).says("No entry contains it.");
    site.get(&format!("{FIND}?text=%22n%22:1")).await.is(200).says(&found);
}

#[tokio::test]
async fn a_search_reads_a_bounded_part_and_goes_on_from_there() {
    let site = Site::start().await;
    let last = append(&site, "far", "alice", "{}");
    let script =
        "for i = 1, 20500 do redis.call('XADD', 'orders', '*', 'type', 't', 'data', i) end";
    site.server.command(&["EVAL", script, "0"]);
    let mut site = fresh(site);
    let (mut path, mut compared) = (format!("{FIND}?text=alice"), Vec::new());
    loop {
        let calls = calls_of(&site, &path).await;
        assert!(calls["evalsha"] <= 21, "{calls:?}");
        let page = site.get(&path).await;
        let said = page.text.split("id=\"compared\">").nth(1).unwrap();
        compared.push(said.split(" entries").next().unwrap().to_owned());
        let Some(next) = page.text.split("find?text=alice&amp;").nth(1) else {
            page.says(&format!("id=\"e-{last}\""));
            break;
        };
        page.says("None of the entries that were compared contains it.");
        path = format!("{FIND}?text=alice&{}", next.split('"').next().unwrap());
        site = fresh(site);
    }
    assert_eq!(compared, ["10 000", "10 000", "501"].map(|text| text.replace(' ', "\u{2009}")));
    // Large payloads end it earlier, and say that they were not searched as a whole.
    let large = format!("{}needle", "x".repeat(1_000_000));
    for _ in 0..5 {
        append(&site, "large", "carol", &large);
    }
    let page = site.get(&format!("{FIND}?text=needle&limit=1")).await;
    page.is(200).says("Of 5 of them, only the beginning of a large value was compared.");
}
