//! The dashboard as a user of the server with exactly the rule that the doctor prints.

use axum::Router;
use streamjobs::doctor::Access as Rights;
use streamjobs::{Client, StreamName};
use streamjobs_dashboard::Dashboard;

use crate::site::{GROUP, Site, by_name};

/// A site with something on each page, whose dashboard connects as such a user.
async fn site_of(rights: Rights) -> (Site, String) {
    let site = Site::start().await;
    for _ in 0..3 {
        site.append("order.placed", "{}");
    }
    site.deliver("ghost", 2);
    let letter = site.store_dead_letter("broken", "{}");
    let orders = [StreamName::new("orders").unwrap()];
    site.server.command(&["ACL", "SETUSER", "bob", "on", ">canary"]);
    let rule = rights.rule("bob", &orders);
    let rule = rule.split(' ').collect::<Vec<_>>();
    site.server.command(&[&rule, site.server.form_rights()].concat());
    let client = Client::connect(&site.server.url_as("bob", "canary")).await.unwrap();
    let dashboard = Dashboard::builder(client, by_name).streams(orders).build();
    (Site { app: Router::new().nest("/jobs", dashboard.router()), ..site }, letter)
}

/// The server's log of refusals.
fn refused(site: &Site) -> Vec<String> {
    let log = site.server.command(&["ACL", "LOG"]);
    log.as_sequence().unwrap().iter().map(|row| format!("{row:?}")).collect()
}

async fn read_all(site: &Site, letter: &str) {
    for path in [
        "/jobs",
        "/jobs/alerts",
        "/jobs/dead",
        "/jobs/processes",
        "/jobs/trends",
        "/jobs/streams/orders",
        "/jobs/streams/orders/event?id=event-1",
        "/jobs/streams/orders/find?text=order",
        "/jobs/streams/orders/scheduled",
        "/jobs/streams/orders/schedules",
        "/jobs/streams/orders/replay?start=-&end=%2B&limit=20",
        GROUP,
        &format!("{GROUP}?range=7d"),
        &format!("{GROUP}/pending"),
        &format!("{GROUP}/retries"),
        &format!("{GROUP}/finished"),
        &format!("{GROUP}/dead"),
        &format!("{GROUP}/dead/{letter}"),
    ] {
        site.get(path).await.is(200).says_not("NOPERM").says_not("lacks a right");
    }
}

#[tokio::test]
async fn every_page_is_shown_with_the_right_to_read_and_actions_are_refused() {
    let (site, letter) = site_of(Rights::Read).await;
    read_all(&site, &letter).await;
    assert_eq!(refused(&site), Vec::<String>::new());
    let answer = site.post(&format!("{GROUP}/pause"), &[]).await;
    answer.says("the user lacks a right");
    assert!(site.group().info().await.unwrap().paused.is_none());
}

#[tokio::test]
async fn actions_are_carried_out_with_the_right_to_operate() {
    let (site, letter) = site_of(Rights::Operate).await;
    read_all(&site, &letter).await;
    let id = site.server.pending("orders", "work").remove(0).id;
    for (action, fields) in [
        ("pause", Vec::new()),
        ("resume", Vec::new()),
        ("pending/release", vec![("id", id.as_str())]),
        ("dead/redrive", vec![("id", letter.as_str())]),
    ] {
        site.post(&format!("{GROUP}/{action}"), &fields).await.is(303);
    }
    assert_eq!(site.server.length("{orders}:lane:work"), 1, "redriven");
    for action in ["cancel", "uncancel"] {
        let path = format!("/jobs/streams/orders/event/{action}");
        site.post(&path, &[("event", "e-1"), ("group", "work")]).await.is(303);
        site.post(&path, &[("event", "e-1")]).await.is(303);
    }
    assert_eq!(refused(&site), Vec::<String>::new());
}
