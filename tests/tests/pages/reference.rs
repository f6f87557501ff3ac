//! `docs/handlers.md`, `publishing.md`, `dead-letters.md`, `operating.md` and the first example of
//! `dashboard.md`.

use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use streamjobs::doctor::Severity;
use streamjobs::schedule::{Schedule, ScheduleName};
use streamjobs::stream::{Cut, Unfinished};
use streamjobs::{Client, Event, EventId, Job, JobError, ResultExt, Runtime, State, handler};
use streamjobs_dashboard::{Access, Action, Auth};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::RedisServer;
use tower::ServiceExt as _;

use crate::Stand as Shop;

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed", key = "customer")]
struct OrderPlaced {
    order_id: String,
    customer: String,
}

// page handlers: begin
#[handler(group = "billing", concurrency = 32, backoff = "1s..10m", lease = "10s", start = "0")]
async fn charge(order: OrderPlaced, State(shop): State<Shop>, job: Job) -> Result<(), JobError> {
    let receipt = shop.charge(&order, job.event_id()).await.retry_after(Duration::from_secs(60))?;
    receipt.check().dead()?;
    Ok(())
}
// page: end

struct Receipt {
    customer: String,
}

/// Takes money under the event's id, and gives bad receipts to customers without a name.
impl Shop {
    async fn charge(&self, order: &OrderPlaced, id: &EventId) -> Result<Receipt, std::io::Error> {
        self.charged.lock().unwrap().push(format!("{} {id}", order.order_id));
        Ok(Receipt { customer: order.customer.clone() })
    }
}

impl Receipt {
    fn check(&self) -> Result<(), &'static str> {
        if self.customer.is_empty() { Err("the order has no customer") } else { Ok(()) }
    }
}

async fn order_one_and_two(
    client: &Client,
    order: OrderPlaced,
) -> Result<(), Box<dyn std::error::Error>> {
    // page publishing: begin
    let published = client.publish(&order).await?;
    println!("{} is the entry {}", published.event_id, published.entry_id);
    for result in client.publish_all([&order, &order]).await {
        result?;
    }
    // page: end
    Ok(())
}

async fn order_until_it_is_stored(
    client: &Client,
    order: OrderPlaced,
) -> Result<(), Box<dyn std::error::Error>> {
    // page publishing: begin
    let id = EventId::generate();
    let mut pause = tokio::time::interval(Duration::from_secs(1));
    while let Err(error) = client.publish_with_id(&order, id.clone()).await {
        if !error.is_unconfirmed() {
            return Err(error.into());
        }
        pause.tick().await;
    }
    // page: end
    Ok(())
}

async fn order_later_and_not_at_all(
    client: &Client,
    order: OrderPlaced,
) -> Result<(), Box<dyn std::error::Error>> {
    // page publishing: begin
    let scheduled = client.publish_in(Duration::from_secs(3_600), &order).await?;
    client.scheduled("orders")?.cancel(scheduled.event_id()).await?;
    // page: end
    Ok(())
}

async fn order_each_night(
    client: Client,
    shop: Shop,
    order: OrderPlaced,
) -> Result<Runtime, Box<dyn std::error::Error>> {
    // page publishing: begin
    let nightly =
        Schedule::cron("nightly", "30 2 * * *")?.zone("Europe/Berlin")?.publishes(&order)?;
    let runtime = Runtime::builder(&client).state(shop).schedule(nightly).start().await?;
    // page: end
    Ok(runtime)
}

async fn redrive_everything(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    // page dead-letters: begin
    let letters = client.dead_letters("orders", "billing")?;
    for letter in letters.list(None, 50).await?.letters {
        println!("{} {} {:?}", letter.id, letter.reason.as_str(), letter.error);
        letters.redrive(letter.id).await?;
    }
    // page: end
    Ok(())
}

async fn look_at_orders(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    // page operating: begin
    let orders = client.stream("orders")?;
    for group in orders.groups().await? {
        println!("{}: backlog {}, pending {}", group.group, group.backlog, group.pending);
        println!("{}", orders.group(&group.group)?.diagnose().await?);
    }
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let mut replay = orders.replay_events::<OrderPlaced>(hour_ago..);
    while let Some(event) = replay.next().await {
        let (id, order) = event?;
        println!("{id} {}", order.order_id);
    }
    orders.trim(Cut::Length(1_000), Unfinished::Keep).await?;
    // page: end
    Ok(())
}

