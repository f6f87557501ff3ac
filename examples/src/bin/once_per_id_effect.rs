//! An effect once per event id: one order is published three times and charged once.

#![allow(clippy::print_stdout, reason = "an example prints to the terminal")]

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::{Client, Event, EventId, JobError, Runtime, State, handler};
use streamjobs_examples::{redis, shop_database};
use streamjobs_postgres::{Keep, Once, Postgres, Publisher};
use streamjobs_tests::eventually::eventually_async;
use tokio::{sync::mpsc, time::timeout};

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
    let insert = sqlx::query("INSERT INTO charges (order_id, cents) VALUES ($1, $2)");
    insert.bind(&order.order_id).bind(order.cents).execute(&mut **tx).await?;
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
    let (redis, database) = (redis()?, shop_database().await?);
    let pool = database.pool();
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

    let (order, id) = (OrderPlaced { order_id: "o-1".into(), cents: 4_950 }, EventId::generate());
    for _ in 0..3 {
        client.publish_with_id(&order, id.clone()).await?;
    }
    let receipt = timeout(DEADLINE, receipts.recv()).await?.ok_or("no receipt")?;
    // Three jobs of `billing`, of which two are duplicates, and one of `receipts`.
    eventually_async(DEADLINE, "done", async || runtime.counters().succeeded == 4).await;
    let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM charges");
    let charges = count.fetch_one(&pool).await?;
    println!("{receipt} published 3 times, charged {charges} time(s)");
    println!("jobs abandoned: {}", runtime.shutdown().await.abandoned.len());
    if charges == 1 && receipts.is_empty() { Ok(()) } else { Err("not once".into()) }
}

const DEADLINE: Duration = Duration::from_secs(20);
