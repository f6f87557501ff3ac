use std::time::Duration;

use streamjobs::config::GroupOptions;
use streamjobs::error::{ConnectError, PublishError, StartError};
use streamjobs::{Client, EntryId, EventId, GroupName, Runtime, StreamName, handlers};
use streamjobs_tests::server::RedisServer;

use crate::app::{App, DEADLINE, Work, order, until, work};

const CANARY: &str = "c4n4ry-p4ssw0rd";

#[tokio::test]
async fn addresses_that_cannot_be_used_say_why_and_never_show_the_password() {
    let addresses = [
        format!("redis://user:{CANARY}@127.0.0.1:notaport"),
        format!("redis://:{CANARY}@:6379"),
        format!("http://user:{CANARY}@127.0.0.1"),
        format!("redis://user:{CANARY}@127.0.0.1:6379/notadatabase"),
        format!("rediss://user:{CANARY}@127.0.0.1:6379"),
        format!("redis://user:{CANARY}@127.0.0.1:1"),
        String::new(),
        "redis:".to_owned(),
        "127.0.0.1:6379".to_owned(),
    ];
    for address in addresses {
        let error = Client::connect(&address).await.unwrap_err();
        let shown = format!("{error} {error:?} {:?}", std::error::Error::source(&error));
        assert!(!shown.contains(CANARY), "{shown}");
        assert!(!error.to_string().is_empty());
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused_without_being_shown() {
    let server = RedisServer::builder().password(CANARY).start().unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    assert!(!format!("{client:?}").contains(CANARY));
    let wrong = server.url_as("", &format!("wrong-{CANARY}"));
    let error = Client::connect(&wrong).await.unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(matches!(error, ConnectError::Server { .. }) && !shown.contains(CANARY), "{shown}");
}

#[tokio::test]
async fn a_password_user_and_database_are_used_and_a_unix_socket_works() {
    let server = RedisServer::builder().no_cluster().password(CANARY).start().unwrap();
    let client = Client::connect(&format!("{}/3", server.url())).await.unwrap();
    works(&client).await;
    assert_eq!(server.length("orders"), 0, "database 0 is empty");
    for word in ["on", ">secret", "~*", "&*", "+@all"] {
        server.command(&["ACL", "SETUSER", "alice", word]);
    }
    let url = format!("{}/5", server.url_as("alice", "secret"));
    works(&Client::connect(&url).await.unwrap()).await;
    let server = RedisServer::builder().plain().unix_socket(true).start().unwrap();
    let client = Client::connect(&server.unix_url().unwrap()).await.unwrap();
    works(&client).await;
    assert_eq!(server.length("orders"), 1);
}

/// An event is published, read and done: each kind of connection is there, as whom and where it should be.
async fn works(client: &Client) {
    let fine = Work::fine();
    let builder = Runtime::builder(client).handlers(handlers![work]).state(fine.clone());
    let runtime = builder.start().await.unwrap();
    client.publish(&order(1)).await.unwrap();
    fine.wait_for(1).await;
    assert!(runtime.shutdown().await.abandoned.is_empty());
}

#[test]
fn names_and_ids_are_refused_with_their_rule() {
    let long = "x".repeat(201);
    for bad in ["", "a\nb", long.as_str(), "{}", "a{b", "{a}:dead:b"] {
        let error = StreamName::new(bad).unwrap_err().to_string();
        assert!(error.starts_with("invalid stream name"), "{error}");
    }
    assert!(
        GroupName::new("a{b}").is_err()
            && EventId::new("").is_err()
            && EventId::new("\u{7}").is_err()
    );
    assert!(EventId::new("x".repeat(129)).is_err());
}

#[tokio::test]
async fn a_payload_over_the_cap_is_refused_before_any_call() {
    let app = App::start().await;
    let mut large = order(1);
    large.customer = "x".repeat(1024 * 1024);
    let error = app.client.publish(&large).await.unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { bytes_max: 1_048_576, .. }), "{error}");
    assert_eq!(app.calls("xadd"), 0);
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_listed_all_at_once() {
    let app = App::start().await;
    let builder = Runtime::builder(&app.client).handlers(handlers![work]);
    let builder = builder.group("work", GroupOptions::new().lease(Duration::from_millis(1)));
    let builder = builder.state(Work::fine()).block(Duration::ZERO).read_margin(Duration::ZERO);
    let error = builder.start().await.unwrap_err();
    assert!(matches!(error, StartError::Settings(ref faults) if faults.len() == 3), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("read_deadline") && text.contains("block 0ns") && text.contains("lease 1ms"),
        "{text}"
    );
}

#[tokio::test]
async fn a_missing_state_is_refused_at_the_start_naming_handler_and_type() {
    let app = App::start().await;
    let error = Runtime::builder(&app.client)
        .handlers(handlers![work])
        .start()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("app::work") && error.contains("Work"), "{error}");
}