async fn change_workers(runtime: &Runtime) -> Result<u64, Box<dyn std::error::Error>> {
    // page operating: begin
    let name = runtime.add_consumer("billing").await?;
    runtime.set_concurrency("billing", NonZeroU32::MIN)?;
    runtime.pause("billing")?;
    runtime.resume("billing")?;
    let report = runtime.remove_consumer(&name).await?;
    // page: end
    Ok(report.released)
}

/// The dashboard, mounted.
fn mount(client: Client) -> Router {
    // page dashboard: begin
    let auth = Auth::basic("a long random text", Access::read_only("ops").allow(Action::Redrive));
    let app = Router::new().nest_service("/jobs", streamjobs_dashboard::router(client, auth));
    // page: end
    app
}

async fn refuse_unfit_servers(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    // page operating: begin
    let checkup = client.doctor().await?;
    println!("{checkup}");
    if checkup.worst() == Some(Severity::Critical) {
        return Err("this server loses jobs".into());
    }
    // page: end
    Ok(())
}

#[tokio::test]
async fn a_server_is_examined_before_jobs_are_trusted_to_it() {
    let forgetful = RedisServer::start().unwrap();
    let client = Client::connect(&forgetful.url()).await.unwrap();
    assert!(refuse_unfit_servers(&client).await.is_err());
    let careful = RedisServer::builder().append_only(true).start().unwrap();
    let client = Client::connect(&careful.url()).await.unwrap();
    refuse_unfit_servers(&client).await.unwrap();
}

#[tokio::test]
async fn orders_are_published_one_by_one_in_a_batch_and_until_they_are_stored() {
    let server = RedisServer::start().unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let order = || OrderPlaced { order_id: "o-1".into(), customer: "alice".into() };
    order_one_and_two(&client, order()).await.unwrap();
    order_until_it_is_stored(&client, order()).await.unwrap();
    assert_eq!(server.length("orders"), 4);
}

#[tokio::test]
async fn a_scheduled_order_is_cancelled() {
    let server = RedisServer::start().unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let order = OrderPlaced { order_id: "o-1".into(), customer: "alice".into() };
    order_later_and_not_at_all(&client, order).await.unwrap();
    assert_eq!(client.scheduled("orders").unwrap().count().await.unwrap(), 0);
    assert_eq!(server.query::<usize>(&["EXISTS", "{orders}:later-records"]), 1, "it had waited");
}

#[tokio::test]
async fn an_order_of_each_night_is_scheduled_and_runs_by_hand() {
    let (server, shop) = (RedisServer::start().unwrap(), Shop::default());
    let client = Client::connect(&server.url()).await.unwrap();
    let order = OrderPlaced { order_id: "o-1".into(), customer: "alice".into() };
    let runtime = order_each_night(client.clone(), shop.clone(), order).await.unwrap();
    let schedules = client.schedules("orders").unwrap();
    let (within, name) = (Duration::from_secs(20), ScheduleName::new("nightly").unwrap());
    eventually_async(within, "declared", async || schedules.get(&name).await.unwrap().is_some())
        .await;
    schedules.run_now(&name).await.unwrap();
    eventually_async(within, "charged", async || shop.charged.lock().unwrap().len() == 1).await;
    let report = runtime.shutdown().await;
    assert!(report.abandoned.is_empty());
}

#[tokio::test]
async fn a_rejected_charge_is_redriven_under_its_event_id() {
    let (server, shop) = (RedisServer::start().unwrap(), Shop::default());
    let client = Client::connect(&server.url()).await.unwrap();
    let runtime = Runtime::builder(&client).state(shop.clone()).start().await.unwrap();
    let order = OrderPlaced { order_id: "o-1".into(), customer: String::new() };
    let published = client.publish(&order).await.unwrap();
    let within = Duration::from_secs(20);
    let letters = client.dead_letters("orders", "billing").unwrap();
    eventually_async(within, "a dead letter", async || {
        letters.list(None, 1).await.unwrap().letters.len() == 1
    })
    .await;
    redrive_everything(&client).await.unwrap();
    eventually_async(within, "charged again", async || shop.charged.lock().unwrap().len() == 2)
        .await;
    let charged = format!("o-1 {}", published.event_id);
    assert_eq!(*shop.charged.lock().unwrap(), [charged.as_str(), charged.as_str()]);
    look_at_orders(&client).await.unwrap();
    let report = runtime.shutdown().await;
    assert!(report.abandoned.is_empty());
}

