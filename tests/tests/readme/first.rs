//! The README's first example, compiled and run as it is printed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::{Client, Event, JobError, Runtime, State, handler};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::RedisServer;

use crate::Stand as Mailer;

// readme: begin
#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed", key = "customer")]
struct OrderPlaced {
    order_id: String,
    customer: String,
}

#[handler(group = "notifications", max_attempts = 5, timeout = "30s")]
async fn email_customer(order: OrderPlaced, State(mailer): State<Mailer>) -> Result<(), JobError> {
    Ok(mailer.confirm(&order.customer, &order.order_id).await?)
}
// readme: end

impl Mailer {
    async fn confirm(&self, customer: &str, order_id: &str) -> Result<(), std::io::Error> {
        self.sent.lock().unwrap().push(format!("{customer} {order_id}"));
        Ok(())
    }
}

async fn application(url: String, mailer: Mailer) -> Result<Runtime, Box<dyn std::error::Error>> {
    // readme: begin
    let client = Client::connect(&url).await?;
    let runtime = Runtime::builder(&client).state(mailer).start().await?;
    client.publish(&OrderPlaced { order_id: "o-1".into(), customer: "alice".into() }).await?;
    // readme: end
    Ok(runtime)
}

#[tokio::test]
async fn the_first_example_of_the_readme_sends_its_mail() {
    let (server, mailer) = (RedisServer::start().unwrap(), Mailer::default());
    let runtime = application(server.url(), mailer.clone()).await.unwrap();
    let mailed = || mailer.sent.lock().unwrap().as_slice() == ["alice o-1"];
    eventually_async(Duration::from_secs(20), "the mail", async || mailed()).await;
    let report = runtime.shutdown().await;
    assert!(report.abandoned.is_empty());
}

#[test]
fn the_readme_prints_what_is_run_here() {
    let printed = include_str!("../../../README.md")
        .split("```rust\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let run = include_str!("first.rs")
        .split("// readme: begin\n")
        .skip(1)
        .filter_map(|part| part.split("// readme: end").next());
    assert_eq!(bare(printed), bare(&run.collect::<String>()));
}

#[test]
fn the_readme_needs_ten_lines_for_the_job() {
    let printed = include_str!("../../../README.md")
        .split("```rust\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let lines = printed.lines().map(str::trim).filter(|line| !line.is_empty() && *line != "}");
    assert!(lines.count() <= 10, "{printed}");
}

/// The code without comments, white space and trailing commas, which are the formatter's.
fn bare(code: &str) -> String {
    let lines = code.lines().map(|line| line.split("   //").next().unwrap_or_default());
    let dense = lines
        .flat_map(str::chars)
        .filter(|character| !character.is_whitespace())
        .collect::<String>();
    dense.replace(",}", "}").replace(",)", ")")
}
