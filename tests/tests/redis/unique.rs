//! Unique and debounced events on a real server: races, dead processes, full memory, keys of other types,
//! partitions.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::config::Retention;
use streamjobs::dead_letter::Reason;
use streamjobs::error::Refusal;
use streamjobs::unique::{Debounce, Unique, UniqueDigest, UniquePublished};
use streamjobs::{Client, Event, EventId, JobError, StreamName};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::proxy::{FaultProxy, Mode};
use streamjobs_tests::server::RedisServer;
use tokio::time::{Instant, sleep_until};

use crate::app::{App, DEADLINE, Gate, Order, Work, order, settled, until};

/// An event without a key.
#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.indexed", unique = "doc")]
struct Indexed {
    doc: usize,
    number: usize,
}

const HOUR: Duration = Duration::from_secs(3_600);

/// The lock of an order that is published under a key.
fn lock(key: &str) -> String {
    format!("{{orders}}:unique:{}", digest(key))
}

fn digest(key: &str) -> UniqueDigest {
    UniqueDigest::of_key("order.placed", Some("alice"), key).unwrap()
}

fn until_done(key: &str, at_most: Duration) -> Unique {
    Unique::until_done("work", at_most).key(key)
}

fn exists(server: &RedisServer, key: &str) -> bool {
    server.query::<usize>(&["EXISTS", key]) == 1
}

#[tokio::test]
async fn of_fifty_publishers_at_once_one_is_new_and_the_others_have_its_id() {
    let server = RedisServer::start().unwrap();
    for doc in 0..5 {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..50 {
            let client = Client::connect(&server.url()).await.unwrap();
            tasks.spawn(async move {
                let event = Indexed { doc, number };
                client.publish_unique(&Unique::within(HOUR), &event).await.unwrap()
            });
        }
        let answers = tasks.join_all().await;
        let new = answers.iter().filter(|answer| answer.is_new()).count();
        let refused = answers.iter().filter(|answer| answer.is_duplicate()).count();
        let stand = answers.iter().map(|answer| answer.published().event_id.clone());
        let stand = stand.collect::<HashSet<_>>();
        assert_eq!((new, refused, stand.len(), server.length("orders")), (1, 49, 1, doc + 1));
    }
}

#[tokio::test]
async fn the_job_of_a_dead_process_ends_its_time_when_another_one_has_done_it() {
    let app = App::start().await;
    app.server.command(&["XGROUP", "CREATE", "orders", "work", "0", "MKSTREAM"]);
    for key in ["fine", "dead"] {
        let unique = until_done(key, HOUR);
        assert!(app.client.publish_unique(&unique, &order(key)).await.unwrap().is_new());
    }
    app.server.command(&["XREADGROUP", "GROUP", "work", "gone", "STREAMS", "orders", ">"]);
    assert!(exists(&app.server, &lock("fine")) && exists(&app.server, &lock("dead")));
    let work = Work::new(|order, _| async move {
        if order.id == "dead" { Err(JobError::dead("no")) } else { Ok(()) }
    });
    let runtime = app.runtime(&work).start().await.unwrap();
    until(DEADLINE, "both ended", || {
        !exists(&app.server, &lock("fine")) && !exists(&app.server, &lock("dead"))
    })
    .await;
    settled(&runtime).await;
    assert_eq!((runtime.counters().claimed, work.count()), (2, 2));
    let _ = runtime.shutdown().await;
}

