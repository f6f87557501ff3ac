//! The smallest application: one event, one handler, one runtime.
//!
//! `cargo run -p streamjobs-examples --bin quickstart` prints one line for each of three orders.

#![allow(clippy::print_stdout, reason = "an example talks to its terminal")]

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::{Client, Event, Job, JobError, Runtime, State, handler};
use streamjobs_examples::redis;
use tokio::sync::mpsc;
use tokio::time::timeout;

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct OrderPlaced {
    order_id: String,
}

#[handler(group = "notifications")]
async fn email_customer(
    order: OrderPlaced,
    job: Job,
    State(done): State<mpsc::Sender<String>>,
) -> Result<(), JobError> {
    done.send(format!("{} (attempt {})", order.order_id, job.attempt())).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = redis()?;
    let (done, mut mailed) = mpsc::channel::<String>(8);

    let client = Client::connect(&server.url()).await?;
    let runtime = Runtime::builder(&client).state(done).start().await?;
    for number in 1..=3 {
        client.publish(&OrderPlaced { order_id: format!("o-{number}") }).await?;
    }

    let mut orders = 0;
    while orders < 3 {
        let order = timeout(Duration::from_secs(10), mailed.recv()).await?;
        println!("mailed {}", order.unwrap_or_default());
        orders += 1;
    }
    let report = runtime.shutdown().await;
    println!("stopped, {} jobs abandoned", report.abandoned.len());
    Ok(())
}
