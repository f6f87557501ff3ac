//! What is logged of failed attempts and dead letters.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::config::GroupOptions;
use streamjobs::testing::Streams;
use streamjobs::{Backoff, Event, JobError, Runtime, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
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

/// The fields of one line, its message among them.
type Line = (Level, BTreeMap<String, String>);

/// Keeps every line of the framework that is a warning or worse.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<Line>>>);

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
        if level <= Level::WARN && event.metadata().target().starts_with("streamjobs") {
            let mut fields = BTreeMap::new();
            event.record(&mut Fields(&mut fields));
            self.0.lock().unwrap().push((level, fields));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_is_one_warning_and_a_dead_letter_one_error() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
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
    let lines = lines.0.lock().unwrap().clone();
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
