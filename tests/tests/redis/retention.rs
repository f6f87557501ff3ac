use std::num::NonZeroU64;
use std::time::Duration;

use streamjobs::Client;
use streamjobs::config::Retention;
use streamjobs_tests::server::RedisServer;

use crate::app::{App, DEADLINE, Gate, Work, order, orders, settled, until};

async fn with(retention: Retention) -> App {
    let server = RedisServer::start().unwrap();
    let client =
        Client::builder(&server.url()).retention("orders", retention).connect().await.unwrap();
    App { server, client }
}

fn many(entries: u64) -> NonZeroU64 {
    NonZeroU64::new(entries).unwrap()
}

#[tokio::test]
async fn max_len_trims_about_that_much_at_every_append() {
    let app = with(Retention::MaxLen(many(100))).await;
    app.publish(2_000).await;
    let length = app.server.length("orders");
    assert!((100..300).contains(&length), "{length} entries stay");
}

#[tokio::test]
async fn max_len_exact_keeps_exactly_that_much() {
    let app = with(Retention::MaxLenExact(many(100))).await;
    app.publish(2_000).await;
    assert_eq!(app.server.length("orders"), 100);
}

#[tokio::test]
async fn history_is_trimmed_to_its_window_once_everybody_is_done() {
    let app = with(Retention::History(many(200))).await;
    let runtime = app.runtime(&Work::fine()).start().await.unwrap();
    app.publish(2_000).await;
    app.drained("work").await;
    until(DEADLINE, "trimmed", || app.server.length("orders") < 400).await;
    assert!(app.server.length("orders") >= 200, "the window stays");
    until(DEADLINE, "counted", || runtime.counters().entries_trimmed >= 1_600).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn history_never_loses_what_some_group_has_not_acknowledged() {
    let app = with(Retention::History(many(10))).await;
    app.server.command(&["XGROUP", "CREATE", "orders", "sleeping", "0", "MKSTREAM"]);
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let runtime = app.runtime(&gated).start().await.unwrap();
    app.publish(1_000).await;
    gated.wait_for(16).await;
    gate.open();
    app.drained("work").await;
    let heartbeats = || app.calls("hset");
    let before = heartbeats();
    until(DEADLINE, "the next heartbeat", || heartbeats() > before + 5).await;
    assert_eq!(app.server.length("orders"), 1_000, "the sleeping group has read nothing");
    app.server.command(&[
        "XREADGROUP",
        "GROUP",
        "sleeping",
        "c",
        "COUNT",
        "1000",
        "STREAMS",
        "orders",
        ">",
    ]);
    let before = heartbeats();
    until(DEADLINE, "the next heartbeat", || heartbeats() > before + 5).await;
    assert_eq!(app.server.length("orders"), 1_000, "it has acknowledged nothing");
    for id in app.server.entries("orders").into_iter().map(|entry| entry.id) {
        app.server.command(&["XACK", "orders", "sleeping", &id]);
    }
    until(DEADLINE, "trimmed", || app.server.length("orders") < 300).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn max_age_goes_by_the_servers_clock() {
    let app = with(Retention::MaxAge(Duration::from_secs(3600))).await;
    // Two hours ago by the server's clock; what this process thinks of the time does not matter.
    let time: (u64, u64) = redis::from_redis_value(app.server.command(&["TIME"])).unwrap();
    let old = format!("{}-*", (time.0 - 7_200) * 1_000);
    for number in 0..500 {
        let number = number.to_string();
        let fields =
            ["XADD", "orders", &old, "type", "order.placed", "id", &number, "customer", "a"];
        app.server.command(&fields);
    }
    app.client.publish_all(&orders(500)).await;
    let counted = Work::fine();
    let runtime = app.runtime(&counted).start().await.unwrap();
    until(DEADLINE, "the old ones go", || app.server.length("orders") <= 620).await;
    assert!(app.server.length("orders") >= 500, "the fresh ones stay");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn unlimited_keeps_everything() {
    let app = with(Retention::Unlimited).await;
    let runtime = app.runtime(&Work::fine()).start().await.unwrap();
    app.publish(11_000).await;
    app.drained("work").await;
    let before = app.calls("hset");
    until(DEADLINE, "the janitor has been here", || app.calls("hset") > before + 5).await;
    assert_eq!((app.server.length("orders"), app.calls("xtrim")), (11_000, 0));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn an_entry_trimmed_in_flight_is_acknowledged_late_and_no_failure() {
    let app = with(Retention::MaxLenExact(many(1))).await;
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let runtime = app.runtime(&gated).start().await.unwrap();
    app.client.publish(&order("trimmed")).await.unwrap();
    gated.wait_for(1).await;
    app.client.publish(&order("its successor")).await.unwrap();
    gated.wait_for(2).await;
    assert_eq!(app.server.length("orders"), 1);
    gate.open();
    app.drained("work").await;
    settled(&runtime).await;
    assert_eq!((runtime.counters().succeeded, runtime.counters().failed), (2, 0));
    let _ = runtime.shutdown().await;
}
