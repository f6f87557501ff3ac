//! The first example of the README, as it is printed there. It runs until Ctrl-C.
//!
//! `REDIS_URL=redis://127.0.0.1:6379 cargo run -p streamjobs-examples --bin first`

#![allow(clippy::print_stdout, reason = "an example prints to its terminal")]

// readme: begin
use serde::{Deserialize, Serialize};
use streamjobs::{Client, Event, JobError, Runtime, State, handler};

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed", key = "customer")]
struct OrderPlaced {
    order_id: String,
    customer: String,
}

#[handler(group = "notifications", max_attempts = 5, timeout = "30s")]
async fn email_customer(order: OrderPlaced, State(mailer): State<Mailer>) -> Result<(), JobError> {
    Ok(mailer.confirm(&order.customer, &order.order_id).await?) // an error schedules a retry
}

#[derive(Clone)]
struct Mailer;

impl Mailer {
    async fn confirm(&self, customer: &str, order_id: &str) -> Result<(), std::io::Error> {
        println!("{customer}: your order {order_id} was placed");
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("REDIS_URL").unwrap_or("redis://127.0.0.1:6379".into());
    let client = Client::connect(&url).await?;
    let runtime = Runtime::builder(&client).state(Mailer).start().await?; // finds every #[handler]
    client.publish(&OrderPlaced { order_id: "o-1".into(), customer: "alice".into() }).await?;
    tokio::signal::ctrl_c().await?; // or serve your web application
    println!("{:?}", runtime.shutdown().await); // waits for running jobs
    Ok(())
}
// readme: end
