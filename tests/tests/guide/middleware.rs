//! `docs/middleware.md`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use streamjobs::config::GroupOptions;
use streamjobs::error::PublishError;
use streamjobs::middleware::{Next, RunFailure};
use streamjobs::testing::Streams;
use streamjobs::{
    Backoff, Client, ClientBuilder, Event, EventId, Job, JobError, Runtime, RuntimeBuilder,
    handler, handlers,
};
use streamjobs_tests::eventually::eventually_async;

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct OrderPlaced {
    amount: String,
}

/// How long jobs took.
#[derive(Clone, Default)]
struct Timings(Arc<Mutex<Vec<(String, bool)>>>);

impl Timings {
    fn note(&self, job: &Job, took: Duration, ok: bool) {
        assert!(took < Duration::from_secs(60));
        self.0.lock().unwrap().push((job.group().to_string(), ok));
    }
}

#[derive(Clone)]
struct Shop {
    opens: u32,
}

impl Shop {
    fn is_open(&self) -> bool {
        self.opens < 24
    }
}

// page: begin
async fn timed(job: Job, next: Next) -> Result<(), JobError> {
    let began = Instant::now();
    let result = next.run().await;
    if let Some(timings) = job.state::<Timings>() {
        timings.note(&job, began.elapsed(), result.is_ok());
    }
    result
}
// page: end

// page: begin
async fn while_open(job: Job, next: Next) -> Result<(), JobError> {
    match job.state::<Shop>() {
        Some(shop) if !shop.is_open() => {
            Err(JobError::later(Duration::from_secs(600), "the shop is closed"))
        }
        _ => next.run().await,
    }
}

async fn panics_are_final(_: Job, next: Next) -> Result<(), JobError> {
    next.run().await.map_err(|error| match error.run_failure() {
        Some(RunFailure::Panicked(_)) => error.into_dead(),
        _ => error,
    })
}
// page: end

// page: begin
#[handler(group = "billing", wrap = panics_are_final)]
async fn charge(order: OrderPlaced) -> Result<(), JobError> {
    assert!(!order.amount.is_empty());
    Ok(())
}
// page: end

async fn start(
    client: &Client,
    timings: Timings,
    shop: Shop,
) -> Result<Runtime, Box<dyn std::error::Error>> {
    // page: begin
    let runtime = Runtime::builder(client)
        .handlers(handlers![charge])
        .state(timings)
        .state(shop)
        .around(timed)
        .around_group("billing", while_open);
    // page: end
    Ok(runtime.start().await?)
}

// page: begin
tokio::task_local! {
    static TENANT: String;
}

async fn for_tenant(job: Job, next: Next) -> Result<(), JobError> {
    let tenant = job.stream().as_str().to_owned();
    TENANT.scope(tenant, next.run()).await
}
// page: end

#[handler(group = "tenants")]
async fn greet(_: OrderPlaced) -> Result<(), JobError> {
    let tenant = TENANT.with(Clone::clone);
    if tenant == "orders" { Ok(()) } else { Err(JobError::dead("another tenant")) }
}

