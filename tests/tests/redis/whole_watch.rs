//! Alerts, metrics and health of a stream that is spread over partitions: those of the whole.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use streamjobs::config::{AlertRules, GroupOptions};
use streamjobs::runtime::Alert;
use streamjobs::service::{BoxFuture, Service, ServiceContext};
use streamjobs::stream::Condition;
use streamjobs::{Client, Runtime, RuntimeBuilder, handlers};
use streamjobs_tests::process::runs_alone;
use streamjobs_tests::server::RedisServer;

use crate::app::{DEADLINE, Gate, Order, Work, quick, until, work};
use crate::scrape::{Scrape, recorder};

const COUNT: u16 = 12;

async fn client(server: &RedisServer) -> Client {
    Client::builder(&server.url()).partitions("orders", COUNT).connect().await.unwrap()
}

fn builder(client: &Client, work: &Work) -> RuntimeBuilder {
    let options = GroupOptions::new().concurrency(NonZeroU32::new(4).unwrap());
    let builder = Runtime::builder(client).handlers(handlers![self::work]).state(work.clone());
    quick(builder.group("work", options)).watch_interval(Duration::from_millis(20))
}

async fn publish(client: &Client, count: usize) {
    let order = |id: usize| Order { id: id.to_string(), customer: format!("customer-{id}") };
    for answer in client.publish_all(&(0..count).map(order).collect::<Vec<_>>()).await {
        answer.unwrap();
    }
}

/// No partition alone has as many entries as the rule says.
#[tokio::test]
async fn an_alert_is_about_the_whole_stream_and_told_once() {
    let server = RedisServer::start().unwrap();
    let (client, gate) = (client(&server).await, Gate::default());
    let work = Work::gated(&gate);
    let told = Arc::<Mutex<Vec<Alert>>>::default();
    let heard = Arc::clone(&told);
    let builder = builder(&client, &work).alerts(AlertRules::new().backlog(100));
    let builder = builder.on_alert(move |alert| heard.lock().unwrap().push(alert.clone()));
    let runtime = builder.start().await.unwrap();
    publish(&client, 200).await;
    let backlogs = || {
        let alerts = told.lock().unwrap();
        let of_backlog = alerts.iter().filter(|alert| alert.condition == Condition::Backlog);
        of_backlog.cloned().collect::<Vec<_>>()
    };
    until(DEADLINE, "the alert begins", || !backlogs().is_empty()).await;
    let first = backlogs().remove(0);
    assert_eq!(
        (first.stream.as_str(), first.group.as_str(), first.raised),
        ("orders", "work", true)
    );
    gate.open();
    until(DEADLINE, "the alert is over", || backlogs().len() == 2).await;
    work.wait_for(200).await;
    let raised = backlogs().iter().map(|alert| alert.raised).collect::<Vec<_>>();
    assert_eq!(raised, [true, false]);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn health_has_one_row_for_a_group_and_names_the_partitions_that_are_not_read() {
    let server = RedisServer::start().unwrap();
    let client = client(&server).await;
    let runtime = builder(&client, &Work::fine()).start().await.unwrap();
    until(DEADLINE, "healthy", || runtime.health().is_healthy()).await;
    let health = runtime.health();
    assert_eq!(health.queues.len(), 1, "{health:?}");
    let queue = &health.queues[0];
    assert_eq!((queue.stream.as_str(), queue.partitions), ("orders", COUNT));
    server.freeze();
    until(DEADLINE, "unhealthy", || !runtime.health().is_healthy()).await;
    let all = || runtime.health().queues[0].unhealthy.len() == usize::from(COUNT);
    until(DEADLINE, "all partitions are named", all).await;
    server.thaw();
    let _ = runtime.shutdown().await;
}

/// Notes which queues it is told of.
#[derive(Clone, Default)]
struct Noting(Arc<Mutex<Vec<String>>>);

impl Service for Noting {
    fn name(&self) -> &'static str {
        "noting"
    }

    fn run(&self, context: ServiceContext) -> BoxFuture<'_, ()> {
        let queues = context.queues().iter().map(|queue| queue.stream.to_string());
        self.0.lock().unwrap().extend(queues);
        Box::pin(async move { context.stop().cancelled().await })
    }
}

#[tokio::test]
async fn a_service_is_told_of_the_whole_stream_once() {
    let server = RedisServer::start().unwrap();
    let (client, noting) = (client(&server).await, Noting::default());
    let runtime = builder(&client, &Work::fine()).service(noting.clone()).start().await.unwrap();
    until(DEADLINE, "it runs", || !noting.0.lock().unwrap().is_empty()).await;
    assert_eq!(*noting.0.lock().unwrap(), ["orders"]);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn metrics_are_those_of_the_whole_stream() {
    if !runs_alone(module_path!(), "metrics_are_those_of_the_whole_stream") {
        return;
    }
    recorder();
    let server = RedisServer::start().unwrap();
    let (client, gate) = (client(&server).await, Gate::default());
    let work = Work::gated(&gate);
    let runtime = builder(&client, &work).start().await.unwrap();
    publish(&client, 100).await;
    work.wait_for(4).await;
    let of_group = [("stream", "orders"), ("group", "work")];
    let waiting = [("stream", "orders"), ("state", "waiting")];
    let sum = |name: &str| Scrape::take().sum(name, &of_group);
    until(DEADLINE, "the gauges", || Scrape::take().sum("streamjobs_jobs", &waiting) == 96).await;
    let entries = || Scrape::take().sum("streamjobs_stream_entries", &[("stream", "orders")]);
    until(DEADLINE, "the length", || entries() == 100).await;
    assert_eq!((sum("streamjobs_slots"), sum("streamjobs_running")), (4, 4));
    gate.open();
    until(DEADLINE, "all are finished", || sum("streamjobs_jobs_finished_total") == 100).await;
    until(DEADLINE, "none waits", || Scrape::take().sum("streamjobs_jobs", &waiting) == 0).await;
    let text = recorder().render();
    assert!(!text.contains("orders:p") && !text.contains("partition="), "{text}");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn metrics_tell_partitions_apart_where_that_was_asked_for() {
    if !runs_alone(module_path!(), "metrics_tell_partitions_apart_where_that_was_asked_for") {
        return;
    }
    recorder();
    let server = RedisServer::start().unwrap();
    let client = client(&server).await;
    let work = Work::fine();
    let runtime = builder(&client, &work).partition_metrics(true).start().await.unwrap();
    publish(&client, 100).await;
    work.wait_for(100).await;
    let of = |name: &str, partition: u16| {
        let partition = partition.to_string();
        Scrape::take().sum(name, &[("stream", "orders"), ("partition", &partition)])
    };
    let lengths = client.stream("orders").unwrap().partitions();
    for (part, number) in lengths.into_iter().zip(0..) {
        let length = part.length().await.unwrap();
        let finished = || of("streamjobs_jobs_finished_total", number) == length;
        until(DEADLINE, "the jobs of a partition", finished).await;
        let entries = || of("streamjobs_stream_entries", number) == length;
        until(DEADLINE, "the length of a partition", entries).await;
    }
    let _ = runtime.shutdown().await;
}
