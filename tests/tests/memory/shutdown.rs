//! How long a shutdown takes, on streams in memory under a paused clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::testing::Streams;
use streamjobs::{Event, Runtime, handler, handlers};
use streamjobs_tests::eventually::eventually_async;

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Order {
    id: usize,
}

/// Waits for good, and does not look at its cancellation.
#[handler(group = "work")]
async fn deaf(_: Order) {
    std::future::pending::<()>().await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_ignores_its_cancellation_adds_a_second_to_the_grace() {
    let streams = Streams::new();
    let client = streams.client();
    let runtime = Runtime::builder(&client).handlers(handlers![deaf]).start().await.unwrap();
    for id in 0..3 {
        client.publish(&Order { id }).await.unwrap();
    }
    let running = async || runtime.health().queues.iter().any(|queue| queue.in_flight == 3);
    eventually_async(Duration::from_secs(60), "three are running", running).await;
    let report = runtime.shutdown().await;
    assert_eq!((report.released, report.abandoned.len()), (3, 0));
    // 25 s by default, and a second until a cancelled handler is dropped.
    assert!(report.took >= Duration::from_secs(25), "{:?}", report.took);
    assert!(report.took <= Duration::from_millis(26_500), "{:?}", report.took);
}