#[tokio::test(start_paused = true)]
async fn middleware_measures_refuses_and_changes_errors() {
    let (streams, timings) = (Streams::new(), Timings::default());
    let client = streams.client();
    let runtime = start(&client, timings.clone(), Shop { opens: 8 }).await.unwrap();
    for amount in ["", "12.00"] {
        client.publish(&OrderPlaced { amount: amount.to_owned() }).await.unwrap();
    }
    let ended = async || timings.0.lock().unwrap().len() == 2;
    eventually_async(Duration::from_secs(60), "both have ended", ended).await;
    let mut seen = timings.0.lock().unwrap().clone();
    seen.sort_unstable();
    assert_eq!(seen, [("billing".to_owned(), false), ("billing".to_owned(), true)]);
    let letters = client.dead_letters("orders", "billing").unwrap();
    let is_dead = async || letters.list(None, 10).await.unwrap().letters.len() == 1;
    eventually_async(Duration::from_secs(60), "the panic was final", is_dead).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_finds_what_its_middleware_has_set() {
    let streams = Streams::new();
    let client = streams.client();
    let builder = Runtime::builder(&client).handlers(handlers![greet]).around(for_tenant);
    let runtime = builder.start().await.unwrap();
    client.publish(&OrderPlaced { amount: String::new() }).await.unwrap();
    let done = async || runtime.counters().acknowledged == 1;
    eventually_async(Duration::from_secs(60), "it is done", done).await;
    let _ = runtime.shutdown().await;
}

/// A client of an error tracker.
#[derive(Clone, Default)]
struct Tracker(Arc<Mutex<Vec<String>>>);

impl Tracker {
    fn report(&self, error: &str, attempt: u32, tags: &[(&str, &str)]) {
        let tags = tags.iter().map(|(name, value)| format!(" {name}={value}"));
        self.0.lock().unwrap().push(format!("{error}:{} ({attempt})", tags.collect::<String>()));
    }
}

fn tracked(client: &Client, tracker: Tracker) -> RuntimeBuilder {
    // page: begin
    Runtime::builder(client).handlers(handlers![charge]).observe(move |seen| {
        if let Some(error) = seen.error() {
            let (handler, event) = (seen.handler().unwrap_or("none"), seen.event_id().as_str());
            tracker.report(error, seen.attempt(), &[("handler", handler), ("event", event)]);
        }
    })
    // page: end
}

#[tokio::test(start_paused = true)]
async fn an_error_tracker_gets_each_error_with_its_job() {
    let (streams, tracker) = (Streams::new(), Tracker::default());
    let client = streams.client();
    let runtime = tracked(&client, tracker.clone()).start().await.unwrap();
    let id = EventId::new("e-1").unwrap();
    client.publish_with_id(&OrderPlaced { amount: String::new() }, id).await.unwrap();
    let reported = async || tracker.0.lock().unwrap().len() == 1;
    eventually_async(Duration::from_secs(60), "it is reported", reported).await;
    let _ = runtime.shutdown().await;
    let reports = tracker.0.lock().unwrap().clone();
    assert!(reports[0].starts_with("the handler panicked: assertion failed"), "{reports:?}");
    assert!(reports[0].ends_with(": handler=charge event=e-1 (1)"), "{reports:?}");
}

fn tagging(url: &str) -> ClientBuilder {
    // page: begin
    let builder = Client::builder(url).on_publish(|event| {
        if event.event_type() == "order.placed" && event.key().is_none() {
            return Err("an order needs a key".into());
        }
        if let Ok(tenant) = TENANT.try_with(String::clone) {
            event.set_header("tenant", tenant)?;
        }
        Ok(())
    });
    // page: end
    builder
}

#[tokio::test(start_paused = true)]
async fn an_event_gets_the_header_of_its_task_or_is_refused() {
    let client = Streams::new().client_with(tagging("redis://unused")).unwrap();
    let order = OrderPlaced { amount: "1".to_owned() };
    let refused = TENANT.scope("t-1".to_owned(), client.publish(&order)).await.unwrap_err();
    assert!(matches!(refused, PublishError::Refused { .. }), "{refused}");
    let tick = Tagged { number: 1 };
    let plain = client.publish(&tick).await.unwrap();
    let tagged = TENANT.scope("t-1".to_owned(), client.publish(&tick)).await.unwrap();
    let stream = client.stream("tagged").unwrap();
    for (published, header) in [(plain, None), (tagged, Some("t-1"))] {
        let entry = stream.entry(published.address()).await.unwrap().unwrap();
        assert_eq!(entry.text("sj-header-tenant"), header);
    }
}

#[derive(Serialize, Deserialize, Event)]
#[event(stream = "tagged", type = "tagged")]
struct Tagged {
    number: u32,
}

fn planned(client: &Client) -> Result<String, Box<dyn std::error::Error>> {
    // page: begin
    let exports = GroupOptions::new().timeout(Duration::from_secs(600));
    let builder = Runtime::builder(client)
        .handlers(handlers![charge])
        .defaults(GroupOptions::new().backoff(Backoff::fixed(Duration::from_secs(5))))
        .group_defaults("billing", exports);
    print!("{}", builder.plan()?);
    // page: end
    Ok(builder.plan()?.to_string())
}

#[tokio::test]
async fn the_table_of_the_page_is_what_is_printed() {
    let printed = planned(&Streams::new().client()).unwrap();
    let page = include_str!("../../../docs/middleware.md");
    let table = page.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    let place = |line: &&str| !line.contains("  handler ");
    let lines = |text: &'static str| text.lines().filter(place).collect::<Vec<_>>();
    assert_eq!(printed.lines().filter(place).collect::<Vec<_>>(), lines(table));
}

#[test]
fn the_page_prints_what_is_run_here() {
    crate::assert_printed(
        include_str!("../../../docs/middleware.md"),
        include_str!("middleware.rs"),
    );
}
