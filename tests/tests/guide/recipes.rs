//! `docs/recipes.md`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use streamjobs::dead_letter::Reason;
use streamjobs::schedule::{ScheduleName, Tick};
use streamjobs::unique::{Unique, UniquePublished};
use streamjobs::{
    Client, Event, EventId, Job, JobError, ResultExt, Runtime, State, handler, handlers,
};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::RedisServer;

const THREE_DAYS: Duration = Duration::from_secs(3 * 24 * 60 * 60);
const WITHIN: Duration = Duration::from_secs(20);

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.remind")]
struct Remind {
    order: u32,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "accounts", type = "account.sync", unique = "account")]
struct Sync {
    account: u32,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.packed")]
struct Packed {
    order: u32,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.shipped")]
struct Shipped {
    order: u32,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "hooks", type = "hook.due")]
struct Hook {
    url: String,
}

struct Order {
    id: u32,
}

#[derive(Clone, Default)]
struct Shop(Arc<Mutex<Vec<SystemTime>>>);

impl Shop {
    async fn close(&self, day: SystemTime) -> Result<(), JobError> {
        self.0.lock().unwrap().push(day);
        Ok(())
    }
}

/// A receiver that is busy at first, and what it was sent.
#[derive(Clone, Default)]
struct Web(Arc<Mutex<Vec<String>>>);

enum Answer {
    Ok,
    TooMany { retry_after: Duration },
    Gone,
    Failed(u16),
}

impl Web {
    async fn post(&self, url: &str, id: &EventId) -> Result<Answer, std::io::Error> {
        let mut sent = self.0.lock().unwrap();
        sent.push(id.to_string());
        Ok(match (url, sent.len()) {
            ("/gone", _) => Answer::Gone,
            (_, 1) => Answer::TooMany { retry_after: Duration::from_millis(50) },
            (_, 2) => Answer::Failed(503),
            _ => Answer::Ok,
        })
    }
}

// page: begin
#[handler(group = "nightly", cron = "30 2 * * *", zone = "Europe/Berlin")]
async fn close_the_day(tick: Tick, State(shop): State<Shop>) -> Result<(), JobError> {
    shop.close(tick.occurrence()).await
}
// page: end

async fn remind_later(client: &Client, order: &Order) -> Result<(), Box<dyn std::error::Error>> {
    // page: begin
    let id = EventId::new(format!("remind-{}", order.id))?;
    client.publish_in_with_id(THREE_DAYS, &Remind { order: order.id }, id.clone()).await?;
    // page: end
    Ok(())
}

async fn paid(client: &Client, order: &Order) -> Result<(), Box<dyn std::error::Error>> {
    // page: begin
    let orders = client.stream("orders")?;
    orders.cancel(&EventId::new(format!("remind-{}", order.id))?).await?;
    // page: end
    Ok(())
}

async fn sync(client: &Client, account: u32) -> Result<(), Box<dyn std::error::Error>> {
    // page: begin
    let once = Unique::until_done("sync", Duration::from_secs(3_600));
    match client.publish_unique(&once, &Sync { account }).await? {
        UniquePublished::Duplicate { stands, .. } => println!("{} is at it", stands.event_id),
        _ => println!("begun"),
    }
    // page: end
    Ok(())
}

// page: begin
#[handler(group = "shipping")]
async fn pack(order: Packed, job: Job) -> Result<(), JobError> {
    let next = Shipped { order: order.order };
    job.client().publish_with_id(&next, job.derived_event_id(1)).await?;
    Ok(())
}
// page: end

#[handler(group = "shipping")]
async fn ship(_: Shipped) {}

// page: begin
#[handler(group = "webhooks", max_attempts = 12, backoff = "1s..1h")]
async fn deliver(hook: Hook, State(web): State<Web>, job: Job) -> Result<(), JobError> {
    match web.post(&hook.url, job.event_id()).await? {
        Answer::Ok => Ok(()),
        Answer::TooMany { retry_after } => Err("429").later(retry_after),
        Answer::Gone => Err("410").dead(),
        Answer::Failed(status) => Err(JobError::retry(format!("status {status}"))),
    }
}
// page: end

#[tokio::test]
async fn the_day_is_closed_by_hand_as_at_night() {
    let (server, shop) = (RedisServer::start().unwrap(), Shop::default());
    let client = Client::connect(&server.url()).await.unwrap();
    let builder = Runtime::builder(&client).handlers(handlers![close_the_day]);
    let runtime = builder.state(shop.clone()).start().await.unwrap();
    let schedules = client.schedules("ticks:nightly").unwrap();
    let name = ScheduleName::new("close_the_day").unwrap();
    let ran = async || schedules.run_now(&name).await.is_ok();
    eventually_async(WITHIN, "declared", ran).await;
    let closed = async || !shop.0.lock().unwrap().is_empty();
    eventually_async(WITHIN, "closed", closed).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_reminder_of_a_paid_order_is_cancelled() {
    let server = RedisServer::start().unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    for id in [1, 2] {
        remind_later(&client, &Order { id }).await.unwrap();
    }
    paid(&client, &Order { id: 1 }).await.unwrap();
    let left = client.scheduled("orders").unwrap().list(None, 10).await.unwrap().events;
    assert_eq!(left.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["remind-2"]);
}

#[tokio::test]
async fn an_account_is_synchronised_once_at_a_time() {
    let server = RedisServer::start().unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    for account in [7, 7, 8] {
        sync(&client, account).await.unwrap();
    }
    assert_eq!(server.length("accounts"), 2);
}

#[tokio::test]
async fn a_packed_order_is_shipped_under_an_id_of_its_own() {
    let server = RedisServer::start().unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let builder = Runtime::builder(&client).handlers(handlers![pack, ship]);
    let runtime = builder.start().await.unwrap();
    let packed = client.publish(&Packed { order: 1 }).await.unwrap();
    eventually_async(WITHIN, "shipped", async || server.length("orders") == 2).await;
    let ids = server.entries("orders").into_iter().filter_map(|entry| entry.text("sj-id"));
    let expected = [packed.event_id.to_string(), packed.event_id.derive(1).to_string()];
    assert_eq!(ids.collect::<Vec<_>>(), expected);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_busy_receiver_uses_up_no_attempt_and_one_that_is_gone_ends_the_job() {
    let (server, web) = (RedisServer::start().unwrap(), Web::default());
    let client = Client::connect(&server.url()).await.unwrap();
    let builder = Runtime::builder(&client).handlers(handlers![deliver]);
    let runtime = builder.state(web.clone()).start().await.unwrap();
    let hook = client.publish(&Hook { url: "/orders".into() }).await.unwrap();
    let sent = async || web.0.lock().unwrap().len() == 3;
    eventually_async(WITHIN, "delivered", sent).await;
    assert_eq!(*web.0.lock().unwrap(), [(); 3].map(|()| hook.event_id.to_string()));
    client.publish(&Hook { url: "/gone".into() }).await.unwrap();
    let letters = client.dead_letters("hooks", "webhooks").unwrap();
    let ended = async || letters.list(None, 1).await.unwrap().letters.len() == 1;
    eventually_async(WITHIN, "ended", ended).await;
    let letter = letters.list(None, 1).await.unwrap().letters.remove(0);
    assert_eq!((letter.reason, letter.error.as_deref()), (Reason::Rejected, Some("410")));
    assert_eq!((runtime.counters().snoozed, runtime.counters().failed), (1, 2));
    let _ = runtime.shutdown().await;
}

#[test]
fn the_page_prints_what_is_run_here() {
    crate::assert_printed(include_str!("../../../docs/recipes.md"), include_str!("recipes.rs"));
}
