//! A group that is destroyed, under a paused clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::MemoryStore;
use streamjobs::config::GroupOptions;
use streamjobs::stream::{StreamError, Unfinished};
use streamjobs::{Event, Runtime, handler, handlers};
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Placed {}

#[handler(group = "work")]
async fn placed(_order: Placed) {}

/// Its process would create the group again, at the beginning of the stream.
#[tokio::test(start_paused = true)]
async fn a_group_is_not_destroyed_between_two_heartbeats_of_an_idle_process() {
    let store = MemoryStore::new();
    let client = streamjobs::__store::client(&store);
    let long = GroupOptions::new().lease(Duration::from_secs(60));
    let builder = Runtime::builder(&client).handlers(handlers![placed]).group("work", long);
    let runtime = builder.start().await.unwrap();
    client.publish(&Placed {}).await.unwrap();
    let wait = async |seconds| sleep_until(Instant::now() + Duration::from_secs(seconds)).await;
    wait(300).await;
    let group = client.stream("orders").unwrap().group("work").unwrap();
    for _ in 0..60 {
        let error = group.check_destroy(Unfinished::Keep).await.unwrap_err();
        assert!(matches!(error, StreamError::Alive { .. }), "{error}");
        wait(1).await;
    }
    let _ = runtime.shutdown().await;
    group.check_destroy(Unfinished::Keep).await.unwrap();
}
