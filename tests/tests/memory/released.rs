//! What a clean stop leaves: released jobs are neither abandoned nor anyone's, on streams in memory
//! under a paused clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::config::AlertRules;
use streamjobs::runtime::Alert;
use streamjobs::stream::{Condition, Group, PendingQuery};
use streamjobs::testing::Streams;
use streamjobs::{Event, Runtime, State, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Order {
    id: usize,
}

#[derive(Clone, Default)]
struct Gate(Arc<Notify>);

#[handler(group = "work")]
async fn stuck(_: Order, State(gate): State<Gate>) {
    gate.0.notified().await;
}

#[handler(group = "work")]
async fn done(_: Order) {}

struct Stage {
    streams: Streams,
    alerts: Arc<Mutex<Vec<Alert>>>,
}

impl Stage {
    fn group(&self) -> Group {
        self.streams.client().stream("orders").unwrap().group("work").unwrap()
    }

    async fn problems(&self) -> Vec<&'static str> {
        let problems = self.group().diagnose().await.unwrap().problems;
        problems.iter().map(|problem| problem.as_str()).collect()
    }

    /// A process with five jobs that do not end, which stops and releases them.
    async fn leave(&self) {
        let builder = Runtime::builder(&self.streams.client()).handlers(handlers![stuck]);
        let builder = builder.state(Gate::default()).grace(Duration::from_millis(1));
        let leaving = builder.start().await.unwrap();
        for id in 0..5 {
            self.streams.client().publish(&Order { id }).await.unwrap();
        }
        let running = async || self.group().info().await.unwrap().pending == 5;
        eventually_async(Duration::from_secs(60), "five are running", running).await;
        assert_eq!(leaving.shutdown().await.released, 5);
    }

    /// A process that raises an alert for any claim and for a second without a renewal.
    async fn remain(&self) -> Runtime {
        let builder = Runtime::builder(&self.streams.client()).handlers(handlers![done]);
        let rules = AlertRules::new().claims_per_minute(1).oldest_pending(Duration::from_secs(20));
        let alerts = Arc::clone(&self.alerts);
        let builder = builder.alerts(rules.pending(1));
        let builder = builder.on_alert(move |alert| alerts.lock().unwrap().push(alert.clone()));
        builder.start().await.unwrap()
    }
}

fn stage() -> Stage {
    Stage { streams: Streams::new(), alerts: Arc::default() }
}

async fn wait(seconds: u64) {
    sleep_until(Instant::now() + Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_beside_a_process_raises_no_alert_and_is_no_problem() {
    let stage = stage();
    stage.leave().await;
    // In a pause nothing is claimed, so that what was released stays for long.
    assert!(stage.group().pause().await.unwrap());
    let remaining = stage.remain().await;
    wait(1_000).await;
    let info = stage.group().info().await.unwrap();
    assert_eq!((info.pending, info.released, info.oldest_pending), (0, 5, None));
    assert_eq!(stage.problems().await, ["paused"]);
    let consumers = stage.group().consumers().await.unwrap();
    assert_eq!(consumers.len(), 1, "the ended process is not shown: {consumers:?}");
    let pending = stage.group().pending(PendingQuery::new()).await.unwrap().entries;
    assert!(pending.len() == 5 && pending.iter().all(|entry| entry.consumer.is_empty()));
    assert_eq!(*stage.alerts.lock().unwrap(), []);
    assert!(stage.group().resume().await.unwrap());
    let is_done = async || remaining.counters().acknowledged == 5;
    eventually_async(Duration::from_secs(60), "all are done", is_done).await;
    wait(100).await;
    assert_eq!(stage.problems().await, [] as [&str; 0]);
    // They may be seen between their delivery and their acknowledgement.
    let alerts = stage.alerts.lock().unwrap().clone();
    assert!(alerts.iter().all(|alert| alert.condition == Condition::Pending), "{alerts:?}");
    let _ = remaining.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_of_the_last_process_leaves_work_that_waits_and_no_consumer() {
    let stage = stage();
    stage.leave().await;
    wait(1_000).await;
    let info = stage.group().info().await.unwrap();
    assert_eq!((info.pending, info.released, info.oldest_pending), (0, 5, None));
    let said = stage.group().diagnose().await.unwrap().to_string();
    assert!(said.starts_with("work waits and the group has no consumer;"), "{said}");
    assert_eq!(stage.problems().await, ["stalled"]);
    assert!(stage.group().consumers().await.unwrap().is_empty());
}
