//! Functions that see each event before it is sent, on streams in memory.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use streamjobs::error::PublishError;
use streamjobs::testing::Streams;
use streamjobs::unique::{Debounce, Unique};
use streamjobs::{
    Client, Event, EventId, Job, JobError, Outgoing, Runtime, State, StreamName, handler, handlers,
};

#[derive(Clone, Debug, Serialize, Deserialize, Event)]
#[event(stream = "orders", type = "order", key = "customer")]
struct Order {
    customer: String,
}

/// The flat encoding has the payload and the headers side by side.
#[derive(Clone, Debug, Serialize, Deserialize, Event)]
#[event(stream = "orders", type = "flat", encoding = "fields")]
struct Flat {
    customer: String,
}

fn order(customer: &str) -> Order {
    Order { customer: customer.to_owned() }
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// Refuses the customer "banned", and gives all others a header.
fn client(streams: &Streams, seen: &Seen) -> Client {
    let seen = seen.clone();
    let builder = Client::builder("redis://unused")
        .on_publish(move |event: &mut Outgoing<'_>| {
            let text = format!("{} {} {:?}", event.stream(), event.event_type(), event.key());
            seen.0.lock().unwrap().push(text);
            if event.key() == Some("banned") {
                return Err("no orders of this customer".into());
            }
            event.set_header("tenant", "first")?;
            Ok(())
        })
        .on_publish(|event| {
            assert_eq!(event.header("tenant"), Some("first"), "{event:?}");
            Ok(event.set_header("tenant", "t-7")?)
        })
        .payload_bytes_max(1_000);
    streams.client_with(builder).unwrap()
}

#[handler(group = "work", max_attempts = 2, backoff = "1s")]
async fn work(_: Order, job: Job, State(seen): State<Seen>) -> Result<(), JobError> {
    let tenant = job.header("tenant").unwrap_or("none").to_owned();
    seen.0.lock().unwrap().push(format!("{tenant} {}", job.attempt()));
    match job.attempt() {
        1 => Err(JobError::retry("not yet")),
        _ => Ok(()),
    }
}

#[handler(group = "work")]
async fn flat(event: Flat, job: Job, State(seen): State<Seen>) {
    let tenant = job.header("tenant").unwrap_or("none");
    seen.0.lock().unwrap().push(format!("{} {tenant}", event.customer));
}

