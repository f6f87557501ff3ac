//! An enum of events in one handler, with an extractor and a resource of the application.
//!
//! `cargo run -p streamjobs-examples --bin own_extractor` prints the line of the order that was placed.
//! The audit of the order that failed is rolled back.

#![allow(clippy::print_stdout, reason = "an example talks to its terminal")]

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::{Begin, Client, Event, FromJob, Job, JobError, JobResource, Runtime, handler};
use streamjobs_examples::redis;
use streamjobs_tests::eventually::eventually_async;

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders")]
enum OrderEvent {
    #[event(type = "order.placed")]
    Placed { order_id: String },
    #[event(type = "order.cancelled")]
    Cancelled { order_id: String },
}

/// How many attempts were before this one.
struct FailedBefore(u32);

impl FromJob for FailedBefore {
    fn from_job(job: &Job) -> Result<Self, JobError> {
        Ok(Self(job.attempt() - 1))
    }
}

/// Lines that are printed when the handler has succeeded.
#[derive(Default)]
struct Audit(Vec<String>);

impl JobResource for Audit {
    async fn begin(_job: &Job) -> Result<Begin<Self>, JobError> {
        Ok(Begin::Run(Self::default()))
    }

    async fn commit(self) -> Result<(), JobError> {
        println!("{}", self.0.join("\n"));
        Ok(())
    }

    async fn rollback(self) {}
}

#[handler(group = "audit", max_attempts = 2, backoff = "50ms")]
async fn audit(event: OrderEvent, failed: FailedBefore, audit: &mut Audit) -> Result<(), JobError> {
    match event {
        OrderEvent::Placed { order_id } => {
            audit.0.push(format!("{order_id} placed, failed before: {}", failed.0));
            Ok(())
        }
        OrderEvent::Cancelled { order_id } => {
            audit.0.push(format!("{order_id}: this line is rolled back"));
            Err("cancelling is not implemented in this shop".into())
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = redis()?;
    let client = Client::connect(&server.url()).await?;
    let runtime = Runtime::builder(&client).start().await?;
    client.publish(&OrderEvent::Placed { order_id: "o-1".to_owned() }).await?;
    client.publish(&OrderEvent::Cancelled { order_id: "o-2".to_owned() }).await?;
    let ended = || runtime.counters().acknowledged == 1 && runtime.counters().dead_lettered == 1;
    eventually_async(Duration::from_secs(10), "both have ended", async || ended()).await;
    for letter in client.dead_letters("orders", "audit")?.list(None, 10).await?.letters {
        println!("dead letter: {:?}: {:?}", letter.event_type(), letter.error);
    }
    println!("stopped, {} jobs abandoned", runtime.shutdown().await.abandoned.len());
    Ok(())
}
