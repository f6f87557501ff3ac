//! The events that a program has published, and the time that its jobs are told.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use streamjobs::testing::{EventsError, Streams};
use streamjobs::{
    Client, Entry, Event, EventId, Job, Runtime, State, StreamName, handler, handlers,
};
use streamjobs_tests::eventually::eventually_async;

#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed", key = "customer")]
struct Placed {
    customer: String,
}

#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.paid")]
struct Paid {
    cents: u32,
}

/// When each job ran, by the clock that it asked.
#[derive(Clone, Default)]
struct Times(Arc<Mutex<Vec<SystemTime>>>);

#[handler(group = "times", stream = "orders")]
async fn note_time(_entry: Entry, job: Job, State(times): State<Times>) {
    times.0.lock().unwrap().push(job.now());
}

fn placed(customer: &str) -> Placed {
    Placed { customer: customer.to_owned() }
}

#[tokio::test(start_paused = true)]
async fn events_of_a_type_are_shown_in_stream_order_with_their_ids_and_times() {
    let streams = Streams::new();
    let client = streams.client();
    let began = streams.now();
    let first = client.publish(&placed("ann")).await.unwrap();
    client.publish(&Paid { cents: 7 }).await.unwrap();
    tokio::time::advance(Duration::from_secs(60)).await;
    client.publish_with_id(&placed("bob"), EventId::new("mine").unwrap()).await.unwrap();
    let events = streams.published::<Placed>().unwrap();
    assert_eq!(
        events.iter().map(|event| &event.event).collect::<Vec<_>>(),
        [&placed("ann"), &placed("bob")]
    );
    let first_shown = (&events[0].event_id, events[0].entry_id, events[0].partition);
    assert_eq!(first_shown, (&first.event_id, first.entry_id, None));
    assert_eq!((events[1].event_id.as_str(), events[1].due), ("mine", None));
    assert_eq!(events[0].at, began);
    assert_eq!(events[1].at, began + Duration::from_secs(60));
    assert_eq!(events[1].entry.text("sj-key"), Some("bob"));
    assert_eq!(streams.published::<Paid>().unwrap()[0].event, Paid { cents: 7 });
}

#[tokio::test(start_paused = true)]
async fn scheduled_events_are_shown_by_when_they_are_due_until_they_enter() {
    let streams = Streams::new();
    let client = streams.client();
    let runtime = Runtime::builder(&client).handlers(handlers![note_time]).state(Times::default());
    let runtime = runtime.start().await.unwrap();
    let began = streams.now();
    client.publish_in(Duration::from_secs(600), &placed("bob")).await.unwrap();
    client.publish_in(Duration::from_secs(60), &placed("ann")).await.unwrap();
    client.publish_in(Duration::from_secs(30), &Paid { cents: 7 }).await.unwrap();
    let waiting = streams.scheduled::<Placed>().unwrap();
    let shown = waiting.iter().map(|event| (event.event.customer.as_str(), event.due));
    let due = |seconds| began + Duration::from_secs(seconds);
    assert_eq!(shown.collect::<Vec<_>>(), [("ann", due(60)), ("bob", due(600))]);
    assert!(streams.published::<Placed>().unwrap().is_empty());
    let entered = async || streams.scheduled::<Placed>().unwrap().len() == 1;
    eventually_async(Duration::from_secs(90), "one has entered", entered).await;
    let published = streams.published::<Placed>().unwrap();
    assert_eq!((published.len(), published[0].due), (1, Some(due(60))));
    assert!(published[0].at >= due(60) && published[0].event_id == waiting[0].event_id);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn events_of_other_streams_and_of_partitions_are_shown_as_well() {
    let streams = Streams::new();
    let client = streams.client_with(Client::builder("").partitions("orders", 4)).unwrap();
    client
        .publish_to(&StreamName::new("acme").unwrap(), &placed("zoe"), EventId::generate())
        .await
        .unwrap();
    for number in 0..20 {
        client.publish(&placed(&number.to_string())).await.unwrap();
    }
    let events = streams.published::<Placed>().unwrap();
    let numbers = events
        .iter()
        .map(|event| event.partition.unwrap())
        .collect::<std::collections::BTreeSet<_>>();
    assert_eq!((events.len(), numbers.len()), (20, 4));
    assert!(events.is_sorted_by_key(|event| event.entry_id));
    let orders = client.stream("orders").unwrap();
    assert!(orders.entry(events[3].address()).await.unwrap().is_some());
    assert_eq!(streams.published_to::<Placed>("acme").unwrap()[0].event, placed("zoe"));
    assert!(matches!(streams.scheduled_to::<Placed>("a{"), Err(EventsError::Name(_))));
}

#[tokio::test]
async fn an_entry_that_cannot_be_decoded_is_named() {
    use streamjobs::__store::raw_access::RawAccess;
    let streams = Streams::new();
    let fields = vec![("type".into(), "order.paid".into()), ("data".into(), "{}".into())];
    let id = streamjobs::__store::behind(&streams).append("orders", fields);
    let error = streams.published::<Paid>().unwrap_err();
    assert!(error.to_string().contains(&format!("entry {id} of stream orders")), "{error}");
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_job_is_told_the_time_of_the_streams() {
    let (streams, times) = (Streams::new(), Times::default());
    let client = streams.client();
    let runtime = Runtime::builder(&client).handlers(handlers![note_time]).state(times.clone());
    let runtime = runtime.start().await.unwrap();
    let began = streams.now();
    client.publish(&placed("ann")).await.unwrap();
    let told = async |count| {
        let told = async || times.0.lock().unwrap().len() == count;
        eventually_async(Duration::from_secs(60), "told the time", told).await;
        times.0.lock().unwrap()[count - 1]
    };
    let first = told(1).await;
    assert!(first >= began && first <= streams.now());
    streams.step_clock(86_400_000);
    client.publish(&placed("bob")).await.unwrap();
    let second = told(2).await;
    assert!(second >= began + Duration::from_secs(86_400) && second <= streams.now());
    let _ = runtime.shutdown().await;
}
