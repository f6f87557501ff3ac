//! An effect once per event id: one order is published three times and charged once.
//!
//! `cargo run -p streamjobs-examples --bin once_per_id_effect` starts a private Redis and a private
//! Postgres and prints:
//!
//! ```text
//! o-1 published 3 times, charged 1 time(s): 4950 cents
//! receipts waiting: 0, jobs abandoned: 0
//! ```

#![allow(clippy::print_stdout, reason = "an example prints to the terminal")]

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::{Executor, PgPool};
use streamjobs::{Client, Event, EventId, JobError, Runtime, State, handler};
use streamjobs_examples::{postgres, redis};
use streamjobs_postgres::{Keep, Once, Postgres, Publisher};
use streamjobs_tests::postgres::Database;
use tokio::sync::mpsc;
use tokio::time::timeout;

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed", key = "order_id")]
struct OrderPlaced {
    order_id: String,
    cents: i64,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "payments", type = "order.charged", key = "order_id")]
struct OrderCharged {
    order_id: String,
}

/// Runs in a transaction that also has the guard row: `billing` has done this event. Both commit
/// together, and then the job is acknowledged; or both are rolled back.
#[handler(group = "billing")]
async fn charge(
    order: OrderPlaced,
    tx: &mut Once,
    State(publisher): State<Publisher>,
) -> Result<(), JobError> {
    sqlx::query("INSERT INTO charges (order_id, cents) VALUES ($1, $2)")
        .bind(&order.order_id)
        .bind(order.cents)
        .execute(&mut **tx)
        .await?;
    publisher.publish_in(tx, &OrderCharged { order_id: order.order_id }).await?;
    Ok(())
}

#[handler(group = "receipts")]
async fn receipt(
    charged: OrderCharged,
    State(sent): State<mpsc::Sender<String>>,
) -> Result<(), JobError> {
    Ok(sent.send(charged.order_id).await?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (redis, database) = (redis()?, postgres().await?);
    let pool = prepare(&database).await?;
    let (sent, mut receipts) = mpsc::channel::<String>(8);

    let postgres = Postgres::open(pool.clone()).await?; // fails if the schema has another version
    let client = Client::connect(&redis.url()).await?;
    let runtime = Runtime::builder(&client)
        .state(postgres.clone()) // for `&mut Once`
        .state(postgres.publisher())
        .state(sent)
        .service(postgres.relay()) // moves the outbox into streams
        .service(postgres.pruner(Keep::default())) // deletes old guard rows
        .start()
        .await?;

    let order = OrderPlaced { order_id: "o-1".into(), cents: 4_950 };
    let id = EventId::generate();
    for _ in 0..3 {
        client.publish_with_id(&order, id.clone()).await?;
    }
    let receipt = timeout(DEADLINE, receipts.recv()).await?.ok_or("no receipt")?;
    // Three jobs of `billing`, of which two are duplicates, and one of `receipts`.
    let done = async {
        while runtime.counters().succeeded < 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, done).await?;
    let report = runtime.shutdown().await;

    let (charges, cents): (i64, i64) =
        sqlx::query_as("SELECT count(*), sum(cents)::bigint FROM charges").fetch_one(&pool).await?;
    println!("{receipt} published 3 times, charged {charges} time(s): {cents} cents");
    println!("receipts waiting: {}, jobs abandoned: {}", receipts.len(), report.abandoned.len());
    if charges == 1 && receipts.is_empty() { Ok(()) } else { Err("not once".into()) }
}

/// Migrates, as a deployment does, with the role that may change the schema.
async fn prepare(database: &Database) -> Result<PgPool, Box<dyn std::error::Error>> {
    let owner = database.owner_pool();
    streamjobs_postgres::migrate(&owner).await?;
    owner.execute("CREATE TABLE charges (order_id text NOT NULL, cents bigint NOT NULL)").await?;
    database.grant("streamjobs").await;
    Ok(database.pool())
}

const DEADLINE: Duration = Duration::from_secs(20);
