//! The handlers of the story: a guarded one, and one for the events that it publishes.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use streamjobs::config::GroupOptions;
use streamjobs::{
    Client, Event, Job, JobError, ResultExt, Runtime, RuntimeBuilder, State, handler, handlers,
};
use streamjobs_postgres::{Once, Postgres, Publisher};
use tokio::sync::Barrier;

use crate::story::handlers::{LEASE, OrderPlaced, who};

/// Published by the transaction that charges the order.
#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(stream = "streamjobs-demo:payments", type = "order.charged", key = "order_id")]
pub(crate) struct OrderCharged {
    pub(crate) order_id: String,
    pub(crate) cents: i64,
}

/// The state of the handlers of one process.
#[derive(Clone)]
pub(crate) struct Desk {
    publisher: Publisher,
    /// Whether mallory's card is accepted; it is declined at first.
    funded: Arc<AtomicBool>,
    /// The jobs that charge at the same time, where that is wanted.
    together: Option<Arc<Barrier>>,
    runs: Arc<AtomicUsize>,
    receipts: Arc<Mutex<BTreeMap<String, i64>>>,
}

impl Desk {
    pub(crate) fn new(postgres: &Postgres) -> Self {
        let publisher = postgres.publisher();
        let (funded, together, runs, receipts) = Default::default();
        Self { publisher, funded, together, runs, receipts }
    }

    /// A job charges when so many have started: the first acknowledgement, which is held up, comes
    /// after the last delivery.
    pub(crate) fn together(self, jobs: usize) -> Self {
        Self { together: Some(Arc::new(Barrier::new(jobs))), ..self }
    }

    pub(crate) fn fund(&self) {
        self.funded.store(true, Ordering::SeqCst);
    }

    /// How often this process has run the handler that charges.
    pub(crate) fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    /// How many orders have a receipt.
    pub(crate) fn receipts(&self) -> usize {
        self.receipts.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn refuses(&self, customer: &str) -> bool {
        customer == "mallory" && !self.funded.load(Ordering::SeqCst)
    }
}

#[handler(group = "billing", max_attempts = 2, backoff = "100ms", timeout = "10s")]
async fn charge(
    order: OrderPlaced,
    tx: &mut Once,
    State(desk): State<Desk>,
    job: Job,
) -> Result<(), JobError> {
    let OrderPlaced { order_id, customer, cents } = order;
    desk.runs.fetch_add(1, Ordering::SeqCst);
    println!("  [{}] charges {order_id}, attempt {}", who(&job), job.attempt());
    if let Some(together) = &desk.together {
        together.wait().await;
    }
    let cents = i64::try_from(cents).dead()?;
    sqlx::query("INSERT INTO charges (order_id, cents) VALUES ($1, $2)")
        .bind(&order_id)
        .bind(cents)
        .execute(&mut **tx)
        .await?;
    desk.publisher.publish_in(tx, &OrderCharged { order_id, cents }).await?;
    if desk.refuses(&customer) {
        // Rolls back the charge, the event, and the guard row.
        return Err("card declined: insufficient funds".into());
    }
    Ok(())
}

#[handler(group = "receipts")]
async fn write_receipt(charged: OrderCharged, State(desk): State<Desk>) {
    let mut receipts = desk.receipts.lock().unwrap_or_else(PoisonError::into_inner);
    receipts.insert(charged.order_id, charged.cents);
}

/// The runtime of a process, with a short lease, so that its jobs are claimed soon after a crash.
pub(crate) fn runtime(
    client: &Client,
    postgres: &Postgres,
    desk: &Desk,
    name: &str,
) -> RuntimeBuilder {
    let options = GroupOptions::new().lease(LEASE).concurrency(SLOTS);
    Runtime::builder(client)
        .handlers(handlers![charge, write_receipt])
        .state(postgres.clone())
        .state(desk.clone())
        .group("billing", options)
        .consumer_prefix(name)
}

/// Fewer than the connections of a process to the database.
const SLOTS: NonZeroU32 = NonZeroU32::new(8).unwrap();
