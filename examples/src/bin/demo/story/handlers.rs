//! The story's event, its two handlers, and the book that counts their work.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::config::GroupOptions;
use streamjobs::{
    Backoff, Client, Event, Job, JobError, Runtime, RuntimeBuilder, State, handler, handlers,
};
use tokio::time::sleep;

/// The stream of the story.
pub(crate) const STREAM: &str = "streamjobs-demo:orders";

#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(stream = "streamjobs-demo:orders", type = "order.placed", key = "customer")]
pub(crate) struct OrderPlaced {
    pub(crate) order_id: String,
    pub(crate) customer: String,
    pub(crate) cents: u64,
}

/// The orders that each group has processed.
#[derive(Clone, Default)]
pub(crate) struct Book {
    notified: Arc<Mutex<BTreeMap<String, u32>>>,
    revenue: Arc<Mutex<BTreeMap<String, u64>>>,
    /// Whether the mail server accepts the customer that it refuses at first.
    repaired: Arc<AtomicBool>,
}

impl Book {
    pub(crate) fn notify(&self, order_id: &str) {
        let mut notified = self.notified.lock().unwrap_or_else(PoisonError::into_inner);
        *notified.entry(order_id.to_owned()).or_default() += 1;
    }

    pub(crate) fn notified(&self) -> usize {
        self.notified.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn has_notified(&self, order_id: &str) -> bool {
        self.notified.lock().unwrap_or_else(PoisonError::into_inner).contains_key(order_id)
    }

    /// The number of counted orders and their sum. Each order counts once, also if delivered again.
    pub(crate) fn revenue(&self) -> (usize, u64) {
        let revenue = self.revenue.lock().unwrap_or_else(PoisonError::into_inner);
        (revenue.len(), revenue.values().sum())
    }

    pub(crate) fn repair(&self) {
        self.repaired.store(true, Ordering::SeqCst);
    }

    fn add(&self, order_id: &str, cents: u64) {
        let mut revenue = self.revenue.lock().unwrap_or_else(PoisonError::into_inner);
        revenue.insert(order_id.to_owned(), cents);
    }
}

#[handler(group = "notifications", max_attempts = 3, backoff = "100ms..1s", timeout = "10s")]
async fn email_customer(
    order: OrderPlaced,
    State(book): State<Book>,
    job: Job,
) -> Result<(), JobError> {
    let (id, delivery) = (&order.order_id, job.delivery_count());
    println!("  [{}] start {id} attempt {} delivery {delivery}", who(&job), job.attempt());
    sleep(Duration::from_millis(30)).await;
    if order.customer == "unknown" && !book.repaired.load(Ordering::SeqCst) {
        return Err("the mail server does not know this customer".into());
    }
    book.notify(id);
    println!("  [{}] mailed {id}", who(&job));
    Ok(())
}

#[handler(group = "analytics", concurrency = 4)]
async fn count_revenue(order: OrderPlaced, State(book): State<Book>) {
    book.add(&order.order_id, order.cents);
}

/// A runtime with a short lease, so that the demo does not wait ten seconds for a crash.
pub(crate) fn runtime(client: &Client, book: &Book, name: &str) -> RuntimeBuilder {
    let options =
        GroupOptions::new().lease(LEASE).backoff(Backoff::fixed(Duration::from_millis(200)));
    Runtime::builder(client)
        .state(book.clone())
        .group("notifications", options)
        // The program also contains the handlers of the page and of the Postgres story.
        .handlers(handlers![email_customer, count_revenue])
        .consumer_prefix(name)
        .grace(Duration::from_secs(5))
}

pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// The prefix of the consumer's name, which tells the two processes apart.
pub(crate) fn who(job: &Job) -> String {
    let name = job.consumer().as_str();
    name.split('-').next().unwrap_or(name).to_owned()
}
