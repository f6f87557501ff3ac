//! The job that everybody does, and how its end is noticed.

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

/// So many jobs, numbered from zero.
pub(crate) fn orders(jobs: usize) -> Vec<Order> {
    let order = |number| Order {
        number,
        order_id: format!("o-{number:08}"),
        customer: "alice@example.com".to_owned(),
        note: "two pounds of coffee, whole beans, to be left with the neighbour".to_owned(),
    };
    (0..jobs).map(order).collect()
}

/// Counts jobs that have run, each once however often it runs, and tells when all have.
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
    /// Waits for these jobs, whose numbers follow each other.
    pub(crate) fn of(orders: &[Order]) -> Self {
        Self(Arc::new(State {
            first: orders.first().map_or(0, |order| order.number),
            ran: orders.iter().map(|_| AtomicBool::new(false)).collect(),
            left: AtomicUsize::new(orders.len()),
            reached: Notify::new(),
        }))
    }

    /// This job has run.
    pub(crate) fn add(&self, order: &Order) {
        let state = &self.0;
        let place = order.number.checked_sub(state.first);
        let Some(ran) = place.and_then(|place| state.ran.get(place)) else { return };
        if !ran.swap(true, Ordering::Relaxed) && state.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            state.reached.notify_one();
        }
    }

    /// Returns when all have run. One task may wait.
    pub(crate) async fn reached(&self) {
        self.0.reached.notified().await;
    }
}
