//! What is logged of failed attempts, dead letters and outages of the server.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::Fault;
use streamjobs::config::{GroupOptions, Start};
use streamjobs::testing::Streams;
use streamjobs::{Backoff, Event, JobError, Runtime, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::logs;
use tokio::time::Instant;
use tracing::Level;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Order {
    id: usize,
}

#[handler(group = "work")]
async fn fail(_: Order) -> Result<(), JobError> {
    Err("no".into())
}

#[handler(group = "other")]
async fn succeed(_: Order) -> Result<(), JobError> {
    Ok(())
}

/// The fields of one line, its message among them.
type Line = (Level, BTreeMap<String, String>);

/// Keeps every line of the framework of a level or worse.
#[derive(Clone)]
struct Lines(Level, Arc<Mutex<Vec<Line>>>);

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl<S: tracing::Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        let level = *event.metadata().level();
        if level <= self.0 && event.metadata().target().starts_with("streamjobs") {
            let mut fields = BTreeMap::new();
            event.record(&mut Fields(&mut fields));
            self.1.lock().unwrap().push((level, fields));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_is_one_warning_and_a_dead_letter_one_error() {
    let lines = Lines(Level::WARN, Arc::default());
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    let _guard = logs::of_this_thread(subscriber);
    let client = Streams::new().client();
    let options = GroupOptions::new()
        .max_attempts(NonZeroU32::new(2).unwrap())
        .backoff(Backoff::fixed(Duration::from_secs(7)));
    let builder = Runtime::builder(&client).handlers(handlers![self::fail]);
    let runtime = builder.group("work", options).start().await.unwrap();
    let event_id = client.publish(&Order { id: 1 }).await.unwrap().event_id.to_string();
    let ended = async || runtime.counters().dead_lettered == 1;
    eventually_async(Duration::from_secs(600), "a dead letter", ended).await;
    let _ = runtime.shutdown().await;
    let lines = lines.1.lock().unwrap().clone();
    let failed = lines.iter().map(|(level, _)| *level).collect::<Vec<_>>();
    assert_eq!(failed, [Level::WARN, Level::ERROR], "{lines:#?}");
    for (number, own) in [
        (0, vec![("message", "attempt failed, retry scheduled"), ("retry_in", "7s")]),
        (1, vec![("message", "stored as a dead letter"), ("reason", "exhausted")]),
    ] {
        let (attempt, fields) = ((number + 1).to_string(), &lines[number].1);
        let common = [
            ("stream", "orders"),
            ("group", "work"),
            ("event_type", "order.placed"),
            ("event_id", &event_id),
            ("attempt", &attempt),
            ("attempts_max", "2"),
            ("error", "no"),
        ];
        for (field, value) in own.into_iter().chain(common) {
            assert_eq!(fields.get(field).map(String::as_str), Some(value), "{field}: {fields:?}");
        }
        assert!(fields["handler"].starts_with("memory::log::fail ("), "{fields:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_group_warns_once_how_many_old_events_it_runs_and_what_the_choice_is() {
    let lines = Lines(Level::WARN, Arc::default());
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    let _guard = logs::of_this_thread(subscriber);
    let streams = Streams::new();
    let client = streams.client();
    for id in 0..3 {
        client.publish(&Order { id }).await.unwrap();
    }
    let start = async || {
        let builder = Runtime::builder(&client).handlers(handlers![self::succeed]);
        let runtime = builder.start().await.unwrap();
        streams.drain(Duration::from_secs(60)).await.unwrap();
        let _ = runtime.shutdown().await;
        std::mem::take(&mut *lines.1.lock().unwrap())
    };
    let first = start().await;
    assert_eq!(first.len(), 1, "{first:#?}");
    let (level, fields) = &first[0];
    assert_eq!((*level, &*fields["stream"], &*fields["group"]), (Level::WARN, "orders", "other"));
    assert_eq!(fields["entries"], "3");
    assert!(fields["choice"].contains("start = \"$\""), "{fields:?}");
    // The group is there: it goes on where it was, with what is published meanwhile.
    client.publish(&Order { id: 3 }).await.unwrap();
    assert_eq!(start().await, []);
    // A new group of a stream without entries, and one that begins at the end, have no old events.
    let empty = Streams::new().client();
    for (client, begin) in [(&empty, Start::Beginning), (&client, Start::End)] {
        let builder = Runtime::builder(client).handlers(handlers![self::fail]);
        let builder = builder.group("work", GroupOptions::new().start(begin));
        let _ = builder.start().await.unwrap().shutdown().await;
    }
    assert_eq!(*lines.1.lock().unwrap(), []);
}

/// Two groups with all their loops notice an outage of two and a half minutes.
#[tokio::test(start_paused = true)]
async fn an_outage_is_one_line_when_it_begins_one_a_minute_and_one_when_it_ends() {
    let lines = Lines(Level::INFO, Arc::default());
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    let _guard = logs::of_this_thread(subscriber);
    let streams = Streams::new();
    let (client, store) = (streams.client(), streamjobs::__store::behind(&streams));
    let builder = Runtime::builder(&client).handlers(handlers![self::fail, self::succeed]);
    let runtime = builder.start().await.unwrap();
    let errors = || runtime.counters().server_errors;
    let said = |text: &str| {
        let lines = lines.1.lock().unwrap();
        let messages = lines.iter().map(|(_, fields)| fields["message"].clone());
        messages.filter(|message| message.contains(text)).count()
    };
    // A refusal is no outage, and its line is not lost in one.
    store.fail_next("heartbeat", Fault::Refused);
    let refused = async || said("Redis command failed: the server refused: WRONGTYPE") == 1;
    eventually_async(Duration::from_secs(60), "a refusal is logged", refused).await;
    assert_eq!(said("reachable"), 0);
    store.stop_server();
    let outage = Instant::now();
    let lasted = async || outage.elapsed() > Duration::from_secs(150);
    eventually_async(Duration::from_secs(200), "two and a half minutes", lasted).await;
    assert!(errors() > 200, "{}", errors());
    assert_eq!(said("Redis is not reachable: no connection to the server"), 1);
    assert_eq!(said("Redis is still not reachable: no connection to the server"), 2);
    assert_eq!(said("Redis"), 4);
    store.start_server();
    let ended = async || said("Redis is reachable again after 15") == 1;
    eventually_async(Duration::from_secs(60), "the end is logged", ended).await;
    assert_eq!((said("Redis"), said("read connection reopened")), (5, 0));
    // The next one is logged again.
    store.stop_server();
    let again = async || said("Redis is not reachable") == 2;
    eventually_async(Duration::from_secs(60), "the next outage is logged", again).await;
    store.start_server();
    let _ = runtime.shutdown().await;
}
