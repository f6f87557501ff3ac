//! A process that runs jobs and serves nothing, configured by its environment.
//!
//! `REDIS_URL=redis://127.0.0.1:6379 GROUPS=billing cargo run -p streamjobs-examples --bin job_worker`

#![allow(clippy::print_stdout, reason = "an example prints to its terminal")]

use std::env::var;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::config::GroupOptions;
use streamjobs::{Client, Event, JobError, Runtime, handler};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed", key = "customer")]
struct OrderPlaced {
    order_id: String,
    customer: String,
}

#[handler(group = "billing")]
async fn charge(order: OrderPlaced) -> Result<(), JobError> {
    println!("charged {}", order.order_id);
    Ok(())
}

#[handler(group = "notifications", start = "$")]
async fn notify(order: OrderPlaced) -> Result<(), JobError> {
    println!("mailed {}", order.customer);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect(&var("REDIS_URL")?).await?;
    let mut builder = Runtime::builder(&client);
    if let Ok(groups) = var("GROUPS") {
        builder = builder.only_groups(groups.split(','));
    }
    if let Ok(jobs) = var("BILLING_CONCURRENCY") {
        let options = GroupOptions::new().concurrency(jobs.parse::<NonZeroU32>()?);
        builder = builder.group("billing", options);
    }
    if let Ok(seconds) = var("GRACE_SECONDS") {
        builder = builder.grace(Duration::from_secs(seconds.parse()?));
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let runtime = builder.start().await?;
    for consumer in runtime.consumers() {
        println!("{} jobs of {} at once", consumer.concurrency, consumer.group);
    }
    let _signal = terminate.recv().await;
    let report = runtime.shutdown().await;
    println!("stopped: {} released, {} abandoned", report.released, report.abandoned.len());
    Ok(())
}