#[tokio::test(start_paused = true)]
async fn every_way_to_publish_is_seen_once_for_each_event() {
    let (streams, seen) = (Streams::new(), Seen::default());
    let client = client(&streams, &seen);
    let hour = Duration::from_secs(3_600);
    let id = |text: &str| EventId::new(text).unwrap();
    let expect = |what: &str, count: usize| {
        let seen = seen.take();
        assert_eq!(seen.len(), count, "{what}: {seen:?}");
        assert!(seen.iter().all(|text| text == "orders order Some(\"a\")"), "{what}: {seen:?}");
    };
    client.publish(&order("a")).await.unwrap();
    expect("publish", 1);
    client.publish_all(&[order("a"), order("a")]).await.into_iter().for_each(|done| {
        done.unwrap();
    });
    expect("publish_all", 2);
    let encoded = client.encode(&order("a"), id("e-1")).unwrap();
    expect("encode sends nothing", 0);
    client.publish_encoded(vec![encoded.clone()]).await.remove(0).unwrap();
    expect("publish_encoded", 1);
    let at = SystemTime::now() + hour;
    client.publish_encoded_at(vec![(at, encoded)]).await.remove(0).unwrap();
    expect("publish_encoded_at", 1);
    client.publish_in(hour, &order("a")).await.unwrap();
    expect("publish_in", 1);
    client.publish_at(at, &order("a")).await.unwrap();
    expect("publish_at", 1);
    let events = [order("a")];
    let all = events.iter().map(|event| (at, id("e-2"), event)).collect::<Vec<_>>();
    client.publish_all_at(all).await.remove(0).unwrap();
    expect("publish_all_at", 1);
    let unique = Unique::within(hour).key("k");
    client.publish_unique(&unique, &order("a")).await.unwrap();
    expect("publish_unique", 1);
    let debounce = Debounce::new(hour, hour).key("k");
    client.publish_debounced(&debounce, &order("a")).await.unwrap();
    expect("publish_debounced", 1);
    let other = StreamName::new("others").unwrap();
    client.publish_to(&other, &order("a"), id("e-3")).await.unwrap();
    assert_eq!(seen.take(), ["others order Some(\"a\")"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_event_is_not_stored_and_others_of_its_batch_are() {
    let (streams, seen) = (Streams::new(), Seen::default());
    let client = client(&streams, &seen);
    let refused = client.publish(&order("banned")).await.unwrap_err();
    assert!(matches!(refused, PublishError::Refused { .. }) && !refused.is_unconfirmed());
    let source = std::error::Error::source(&refused).unwrap().to_string();
    assert_eq!(source, "no orders of this customer");
    assert!(!refused.to_string().contains("banned"), "{refused}");
    let hour = Duration::from_secs(3_600);
    let unique = Unique::within(hour).key("k");
    client.publish_unique(&unique, &order("banned")).await.unwrap_err();
    assert!(client.publish_unique(&unique, &order("a")).await.unwrap().is_new(), "no lock is left");
    client.publish_in(hour, &order("banned")).await.unwrap_err();
    let debounce = Debounce::new(hour, hour).key("k");
    client.publish_debounced(&debounce, &order("banned")).await.unwrap_err();
    assert!(client.scheduled("orders").unwrap().list(None, 9).await.unwrap().events.is_empty());
    let all = [order("a"), order("banned"), order("b")];
    let answers = client.publish_all(&all).await;
    let stored = answers.iter().map(Result::is_ok).collect::<Vec<_>>();
    assert_eq!(stored, [true, false, true]);
    assert_eq!(client.stream("orders").unwrap().sizes().await.unwrap().length, 3);
}

#[tokio::test(start_paused = true)]
async fn a_header_is_there_in_each_attempt_and_is_no_part_of_the_payload() {
    let (streams, seen) = (Streams::new(), Seen::default());
    let client = client(&streams, &Seen::default());
    client.publish(&order("a")).await.unwrap();
    client.publish(&Flat { customer: "b".to_owned() }).await.unwrap();
    let builder = Runtime::builder(&client).handlers(handlers![work, flat]).state(seen.clone());
    let runtime = builder.start().await.unwrap();
    streams.drain(Duration::from_secs(60)).await.unwrap();
    let _ = runtime.shutdown().await;
    let mut seen = seen.take();
    seen.sort();
    assert_eq!(seen, ["b t-7", "t-7 1", "t-7 2"]);
}

#[tokio::test(start_paused = true)]
async fn headers_count_for_the_size_of_an_event_and_their_names_are_checked() {
    let streams = Streams::new();
    let builder = Client::builder("redis://unused").payload_bytes_max(200);
    let builder = builder.on_publish(|event| {
        assert!(event.set_header("Tenant", "x").is_err());
        Ok(event.set_header("tenant", "x".repeat(200))?)
    });
    let client = streams.client_with(builder).unwrap();
    let refused = client.publish(&order("a")).await.unwrap_err();
    assert!(matches!(refused, PublishError::TooLarge { bytes_max: 200, .. }), "{refused}");
}

/// A relay that unwinds would read the same row again, for good.
#[tokio::test(start_paused = true)]
async fn a_function_that_panics_refuses_the_event() {
    let streams = Streams::new();
    let builder = Client::builder("redis://unused").on_publish(|event| match event.key() {
        Some("odd") => panic!("an odd customer"),
        _ => Ok(()),
    });
    let client = streams.client_with(builder).unwrap();
    let answers = client.publish_all(&[order("even"), order("odd"), order("even")]).await;
    let refused = answers.iter().map(Result::is_err).collect::<Vec<_>>();
    assert_eq!(refused, [false, true, false]);
    let error = answers.into_iter().nth(1).unwrap().unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("has panicked: an odd customer"), "{source}");
    assert!(!error.is_unconfirmed() && streams.length("orders") == 2);
}
