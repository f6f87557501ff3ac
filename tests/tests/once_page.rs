//! Compiles and runs the example of `docs/once.md` as it is printed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests report errors by failing"
)]

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use streamjobs::{Client, Event, EventId, JobError, Runtime, State, handler};
use streamjobs_postgres::{Keep, Once, Postgres, Publisher};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::postgres::PgServer;
use streamjobs_tests::server::RedisServer;

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed", key = "customer")]
struct OrderPlaced {
    order_id: String,
    customer: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "payments", type = "order.charged")]
struct OrderCharged {
    order_id: String,
}

// page: begin
#[handler(group = "payments")]
async fn charge_once(
    order: OrderPlaced,
    tx: &mut Once,
    State(outbox): State<Publisher>,
) -> Result<(), JobError> {
    let insert = sqlx::query("INSERT INTO charges (order_id) VALUES ($1)").bind(&order.order_id);
    insert.execute(&mut **tx).await?;
    outbox.publish_in(tx, &OrderCharged { order_id: order.order_id }).await?;
    Ok(())
}
// page: end

async fn application(
    client: Client,
    owner: PgPool,
    pool: PgPool,
) -> Result<Runtime, Box<dyn std::error::Error>> {
    // page: begin
    streamjobs_postgres::migrate(&owner).await?;
    let postgres = Postgres::open(pool).await?;
    let runtime = Runtime::builder(&client)
        .state(postgres.clone())
        .state(postgres.publisher())
        .service(postgres.archive())
        .service(postgres.relay())
        .service(postgres.pruner(Keep::default()))
        .start()
        .await?;
    // page: end
    Ok(runtime)
}

#[tokio::test]
async fn an_order_that_is_published_twice_is_charged_once_and_announced_once() {
    let (server, database) = (RedisServer::start().unwrap(), PgServer::shared().database().await);
    let (owner, pool) = (database.owner_pool(), database.pool());
    for statement in [
        "CREATE TABLE charges (order_id text NOT NULL)",
        "CREATE SCHEMA streamjobs",
        "GRANT USAGE ON SCHEMA streamjobs TO streamjobs_run",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA streamjobs
         GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO streamjobs_run",
    ] {
        sqlx::raw_sql(statement).execute(&owner).await.unwrap();
    }
    let client = Client::connect(&server.url()).await.unwrap();
    let runtime = application(client.clone(), owner, pool.clone()).await.unwrap();
    let order = OrderPlaced { order_id: "o-1".into(), customer: "alice".into() };
    let id = EventId::generate();
    for _ in 0..2 {
        client.publish_with_id(&order, id.clone()).await.unwrap();
    }
    let payments = client.stream("payments").unwrap();
    eventually_async(
        Duration::from_secs(20),
        "both are done, and an event is published",
        async || runtime.counters().succeeded == 2 && payments.length().await.unwrap() > 0,
    )
    .await;
    let charges = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM charges");
    assert_eq!(charges.fetch_one(&pool).await.unwrap(), 1);
    assert_eq!(payments.length().await.unwrap(), 1);
    let report = runtime.shutdown().await;
    assert!(report.abandoned.is_empty());
}

#[test]
fn the_page_prints_what_is_run_here() {
    let printed = include_str!("../../docs/once.md").split("```rust\n").skip(1);
    let printed = printed.filter_map(|part| part.split("```").next());
    let run = include_str!("once_page.rs").split("// page: begin\n").skip(1);
    let run = run.filter_map(|part| part.split("// page: end").next()).collect::<String>();
    // Compared without comments, white space and trailing commas.
    let bare = |code: &str| {
        let lines = code.lines().map(|line| line.split("   //").next().unwrap_or_default());
        let dense = lines.flat_map(str::chars).filter(|letter| !letter.is_whitespace());
        dense.collect::<String>().replace(",)", ")")
    };
    assert_eq!(printed.map(bare).collect::<Vec<_>>(), [bare(&run)]);
}
