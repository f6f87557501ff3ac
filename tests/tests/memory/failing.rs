//! Failing jobs are problems of their group, on streams in memory under a paused clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::config::GroupOptions;
use streamjobs::doctor::Severity;
use streamjobs::stream::{Condition, Problem};
use streamjobs::testing::Streams;
use streamjobs::{Client, Event, JobError, Runtime, State, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use tokio::time::{Instant, sleep_until};

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Order {
    id: usize,
}

/// Whether the mail server is up.
#[derive(Clone, Default)]
struct Mail(Arc<AtomicBool>);

#[handler(group = "work", max_attempts = 2, backoff = "30s")]
async fn mail(order: Order, State(mail): State<Mail>) -> Result<(), JobError> {
    match mail.0.load(Ordering::SeqCst) {
        true => Ok(()),
        false if order.id.is_multiple_of(2) => Err(JobError::dead("no such address")),
        false => Err(JobError::retry("connection refused")),
    }
}

async fn problems(client: &Client) -> Vec<Problem> {
    let group = client.stream("orders").unwrap().group("work").unwrap();
    group.diagnose().await.unwrap().problems
}

async fn wait(seconds: u64) {
    sleep_until(Instant::now() + Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_group_whose_attempts_all_fail_says_so_with_the_errors_and_is_healthy_again_later() {
    let (streams, server) = (Streams::new(), Mail::default());
    let client = streams.client();
    let builder = Runtime::builder(&client).handlers(handlers![self::mail]).state(server.clone());
    let runtime = builder.group("work", GroupOptions::new()).start().await.unwrap();
    for id in 0..60 {
        client.publish(&Order { id }).await.unwrap();
    }
    let failed = async || runtime.counters().failed == 60;
    eventually_async(Duration::from_secs(60), "all have failed once", failed).await;
    let says = async || problems(&client).await.len() == 3;
    eventually_async(Duration::from_secs(60), "three problems", says).await;
    let found = problems(&client).await;
    assert!(matches!(found[0], Problem::Failing { failed: 60, attempts: 60, .. }), "{found:?}");
    assert_eq!(found[0].severity(), Severity::Critical);
    assert!(matches!(found[1], Problem::Retrying { jobs: 30, .. }), "{found:?}");
    assert!(matches!(found[2], Problem::DeadLetters { letters: 30, .. }), "{found:?}");
    let texts = found.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(texts[1].contains("connection refused"), "{texts:?}");
    assert!(texts[2].contains("no such address"), "{texts:?}");

    server.0.store(true, Ordering::SeqCst);
    wait(400).await;
    let conditions = problems(&client).await;
    let conditions = conditions.iter().map(Problem::condition).collect::<Vec<_>>();
    assert_eq!(conditions, [Condition::DeadLetters], "the last five minutes were fine");
    wait(3_600).await;
    assert!(problems(&client).await.is_empty(), "dead letters of the last hour");
    let _ = runtime.shutdown().await;
}