#[tokio::test]
async fn an_entry_of_redis_cli_runs_the_handler() {
    let (server, shop) = (RedisServer::start().unwrap(), Shop::default());
    let client = Client::connect(&server.url()).await.unwrap();
    let runtime = Runtime::builder(&client).state(shop.clone()).start().await.unwrap();
    let printed = include_str!("../../../docs/publishing.md");
    let command = printed.lines().find_map(|line| line.strip_prefix("redis-cli ")).unwrap();
    let words = command.split(' ').map(|word| word.trim_matches('\'')).collect::<Vec<_>>();
    server.command(&words);
    eventually_async(Duration::from_secs(20), "charged", async || {
        shop.charged.lock().unwrap().len() == 1
    })
    .await;
    let report = runtime.shutdown().await;
    assert!(report.abandoned.is_empty());
}

#[tokio::test]
async fn consumers_come_and_go_while_orders_are_charged() {
    let (server, shop) = (RedisServer::start().unwrap(), Shop::default());
    let client = Client::connect(&server.url()).await.unwrap();
    let runtime = Runtime::builder(&client).state(shop.clone()).start().await.unwrap();
    let order = OrderPlaced { order_id: "o-1".into(), customer: "alice".into() };
    client.publish(&order).await.unwrap();
    assert_eq!(change_workers(&runtime).await.unwrap(), 0);
    client.publish(&order).await.unwrap();
    let charged = async || shop.charged.lock().unwrap().len() == 2;
    eventually_async(Duration::from_secs(20), "charged", charged).await;
    let consumers = runtime.consumers();
    let billing = consumers.iter().filter(|consumer| consumer.group.as_str() == "billing");
    assert_eq!(billing.count(), 1);
    let report = runtime.shutdown().await;
    assert!(report.abandoned.is_empty());
}

#[tokio::test]
async fn the_dashboard_shows_the_streams_of_linked_handlers_to_who_knows_the_password() {
    let server = RedisServer::start().unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let ask = async |authorization: &str| {
        let request = Request::get("/jobs").header("authorization", authorization);
        let answer = mount(client.clone()).oneshot(request.body(Body::empty()).unwrap()).await;
        let answer = answer.unwrap();
        let status = answer.status();
        let text = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(text.to_vec()).unwrap())
    };
    assert_eq!(ask("").await.0, StatusCode::UNAUTHORIZED);
    let (status, page) = ask("Basic b3BzOmEgbG9uZyByYW5kb20gdGV4dA==").await;
    assert!(status == StatusCode::OK && page.contains("streams/orders"), "{page}");
}

#[test]
fn the_pages_print_what_is_run_here() {
    // Of the dashboard's page, the first example alone is run here.
    let pages = [
        ("handlers", include_str!("../../../docs/handlers.md"), 1),
        ("publishing", include_str!("../../../docs/publishing.md"), 4),
        ("dead-letters", include_str!("../../../docs/dead-letters.md"), 1),
        ("operating", include_str!("../../../docs/operating.md"), 3),
        ("dashboard", include_str!("../../../docs/dashboard.md"), 1),
    ];
    let source = include_str!("reference.rs");
    let bare = |code: &str| {
        let lines = code.lines().map(|line| line.split("   //").next().unwrap_or_default());
        lines.flat_map(str::chars).filter(|letter| !letter.is_whitespace()).collect::<String>()
    };
    for (name, page, examples) in pages {
        let printed = page.split("```rust\n").skip(1).filter_map(|part| part.split("```").next());
        let printed = printed.take(examples).map(bare).collect::<Vec<_>>();
        let mark = format!("// page {name}: begin\n");
        let run = source.split(&mark).skip(1).filter_map(|part| part.split("// page: end").next());
        assert_eq!(printed, run.map(bare).collect::<Vec<_>>(), "{name}");
        assert_eq!(printed.len(), examples, "{name}");
    }
}
