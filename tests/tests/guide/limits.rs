//! `docs/limits.md`.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::{Client, Event, JobError, Runtime, State, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::RedisServer;

/// Bookings in the order in which they were made.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<Vec<(String, i64)>>>);

impl Ledger {
    async fn add(&self, account: &str, cents: i64) -> Result<(), JobError> {
        tokio::task::yield_now().await;
        self.0.lock().unwrap().push((account.to_owned(), cents));
        Ok(())
    }
}

/// How many statements were printed.
#[derive(Clone, Default)]
struct Printer(Arc<Mutex<usize>>);

impl Printer {
    async fn print(&self, _account: &str) -> Result<(), JobError> {
        tokio::task::yield_now().await;
        *self.0.lock().unwrap() += 1;
        Ok(())
    }
}

// page: begin
#[derive(Event, Serialize, Deserialize)]
#[event(stream = "payments", type = "payment.received", key = "account")]
struct Payment {
    account: String,
    cents: i64,
}

#[handler(group = "ledger", order = "key")]
async fn book(payment: Payment, State(ledger): State<Ledger>) -> Result<(), JobError> {
    ledger.add(&payment.account, payment.cents).await
}

#[handler(group = "statements", concurrency_total = 4)]
async fn print(payment: Payment, State(printer): State<Printer>) -> Result<(), JobError> {
    printer.print(&payment.account).await
}
// page: end

async fn change(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    // page: begin
    let group = client.stream("payments")?.group("statements")?;
    let two = NonZeroU32::new(2).ok_or("zero")?;
    group.set_limit(two, "alice", "one printer is in repair").await?;
    // The limit of the code again.
    group.reset_limit().await?;
    // page: end
    Ok(())
}

#[tokio::test]
async fn payments_of_an_account_are_booked_in_order() {
    let (server, ledger) = (RedisServer::start().unwrap(), Ledger::default());
    let client = Client::connect(&server.url()).await.unwrap();
    let printer = Printer::default();
    let builder = Runtime::builder(&client).handlers(handlers![book, print]);
    let builder = builder.state(ledger.clone()).state(printer.clone());
    let runtime = builder.start().await.unwrap();
    for cents in 0..40 {
        let account = format!("a-{}", cents % 2);
        client.publish(&Payment { account, cents }).await.unwrap();
    }
    let done = async || (ledger.0.lock().unwrap().len(), *printer.0.lock().unwrap()) == (40, 40);
    eventually_async(Duration::from_secs(20), "all are booked and printed", done).await;
    change(&client).await.unwrap();
    let booked = ledger.0.lock().unwrap().clone();
    for account in ["a-0", "a-1"] {
        let of_it = booked.iter().filter(|(of, _)| of == account).map(|(_, cents)| *cents);
        assert!(of_it.is_sorted(), "{booked:?}");
    }
    let _ = runtime.shutdown().await;
}

#[test]
fn the_page_prints_what_is_run_here() {
    crate::assert_printed(include_str!("../../../docs/limits.md"), include_str!("limits.rs"));
}