#[tokio::test]
async fn two_handlers_for_one_event_type_are_refused_naming_both_places() {
    let app = App::start().await;
    let builder = Runtime::builder(&app.client).handlers(handlers![work, work]).state(Work::fine());
    let error = builder.start().await.unwrap_err().to_string();
    assert!(error.contains("order.placed") && error.matches("app.rs:").count() >= 2, "{error}");
}

#[tokio::test]
async fn a_key_of_another_type_is_refused_at_the_start() {
    let app = App::start().await;
    app.server.command(&["SET", "orders", "text"]);
    let error = app.runtime(&Work::fine()).start().await.unwrap_err();
    let source = format!("{:?}", std::error::Error::source(&error));
    assert!(
        error.to_string().contains("orders") && source.contains("WRONGTYPE"),
        "{error}: {source}"
    );
}

#[tokio::test]
async fn a_start_without_a_server_is_an_error_within_seconds() {
    let app = App::start().await;
    app.server.kill();
    let started = tokio::time::timeout(Duration::from_secs(15), app.runtime(&Work::fine()).start());
    assert!(started.await.unwrap().is_err());
}

#[tokio::test]
async fn the_error_text_of_a_handler_is_cut_and_escaped() {
    let app = App::start().await;
    let noisy = Work::new(|_, _| async {
        Err(streamjobs::JobError::dead(format!("\u{1b}[31m<script>\n{}", "é".repeat(5_000_000))))
    });
    let runtime = app.runtime(&noisy).start().await.unwrap();
    app.client.publish(&order(1)).await.unwrap();
    let stored = || app.server.length("{orders}:dead:work") == 1;
    until(DEADLINE, "dead-lettered", stored).await;
    let letters = app.client.dead_letters("orders", "work").unwrap();
    let letter = letters.list(None, 1).await.unwrap().letters.remove(0);
    let error = letter.error.unwrap();
    assert!(
        error.len() <= 4096 && !error.contains('\u{1b}') && !error.contains('\n'),
        "{}",
        error.len()
    );
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn an_entry_with_the_highest_id_is_done_and_nothing_overflows() {
    let app = App::start().await;
    let highest = EntryId::MAX.to_string();
    let entry = ["XADD", "orders", &highest, "type", "order.placed", "id", "1", "customer", "a"];
    app.server.command(&entry);
    let counted = Work::fine();
    let runtime = app.runtime(&counted).start().await.unwrap();
    until(DEADLINE, "acknowledged", || runtime.counters().acknowledged == 1).await;
    let heartbeats = || app.calls("hset");
    let before = heartbeats();
    until(DEADLINE, "heartbeats and scans go on behind it", || heartbeats() > before + 10).await;
    assert_eq!((counted.count(), runtime.counters().server_errors), (1, 0));
    let full = app.client.publish(&order(2)).await.unwrap_err();
    assert!(!full.is_unconfirmed(), "no id is left for another entry: {full:?}");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn numbers_that_json_does_not_have_are_refused_before_any_call() {
    #[derive(streamjobs::Event, serde::Serialize, serde::Deserialize)]
    #[event(stream = "readings", type = "reading.taken")]
    struct Reading {
        celsius: Vec<f64>,
    }
    let app = App::start().await;
    let error = app.client.publish(&Reading { celsius: vec![f64::NAN] }).await.unwrap_err();
    assert!(matches!(error, PublishError::Encode { .. }), "{error:?}");
    assert_eq!(app.calls("xadd"), 0);
}
