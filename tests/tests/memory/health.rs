//! What is said of a group right after a start.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::testing::Streams;
use streamjobs::{Event, Runtime, handler, handlers};
use tokio::time::{Instant, sleep_until};

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Order {
    id: usize,
}

#[handler(group = "work")]
async fn done(_: Order) {}

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
