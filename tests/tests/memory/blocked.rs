//! Jobs that cannot run until an operator has repaired something, on streams in memory under a
//! paused clock: they wait uncounted, one alert says why, and they run by themselves afterwards.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::MemoryStore;
use streamjobs::runtime::Alert;
use streamjobs::stream::Condition;
use streamjobs::{Event, JobError, Runtime, State, handler, handlers};
use streamjobs_tests::eventually::eventually_async;

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Order {
    id: usize,
}

#[derive(Clone, Default)]
struct Repaired(Arc<AtomicBool>);

#[handler(group = "work", max_attempts = 2)]
async fn work(_: Order, State(repaired): State<Repaired>) -> Result<(), JobError> {
    if repaired.0.load(Ordering::Relaxed) {
        return Ok(());
    }
    Err(JobError::blocked(Duration::from_secs(10), "role shop lacks INSERT on\ncharges"))
}

#[tokio::test(start_paused = true)]
async fn blocked_jobs_wait_uncounted_with_one_alert_and_run_after_the_repair() {
    let client = streamjobs::__store::client(&MemoryStore::new());
    for id in 0..6 {
        client.publish(&Order { id }).await.unwrap();
    }
    let (repaired, alerts) = (Repaired::default(), Arc::<Mutex<Vec<Alert>>>::default());
    let heard = Arc::clone(&alerts);
    let builder = Runtime::builder(&client).handlers(handlers![work]).state(repaired.clone());
    let builder = builder.on_alert(move |alert| heard.lock().unwrap().push(alert.clone()));
    let runtime = builder.start().await.unwrap();
    let often = async || runtime.counters().snoozed >= 120;
    eventually_async(LIMIT, "snoozed again and again", often).await;
    let raised = alerts.lock().unwrap().clone();
    assert_eq!(raised.len(), 1, "{raised:?}");
    assert_eq!((raised[0].condition, raised[0].raised), (Condition::JobsBlocked, true));
    let text = &raised[0].text;
    assert!(text.ends_with("snoozed: role shop lacks INSERT on\\ncharges"), "{text}");
    repaired.0.store(true, Ordering::Relaxed);
    eventually_async(LIMIT, "all run", async || runtime.counters().succeeded == 6).await;
    let counters = runtime.counters();
    assert_eq!((counters.failed, counters.dead_lettered), (0, 0));
    let over = async || alerts.lock().unwrap().last().is_some_and(|alert| !alert.raised);
    eventually_async(LIMIT, "the alert is over", over).await;
    let _ = runtime.shutdown().await;
}

const LIMIT: Duration = Duration::from_secs(3_600);
