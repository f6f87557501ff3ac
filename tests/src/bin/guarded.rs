//! The worker process of the guard's crash tests: charges each order once.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test program reports by its output and its exit"
)]

use std::env;
use std::io::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;
use streamjobs::config::GroupOptions;
use streamjobs::{Client, Event, Job, JobError, Runtime, State, handler, handlers};
use streamjobs_postgres::{Once, Postgres};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Order {
    id: String,
    customer: String,
}

/// Whether handlers wait before their effect until the process is killed.
#[derive(Clone)]
struct Hold(bool);

#[handler(group = "billing")]
async fn charge(
    order: Order,
    tx: &mut Once,
    State(hold): State<Hold>,
    job: Job,
) -> Result<(), JobError> {
    say(&format!("start {} {}", order.id, job.delivery_count()));
    if hold.0 {
        std::future::pending::<()>().await;
    }
    sqlx::query("INSERT INTO effects (order_id, event_id) VALUES ($1, $2)")
        .bind(&order.id)
        .bind(job.event_id().as_str())
        .execute(&mut **tx)
        .await?;
    say(&format!("effect {}", order.id));
    Ok(())
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A closed output does not stop the worker.
    let _closed = writeln!(out, "{line}").and_then(|()| out.flush()).is_err();
}

#[tokio::main]
async fn main() {
    let client = Client::connect(&env::var("WORKER_URL").unwrap()).await.unwrap();
    let pool = PgPoolOptions::new().max_connections(4);
    let pool = pool.connect(&env::var("WORKER_DATABASE_URL").unwrap()).await.unwrap();
    let postgres = Postgres::open(pool).await.unwrap();
    let options = GroupOptions::new().lease(Duration::from_millis(600));
    let runtime = Runtime::builder(&client)
        .handlers(handlers![charge])
        .group("billing", options)
        .block(Duration::from_millis(200))
        .promote_interval(Duration::from_millis(20))
        .state(postgres)
        .state(Hold(env::var_os("WORKER_HOLD").is_some()))
        .start()
        .await
        .unwrap();
    say(&format!("ready {}", runtime.consumer()));
    // The handler waits until the process is killed.
    std::future::pending::<()>().await;
}
