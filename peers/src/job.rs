//! The job that all peers run, and the counter that notices the last one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use streamjobs::Event;
use tokio::sync::Notify;

/// A job of about 150 bytes as JSON.
#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
pub(crate) struct Order {
    number: usize,
    order_id: String,
    customer: String,
    note: String,
}

/// `jobs` jobs, numbered from zero.
pub(crate) fn orders(jobs: usize) -> Vec<Order> {
    let order = |number| Order {
        number,
        order_id: format!("o-{number:08}"),
        customer: "alice@example.com".to_owned(),
        note: "two pounds of coffee, whole beans, to be left with the neighbour".to_owned(),
    };
    (0..jobs).map(order).collect()
}

/// Counts jobs that have run, each once even if it runs twice, and notifies when all have.
#[derive(Clone, Debug)]
pub(crate) struct Counter(Arc<State>);

#[derive(Debug)]
struct State {
    /// The number of the first job.
    first: usize,
    ran: Vec<AtomicBool>,
    left: AtomicUsize,
    reached: Notify,
}

impl Counter {
    /// Counts these jobs, whose numbers are consecutive.
    pub(crate) fn of(orders: &[Order]) -> Self {
        Self(Arc::new(State {
            first: orders.first().map_or(0, |order| order.number),
            ran: orders.iter().map(|_| AtomicBool::new(false)).collect(),
            left: AtomicUsize::new(orders.len()),
            reached: Notify::new(),
        }))
    }

    /// Records that a job has run.
    pub(crate) fn add(&self, order: &Order) {
        let state = &self.0;
        let index = order.number.checked_sub(state.first);
        let Some(ran) = index.and_then(|index| state.ran.get(index)) else { return };
        if !ran.swap(true, Ordering::Relaxed) && state.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            state.reached.notify_one();
        }
    }

    /// Returns when all jobs have run. One task may wait.
    pub(crate) async fn reached(&self) {
        self.0.reached.notified().await;
    }
}
