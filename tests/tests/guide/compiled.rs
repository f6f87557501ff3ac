//! Examples of pages that are compiled and not run: they need a server with TLS or of another kind, or are a
//! part of what other tests run.

use std::error::Error;
use std::str::FromStr as _;
use std::time::Duration;

use axum::Router;
use axum::http::request::Parts;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use streamjobs::stream::PendingQuery;
use streamjobs::{Client, Event, JobError, Runtime, StreamName, handler, handlers};
use streamjobs_dashboard::{Access, Action, AlertLog, Auth, Authorizer, Dashboard, Denied};
use streamjobs_postgres::{Keep, Once, Postgres};
use streamjobs_test_handlers::track;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct OrderPlaced {
    order_id: String,
    cents: i64,
}

#[derive(Clone)]
struct User {
    name: String,
    is_admin: bool,
}

async fn dashboard(
    client: Client,
    jobs: Client,
    auth: Auth,
    postgres: Postgres,
) -> Result<(Router, Runtime), Box<dyn Error>> {
    // page: begin
    let alerts = AlertLog::new();
    let dashboard = Dashboard::builder(client, auth)
        .streams([StreamName::new("orders")?, StreamName::new("orders:eu")?])
        .archive(&postgres)
        .alerts(&alerts)
        .redact(|_, payload| {
            if let Some(card) = payload.get_mut("card") {
                *card = "…".into()
            }
        })
        .on_action(|done| println!("{} did {}", done.who, done.action))
        .refresh(Duration::from_secs(5))
        .build();
    let runtime = Runtime::builder(&jobs)
        .on_alert(alerts.recorder())
        .service(dashboard.sampler())
        .start()
        .await?;
    let app = Router::new().nest_service("/jobs", dashboard.router());
    // page: end
    Ok((app, runtime))
}

fn authorizer() -> impl Authorizer {
    // page: begin
    let auth = |request: &Parts| match request.extensions.get::<User>() {
        None => Err(Denied::Unauthorized(None)),
        Some(user) if user.is_admin => Ok(Access::read_only(&user.name).payloads().allow_all()),
        Some(user) => Ok(Access::read_only(&user.name).allow(Action::Redrive).allow(Action::Pause)),
    };
    // page: end
    auth
}

async fn partitions() -> Result<(), Box<dyn Error>> {
    // page: begin
    let client = Client::builder("redis+cluster://node-a,node-b,node-c")
        .partitions("orders", 48)
        .connect()
        .await?;
    // page: end
    // page: begin
    let group = client.stream("orders")?.group("billing")?;
    for row in group.pending(PendingQuery::new()).await?.entries {
        let released = group.release([row.address()]).await?;
        println!("{}: {released:?}", row.address());
    }
    // page: end
    Ok(())
}

// page: begin
#[handler(group = "billing")]
async fn charge(order: OrderPlaced, tx: &mut Once) -> Result<(), JobError> {
    sqlx::query("INSERT INTO charges (order_id, cents) VALUES ($1, $2)")
        .bind(&order.order_id)
        .bind(order.cents)
        .execute(&mut **tx)
        .await?;
    Ok(())
}
// page: end

async fn archive(pool: PgPool, client: Client) -> Result<Runtime, Box<dyn Error>> {
    // page: begin
    let postgres = Postgres::open(pool).await?;
    let runtime = Runtime::builder(&client).service(postgres.archive()).start().await?;
    // page: end
    Ok(runtime)
}

async fn outbox(
    postgres: Postgres,
    pool: PgPool,
    client: Client,
    order: OrderPlaced,
) -> Result<Runtime, Box<dyn Error>> {
    // page: begin
    let publisher = postgres.publisher();
    let mut transaction = pool.begin().await?;
    // ... the application's own rows ...
    publisher.publish_in(&mut transaction, &order).await?;
    transaction.commit().await?;

    let runtime = Runtime::builder(&client).service(postgres.relay()).start().await?;
    // page: end
    Ok(runtime)
}

async fn prune(postgres: Postgres, client: Client) -> Result<Runtime, Box<dyn Error>> {
    // page: begin
    let keep = Keep::default().done(14 * DAY).letters(90 * DAY);
    let runtime = Runtime::builder(&client).service(postgres.pruner(keep)).start().await?;
    // page: end
    Ok(runtime)
}

async fn pooler(url: String) -> Result<Postgres, Box<dyn Error>> {
    // page: begin
    let options = PgConnectOptions::from_str(&url)?.extra_float_digits(None);
    let pool = PgPoolOptions::new().connect_with(options).await?;
    let postgres = Postgres::open(pool).await?;
    // page: end
    Ok(postgres)
}

async fn tls() -> Result<Client, Box<dyn Error>> {
    // page: begin
    use streamjobs::config::TlsOptions;

    let tls = TlsOptions::new()
        .ca_pem(std::fs::read("ca.pem")?)
        .client_certificate_pem(std::fs::read("client.pem")?, std::fs::read("client-key.pem")?)
        .server_name("redis.internal");
    let client = Client::builder("rediss://10.0.0.7:6380").tls(tls).connect().await?;
    // page: end
    Ok(client)
}

async fn credentials() -> Result<Client, Box<dyn Error>> {
    // page: begin
    use streamjobs::config::Credentials;

    let client = Client::builder("redis://redis.internal").credentials(|| async {
        let password = tokio::fs::read_to_string("/run/secrets/redis").await?;
        Ok::<_, std::io::Error>(Credentials::new("worker", password.trim_end()))
    });
    let client = client.connect().await?;
    // page: end
    Ok(client)
}

async fn metrics(url: String) -> Result<(), Box<dyn Error>> {
    // page: begin
    let buckets = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
    let scrape = PrometheusBuilder::new().set_buckets(&buckets)?.install_recorder()?;
    let client = Client::connect(&url).await?;
    // page: end
    let _ = (scrape, client);
    Ok(())
}

async fn listed(client: Client) -> Result<Runtime, Box<dyn Error>> {
    // page: begin
    let runtime = Runtime::builder(&client).handlers(handlers![track]).start().await?;
    // page: end
    Ok(runtime)
}

/// Every example is compiled because it is named here.
#[test]
fn the_examples_that_are_not_run_are_compiled() {
    let _ =
        (dashboard, partitions, archive, outbox, prune, pooler, tls, credentials, metrics, listed);
    let _ = authorizer();
    assert_eq!(handlers![self::charge].len(), 1);
}