/// What it was is not known any more.
#[tokio::test]
async fn the_trimmed_job_of_a_dead_process_stands_for_its_longest_time() {
    let app = App::start().await;
    app.server.command(&["XGROUP", "CREATE", "orders", "work", "0", "MKSTREAM"]);
    let (at_most, begun) = (Duration::from_secs(6), Instant::now());
    let unique = until_done("a", at_most);
    assert!(app.client.publish_unique(&unique, &order(1)).await.unwrap().is_new());
    app.server.command(&["XREADGROUP", "GROUP", "work", "gone", "STREAMS", "orders", ">"]);
    app.server.command(&["XTRIM", "orders", "MAXLEN", "0"]);
    let runtime = app.runtime(&Work::fine()).start().await.unwrap();
    until(DEADLINE, "the letter is stored", || app.server.length("{orders}:dead:work") == 1).await;
    let letters = app.client.dead_letters("orders", "work").unwrap();
    assert_eq!(letters.list(None, 1).await.unwrap().letters[0].reason, Reason::Trimmed);
    if begun.elapsed() < at_most - Duration::from_secs(1) {
        assert!(exists(&app.server, &lock("a")));
    }
    until(DEADLINE, "its time is over", || !exists(&app.server, &lock("a"))).await;
    assert!(begun.elapsed() >= at_most);
    assert!(app.client.publish_unique(&unique, &order(2)).await.unwrap().is_new());
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_full_server_stores_no_unique_event_and_ends_the_time_of_others() {
    let app = App::start().await;
    let gate = Gate::default();
    let work = Work::gated(&gate);
    let runtime = app.runtime(&work).start().await.unwrap();
    app.client.publish_unique(&until_done("a", HOUR), &order(1)).await.unwrap();
    let debounce = Debounce::new(HOUR, HOUR).key("b");
    let waits = app.client.publish_debounced(&debounce, &order(2)).await.unwrap();
    work.wait_for(1).await;
    app.server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = app.client.publish_unique(&until_done("c", HOUR), &order(3)).await.unwrap_err();
    assert_eq!((error.refusal(), error.is_unconfirmed()), (Some(Refusal::OutOfMemory), false));
    let error = app.client.publish_debounced(&debounce, &order(4)).await.unwrap_err();
    assert_eq!((error.refusal(), error.is_unconfirmed()), (Some(Refusal::OutOfMemory), false));
    assert!(!exists(&app.server, &lock("c")) && exists(&app.server, &lock("a")));
    gate.open();
    until(DEADLINE, "it ended", || !exists(&app.server, &lock("a"))).await;
    app.server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    let listed = app.client.scheduled("orders").unwrap().list(None, 9).await.unwrap().events;
    assert_eq!((listed.len(), &listed[0].id, listed[0].due), (1, &waits.event_id, waits.due));
    assert_eq!((app.server.length("orders"), work.count()), (1, 1));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_lock_of_another_client_is_refused_or_replaced_and_delays_no_job() {
    let app = App::start().await;
    app.server.command(&["RPUSH", &lock("list"), "x"]);
    let error = app.client.publish_unique(&until_done("list", HOUR), &order(1)).await.unwrap_err();
    assert!(!error.is_unconfirmed(), "{error}");
    assert_eq!(app.server.length("orders"), 0);
    for (key, value) in [("text", "x"), ("endless", "1-1 e-1")] {
        app.server.command(&["SET", &lock(key), value]);
        let answer = app.client.publish_unique(&until_done(key, HOUR), &order(key)).await.unwrap();
        assert!(answer.is_new(), "{key}: {answer:?}");
        assert!(app.server.query::<i64>(&["PTTL", &lock(key)]) > 0, "{key}");
    }
    let long = format!("1-1 {}", "x".repeat(200));
    for (key, value) in [("control", "1-1 e\n1"), ("long", long.as_str())] {
        app.server.command(&["SET", &lock(key), value, "PX", "60000"]);
        let answer = app.client.publish_unique(&until_done(key, HOUR), &order(key)).await.unwrap();
        assert!(answer.is_new(), "{key}: {answer:?}");
    }
    app.server.command(&["DEL", &lock("text")]);
    app.server.command(&["RPUSH", &lock("text"), "x"]);
    let work = Work::fine();
    let runtime = app.runtime(&work).start().await.unwrap();
    until(DEADLINE, "it ended", || !exists(&app.server, &lock("endless"))).await;
    settled(&runtime).await;
    assert_eq!((runtime.counters().succeeded, app.server.pending("orders", "work").len()), (4, 0));
    let _ = runtime.shutdown().await;
    app.server.command(&["DEL", "orders"]);
    app.server.command(&["SET", "orders", "x"]);
    app.client.publish_unique(&until_done("new", HOUR), &order(2)).await.unwrap_err();
    assert!(!exists(&app.server, &lock("new")), "what is not stored does not stand");
}

/// As with rules that another hand has written.
#[tokio::test]
async fn an_event_whose_entry_is_refused_does_not_stand() {
    let app = App::start().await;
    let rule = "reset on >canary ~* &* +@all -xadd";
    let words = ["ACL", "SETUSER", "bob"].into_iter().chain(rule.split(' '));
    app.server.command(&words.collect::<Vec<_>>());
    let client = Client::connect(&app.server.url_as("bob", "canary")).await.unwrap();
    let error = client.publish_unique(&until_done("a", HOUR), &order(1)).await.unwrap_err();
    assert!(!error.is_unconfirmed() && !exists(&app.server, &lock("a")), "{error}");
    let rule = "reset on >canary ~* &* +@all -zadd";
    let words = ["ACL", "SETUSER", "bob"].into_iter().chain(rule.split(' '));
    app.server.command(&words.collect::<Vec<_>>());
    let client = Client::connect(&app.server.url_as("bob", "canary")).await.unwrap();
    let debounce = Debounce::new(HOUR, HOUR).key("b");
    client.publish_debounced(&debounce, &order(1)).await.unwrap_err();
    assert_eq!(app.client.scheduled("orders").unwrap().count().await.unwrap(), 0);
    assert_eq!(app.server.query::<usize>(&["HLEN", "{orders}:later-records"]), 1, "since when");
    let waits = app.client.publish_debounced(&debounce, &order(2)).await.unwrap();
    client.publish_debounced(&debounce, &order(3)).await.unwrap_err();
    let listed = app.client.scheduled("orders").unwrap().list(None, 9).await.unwrap().events;
    assert_eq!((listed.len(), &listed[0].id), (1, &waits.event_id), "it waits as before");
}

#[tokio::test]
async fn a_repetition_of_an_unconfirmed_unique_call_finds_its_entry() {
    let app = App::start().await;
    let proxy = FaultProxy::start(&app.server).unwrap();
    let through = Client::connect(proxy.url()).await.unwrap();
    through.publish_unique(&until_done("before", HOUR), &order("before")).await.unwrap();
    proxy.set(Mode::DropReplies);
    let unique = until_done("a", HOUR);
    let error = through.publish_unique(&unique, &order(1)).await.unwrap_err();
    assert!(error.is_unconfirmed(), "{error}");
    let id = error.event_id().unwrap().clone();
    let again = app.client.publish_unique_with_id(&unique, &order(1), id.clone()).await.unwrap();
    let UniquePublished::Repeated(published) = again else { panic!("it was stored: {again:?}") };
    assert_eq!((published.event_id, app.server.length("orders")), (id, 2));
    let other = app.client.publish_unique(&unique, &order(1)).await.unwrap();
    assert!(other.is_duplicate());
}

/// The event's own key is a part of what is the same.
#[tokio::test]
async fn what_is_the_same_meets_in_one_partition_and_is_found_and_released_there() {
    let server = RedisServer::start().unwrap();
    let connect =
        async || Client::builder(&server.url()).partitions("orders", 6).connect().await.unwrap();
    let (one, other) = (connect().await, connect().await);
    let mut partitions = HashSet::new();
    for doc in 0..12 {
        let window = Unique::within(HOUR);
        let first = one.publish_unique(&window, &Indexed { doc, number: 1 }).await.unwrap();
        let second = other.publish_unique(&window, &Indexed { doc, number: 2 }).await.unwrap();
        assert!(first.is_new() && second.is_duplicate());
        assert_eq!(first.published(), second.published());
        partitions.insert(first.published().partition);
        let window = window.key("a");
        for customer in [format!("a{doc}"), format!("b{doc}")] {
            let order = |id: &str| Order { id: id.to_owned(), customer: customer.clone() };
            assert!(one.publish_unique(&window, &order("1")).await.unwrap().is_new());
            assert!(other.publish_unique(&window, &order("2")).await.unwrap().is_duplicate());
            let key = Some(customer.as_str());
            let digest = UniqueDigest::of_key("order.placed", key, "a").unwrap();
            let unique = other.unique("orders").unwrap();
            let stands = unique.holder(&digest).await.unwrap().unwrap();
            let wrong = EventId::generate();
            assert_eq!(unique.release(&digest, Some(&wrong)).await.unwrap(), None);
            let released = unique.release(&digest, None).await.unwrap().unwrap();
            assert_eq!(released.published, stands.published);
            assert_eq!(unique.holder(&digest).await.unwrap(), None);
        }
        let debounce = Debounce::new(HOUR, HOUR);
        let first = one.publish_debounced(&debounce, &Indexed { doc, number: 1 }).await.unwrap();
        let second = other.publish_debounced(&debounce, &Indexed { doc, number: 2 }).await.unwrap();
        assert_eq!((second.replaced, second.partition), (Some(first.event_id), first.partition));
    }
    assert!(partitions.len() > 1, "{partitions:?}");
    assert_eq!(one.scheduled("orders").unwrap().count().await.unwrap(), 12);
}

/// What it says of the first event may be no number.
#[tokio::test]
async fn a_record_that_another_client_wrote_is_replaced_as_any_other() {
    let app = App::start().await;
    let debounce = Debounce::new(HOUR, HOUR).key("a");
    let name = app.client.publish_debounced(&debounce, &order(1)).await.unwrap().name;
    for since in ["nan", "inf", "-5", "x"] {
        let script = "redis.call('HSET', KEYS[1], ARGV[1], cmsgpack.pack({'type', 't', 'sj-id', 'e', \
                      'sj-debounced', ARGV[2], 'sj-due', '99999999999999'}))";
        let words = ["EVAL", script, "1", "{orders}:later-records", name.as_str(), since];
        app.server.command(&words);
        let waits = app.client.publish_debounced(&debounce, &order(2)).await.unwrap();
        assert_eq!(waits.replaced, Some(EventId::new("e").unwrap()), "{since}");
        assert!(waits.due < 99_999_999_999_999, "{since}: {}", waits.due);
    }
}

/// A publication each 20 ms for two seconds, 200 ms of quiet, at most 600 ms. A stalled machine can make a
/// round longer, and no event stale: what enters is what no later one has replaced.
#[tokio::test]
async fn a_steady_flow_of_debounced_events_enters_with_the_newest_payload() {
    let app = App::start().await;
    let store = streamjobs::__store::of(&app.client);
    let stream = StreamName::new("orders").unwrap();
    let debounce = Debounce::new(Duration::from_millis(200), Duration::from_millis(600));
    let (begun, mut published) = (Instant::now(), Vec::new());
    for tick in 0..500_u32 {
        sleep_until(begun + Duration::from_millis(5) * tick).await;
        if tick % 4 == 0 && tick < 400 {
            let event = Indexed { doc: 1, number: published.len() };
            published.push(app.client.publish_debounced(&debounce, &event).await.unwrap());
        }
        store.enter(&stream, Retention::Unlimited, 500, 0).await.unwrap();
    }
    eventually_async(DEADLINE, "the last has entered", async || {
        store.enter(&stream, Retention::Unlimited, 500, 0).await.unwrap();
        store.scheduled_count(&stream).await.unwrap() == 0
    })
    .await;
    let replaced = published.iter().filter_map(|event| event.replaced.clone());
    let replaced = replaced.collect::<HashSet<_>>();
    let kept = published.iter().filter(|event| !replaced.contains(&event.event_id));
    let kept = kept.map(|event| event.event_id.to_string()).collect::<Vec<_>>();
    let entries = app.server.entries("orders");
    let entered = entries.iter().filter_map(|entry| entry.text("sj-id")).collect::<Vec<_>>();
    assert_eq!(entered, kept, "each that was not replaced, once and in order");
    assert!((2..=5).contains(&entered.len()), "{}", entered.len());
    for entry in &entries {
        let time = |name: &str| entry.text(name).unwrap().parse::<u64>().unwrap();
        let at = entry.id.split('-').next().unwrap().parse::<u64>().unwrap();
        assert!(time("sj-due") - time("sj-debounced") <= 600 && at >= time("sj-due"));
    }
}
