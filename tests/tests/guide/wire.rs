//! The test vectors of `docs/wire-format.md`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use streamjobs::{
    Client, EncodedEvent, Entry, EntryId, Event, EventId, Fields, GroupName, Job, Payload, Runtime,
    State, StreamName, handler, handlers,
};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::RedisServer;

#[derive(Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed", key = "customer")]
struct Placed {
    order_id: String,
    customer: String,
    cents: u32,
    gift: Option<String>,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.packed", encoding = "fields")]
struct Packed {
    order_id: String,
    parcels: u8,
    fragile: bool,
    sizes: Vec<serde_json::Number>,
    note: Option<String>,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders")]
enum Flow {
    #[event(type = "order.paid", key = "order_id")]
    Paid { order_id: String },
    #[event(type = "order.noted")]
    Noted(String),
    #[event(type = "order.closed")]
    Closed,
}

fn vectors() -> Value {
    let page = include_str!("../../../docs/wire-format.md");
    let vectors = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    serde_json::from_str(vectors).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn fields(value: &Value) -> Fields {
    let texts = texts(value);
    texts.chunks(2).map(|pair| (pair[0].clone().into(), pair[1].clone().into())).collect()
}

/// The names and values that are written for an event.
fn written(event: &impl Event, id: &str) -> Vec<String> {
    let encoded = EncodedEvent::with_id(event, EventId::new(id).unwrap()).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let pairs = encoded.fields().iter().map(|(name, value)| [text(name), text(value)]);
    pairs.flatten().collect()
}

fn placed(gift: Option<&str>) -> Placed {
    let gift = gift.map(str::to_owned);
    Placed { order_id: "o-1".into(), customer: "Zoë".into(), cents: 4950, gift }
}

#[test]
fn entries_are_written_as_the_vectors_say() {
    let number = |text: &str| serde_json::from_str(text).unwrap();
    let packed = Packed {
        order_id: "o-1".into(),
        parcels: 2,
        fragile: true,
        sizes: vec![number("1"), number("2.5")],
        note: None,
    };
    let of = &vectors()["written"];
    assert_eq!(written(&placed(None), "e-1"), texts(&of["struct, json"]));
    assert_eq!(written(&packed, "e-2"), texts(&of["struct, fields"]));
    let paid = Flow::Paid { order_id: "o-1".into() };
    assert_eq!(written(&paid, "e-3"), texts(&of["variant with named fields"]));
    assert_eq!(
        written(&Flow::Noted("fragile".into()), "e-4"),
        texts(&of["variant with one value"])
    );
    assert_eq!(written(&Flow::Closed, "e-5"), texts(&of["variant without content"]));
    assert_eq!(of.as_object().unwrap().len(), 5);
}

/// What a reader makes of an entry.
fn read(fields: Fields) -> Option<Placed> {
    let entry = Entry::new(EntryId::new(1, 0), fields);
    let payload = match entry.field("data") {
        Some(data) => Payload::Json(data),
        None => Payload::Fields(entry.fields()),
    };
    Placed::decode(entry.event_type()?, payload).ok()
}

#[test]
fn entries_are_read_and_refused_as_the_vectors_say() {
    let vectors = vectors();
    for vector in vectors["read"].as_array().unwrap() {
        assert_eq!(read(fields(vector)), Some(placed(None)), "{vector}");
    }
    for vector in vectors["refused"].as_array().unwrap() {
        assert_eq!(read(fields(vector)), None, "{vector}");
    }
}

#[test]
fn ids_are_derived_as_the_vectors_say() {
    for vector in vectors()["derived"].as_array().unwrap() {
        let parent = EventId::new(vector[0].as_str().unwrap()).unwrap();
        let derived = parent.derive(vector[1].as_u64().unwrap());
        assert_eq!(derived.as_str(), vector[2].as_str().unwrap());
    }
}

#[test]
fn helper_keys_are_called_as_the_page_says() {
    let page = include_str!("../../../docs/wire-format.md");
    let group = GroupName::new("billing").unwrap();
    for stream in ["orders", "orders:{eu}"] {
        let stream = StreamName::new(stream).unwrap();
        assert!(page.contains(&format!("`{}`", stream.lane_key(&group))));
    }
    let orders = StreamName::new("orders").unwrap();
    for key in [
        orders.retry_key(&group),
        orders.retry_records_key(&group),
        orders.dead_key(&group),
        orders.group_key(&group),
    ] {
        assert!(page.contains(&format!("`{key}`")), "{key}");
    }
}

type Ids = Arc<Mutex<Vec<String>>>;

#[handler(group = "ids", stream = "orders")]
async fn note_any(_: Entry, job: Job, State(ids): State<Ids>) {
    ids.lock().unwrap().push(job.event_id().to_string());
}

#[tokio::test]
async fn an_entry_of_another_client_has_the_id_of_its_content() {
    for vector in vectors()["content"].as_array().unwrap() {
        let (server, ids) = (RedisServer::start().unwrap(), Ids::default());
        let client = Client::connect(&server.url()).await.unwrap();
        let mut command = vec!["XADD".to_owned()];
        command.extend([0, 1].map(|part| vector[part].as_str().unwrap().to_owned()));
        command.extend(texts(&vector[2]));
        server.command(&command.iter().map(String::as_str).collect::<Vec<_>>());
        let builder = Runtime::builder(&client).handlers(handlers![note_any]).state(ids.clone());
        let runtime = builder.start().await.unwrap();
        let noted = async || !ids.lock().unwrap().is_empty();
        eventually_async(Duration::from_secs(20), "the job ran", noted).await;
        assert_eq!(*ids.lock().unwrap(), [vector[3].as_str().unwrap()]);
        assert!(runtime.shutdown().await.abandoned.is_empty());
    }
}
