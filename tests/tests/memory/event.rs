//! What is known of one event, while its jobs go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::stream::{EventReport, JobState};
use streamjobs::testing::Streams;
use streamjobs::{Client, Event, EventId, JobError, Runtime, State, handler, handlers};

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Order {
    id: usize,
}

/// Whether jobs fail.
#[derive(Clone, Default)]
struct Declined(Arc<AtomicBool>);

#[handler(group = "billing", max_attempts = 2, backoff = "1h")]
async fn charge(_: Order, State(declined): State<Declined>) -> Result<(), JobError> {
    match declined.0.load(Ordering::Relaxed) {
        true => Err("the card was declined".into()),
        false => Ok(()),
    }
}

async fn report(client: &Client, id: &EventId) -> EventReport {
    client.stream("orders").unwrap().event(id).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_event_is_followed_from_publishing_to_its_end() {
    let (streams, declined) = (Streams::new(), Declined::default());
    let client = streams.client();
    let soon = Duration::from_secs(600);
    let later = client.publish_in(soon, &Order { id: 0 }).await.unwrap().event_id().clone();
    let known = report(&client, &later).await;
    assert!(known.is_known() && known.scheduled.is_some() && known.jobs.is_empty());

    let builder = Runtime::builder(&client).handlers(handlers![self::charge]);
    let runtime = builder.state(declined.clone()).start().await.unwrap();
    streams.drain(Duration::from_secs(1_200)).await.unwrap();
    let known = report(&client, &later).await;
    assert!(matches!(known.jobs[0].state, JobState::Ended), "{known:?}");
    assert_eq!(known.event_type.as_deref(), Some("order.placed"));
    assert!(known.scheduled.is_none() && known.entry.is_some() && known.trace_id.is_none());

    declined.0.store(true, Ordering::Relaxed);
    let failing = client.publish(&Order { id: 1 }).await.unwrap();
    streams.drain(Duration::from_secs(10)).await.unwrap();
    let known = report(&client, &failing.event_id).await;
    let JobState::Retrying(retry) = &known.jobs[0].state else { panic!("{known:?}") };
    assert_eq!((retry.attempts, known.jobs[0].state.error()), (1, Some("the card was declined")));
    assert_eq!(known.entry, Some(failing.address()));
    streams.drain(Duration::from_secs(7_200)).await.unwrap();
    let known = report(&client, &failing.event_id).await;
    let JobState::Dead(letter) = &known.jobs[0].state else { panic!("{known:?}") };
    assert_eq!((letter.attempts, known.jobs[0].state.as_str()), (2, "dead"));

    // By its entry, and after a redrive.
    let orders = client.stream("orders").unwrap();
    let by_entry = orders.event_of(failing.address()).await.unwrap().unwrap();
    assert_eq!(by_entry.event_id, failing.event_id);
    declined.0.store(false, Ordering::Relaxed);
    let letters = client.dead_letters("orders", "billing").unwrap();
    letters.redrive(letter.address()).await.unwrap();
    streams.drain(Duration::from_secs(10)).await.unwrap();
    let known = report(&client, &failing.event_id).await;
    assert!(matches!(known.jobs[0].state, JobState::Ended), "{known:?}");
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_not_compared_is_unknown_and_not_done() {
    let (streams, declined) = (Streams::new(), Declined::default());
    let client = streams.client();
    let builder = Runtime::builder(&client).handlers(handlers![self::charge]);
    let runtime = builder.state(declined.clone()).start().await.unwrap();
    // An id of the caller does not say when it was made.
    let id = EventId::new("o-1").unwrap();
    let first = client.publish_with_id(&Order { id: 0 }, id.clone()).await.unwrap();
    streams.drain(Duration::from_secs(10)).await.unwrap();
    declined.0.store(true, Ordering::Relaxed);
    for id in 1..1_100 {
        client.publish(&Order { id }).await.unwrap();
    }
    streams.drain(Duration::from_secs(10)).await.unwrap();
    let known = report(&client, &id).await;
    assert!(!known.searched && known.entry.is_none(), "{known:?}");
    assert!(matches!(known.jobs[0].state, JobState::Unknown) && !known.is_known(), "{known:?}");
    // Its entry is found at once; but of 1,099 retries, 1,000 were compared.
    let orders = client.stream("orders").unwrap();
    let known = orders.event_of(first.address()).await.unwrap().unwrap();
    assert!(known.searched && known.is_known());
    assert!(matches!(known.jobs[0].state, JobState::Unknown), "{known:?}");
    assert_eq!(known.jobs[0].state.attempts(), None);
    let gone = streamjobs::EntryId::new(1, 0);
    assert!(orders.event_of(gone).await.unwrap().is_none());
    let _ = runtime.shutdown().await;
}
