//! What is said of a group right after a start, after a pause, and of a cursor beyond the end.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::MemoryStore;
use streamjobs::__store::raw_access::RawAccess;
use streamjobs::stream::Liveness;
use streamjobs::testing::Streams;
use streamjobs::{Client, EntryId, Event, Runtime, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use tokio::time::{Instant, sleep_until, timeout};

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Order {
    id: usize,
}

#[handler(group = "work")]
async fn done(_: Order) {}

async fn diagnosis(client: &Client) -> String {
    let group = client.stream("orders").unwrap().group("work").unwrap();
    group.diagnose().await.unwrap().to_string()
}

#[tokio::test(start_paused = true)]
async fn an_idle_runtime_is_healthy_from_its_start_on() {
    let streams = Streams::new();
    let builder = Runtime::builder(&streams.client()).handlers(handlers![self::done]);
    let runtime = builder.start().await.unwrap();
    let health = runtime.health();
    assert!(health.is_healthy(), "{health:?}");
    for second in 1..30 {
        sleep_until(Instant::now() + Duration::from_secs(1)).await;
        assert!(runtime.health().is_healthy(), "second {second}");
    }
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_handle_on_the_runtime_says_its_health_and_counters() {
    let streams = Streams::new();
    let client = streams.client();
    let builder = Runtime::builder(&client).handlers(handlers![self::done]);
    let runtime = builder.start().await.unwrap();
    let control = runtime.control();
    client.publish(&Order { id: 1 }).await.unwrap();
    let within = Duration::from_secs(20);
    eventually_async(within, "done", async || control.counters().succeeded == 1).await;
    assert_eq!(control.health(), runtime.health());
    assert!(control.health().is_healthy() && control.health().queues.len() == 1);
    streams.stop();
    eventually_async(within, "red", async || !control.health().is_healthy()).await;
    streams.start();
    eventually_async(within, "green", async || control.health().is_healthy()).await;
    let _ = runtime.shutdown().await;
    assert!(control.health().queues.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_idle_process_is_shown_from_its_start_on() {
    let streams = Streams::new();
    let client = streams.client();
    let builder = Runtime::builder(&client).handlers(handlers![self::done]);
    let runtime = builder.start().await.unwrap();
    let group = client.stream("orders").unwrap().group("work").unwrap();
    for second in 0..60 {
        let consumers = group.consumers().await.unwrap();
        let shown = consumers.iter().map(|one| (one.name.clone(), one.liveness, one.process));
        let (name, process) = (runtime.consumer().to_string(), std::process::id());
        let expected = [(name, Liveness::Alive, Some(process))];
        assert_eq!(shown.collect::<Vec<_>>(), expected, "second {second}");
        assert_eq!(consumers[0].slots, Some(16), "second {second}");
        sleep_until(Instant::now() + Duration::from_secs(1)).await;
    }
    assert_eq!(diagnosis(&client).await, "healthy");
    let _ = runtime.shutdown().await;
    assert!(group.consumers().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn after_a_long_pause_its_consumers_have_time_to_read() {
    let streams = Streams::new();
    let client = streams.client();
    let builder = Runtime::builder(&client).handlers(handlers![self::done]);
    let runtime = builder.start().await.unwrap();
    let group = client.stream("orders").unwrap().group("work").unwrap();
    let finished = async |jobs| {
        let finished = async || runtime.counters().acknowledged == jobs;
        eventually_async(Duration::from_secs(60), "done", finished).await;
    };
    client.publish(&Order { id: 0 }).await.unwrap();
    finished(1).await;
    assert!(group.pause().await.unwrap());
    sleep_until(Instant::now() + Duration::from_secs(30)).await;
    client.publish(&Order { id: 1 }).await.unwrap();
    sleep_until(Instant::now() + Duration::from_secs(3600)).await;
    let paused = diagnosis(&client).await;
    assert!(paused.starts_with("paused for 3630 s"), "{paused}");
    assert!(group.resume().await.unwrap());
    assert_eq!(diagnosis(&client).await, "healthy");
    finished(2).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_cursor_beyond_the_end_is_a_problem_and_an_alert() {
    let store = MemoryStore::new();
    let client = streamjobs::__store::client(&store);
    let builder = Runtime::builder(&client).handlers(handlers![self::done]);
    let runtime = builder.start().await.unwrap();
    let mut alerts = runtime.alerts();
    store.set_cursor("orders", "work", EntryId::new(17_000_000_000_000_000, 3));
    let last = client.publish(&Order { id: 1 }).await.unwrap().entry_id;
    let text = format!("the cursor 17000000000000000-3 is beyond the last id {last}");
    let said = diagnosis(&client).await;
    assert!(said.starts_with(&text), "{said}");
    let alert = timeout(Duration::from_secs(600), alerts.next()).await.unwrap().unwrap();
    assert!(alert.raised && alert.text.starts_with(&text), "{alert}");
    let _ = runtime.shutdown().await;
}
