//! The job of both sides, and how its starts and ends are noticed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use streamjobs::{Event, HandlerDef, State, handler, handlers};
use tokio::sync::Notify;

/// An event of 141 bytes as JSON, or of more with a longer note.
#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
pub struct Order {
    pub number: usize,
    pub order_id: String,
    pub customer: String,
    pub note: String,
}

/// An event of about so many bytes.
pub fn order(number: usize, bytes: usize) -> Order {
    const NOTE: &str = "two pounds of coffee, whole beans, to be left with the neighbour";
    let mut note = NOTE.to_owned();
    while note.len() + 90 < bytes {
        note.push_str(NOTE);
    }
    Order {
        number,
        order_id: format!("o-{number:08}"),
        customer: "alice@example.com".to_owned(),
        note,
    }
}

/// Counts jobs, and tells when all are done.
#[derive(Clone, Default)]
pub struct Counter {
    done: Arc<AtomicUsize>,
    wanted: Arc<AtomicUsize>,
    reached: Arc<Notify>,
    starts: Arc<Mutex<Vec<Option<Instant>>>>,
    first: Arc<OnceLock<Instant>>,
}

impl Counter {
    pub fn expect(wanted: usize) -> Self {
        let counter = Self::default();
        counter.wanted.store(wanted, Ordering::Relaxed);
        counter
    }

    /// Keeps when each job starts, too.
    pub fn timed(wanted: usize) -> Self {
        let counter = Self::expect(wanted);
        *counter.starts.lock().unwrap() = vec![None; wanted];
        counter
    }

    pub fn add(&self) {
        let before = self.done.fetch_add(1, Ordering::Relaxed);
        if before == 0 {
            self.first.get_or_init(Instant::now);
        }
        if before + 1 == self.wanted.load(Ordering::Relaxed) {
            self.reached.notify_one();
        }
    }

    /// When the first job was done.
    pub fn first(&self) -> Instant {
        *self.first.get().expect("a first job")
    }

    pub fn start(&self, number: usize) {
        let now = Instant::now();
        self.starts.lock().unwrap()[number] = Some(now);
        self.add();
    }

    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    /// How long after these moments the jobs started.
    pub fn since(&self, due: &[Instant]) -> Vec<Duration> {
        let starts = self.starts.lock().unwrap();
        let pairs = due.iter().zip(starts.iter());
        pairs.map(|(due, start)| start.unwrap().saturating_duration_since(*due)).collect()
    }
}

/// Decodes its event and does nothing, as the loop by hand.
#[handler(group = "bench")]
pub async fn count(_order: Order, State(counter): State<Counter>) {
    counter.add();
}

/// Says that it has started, and does not end.
#[handler(group = "bench")]
pub async fn hold(_order: Order) {
    println!("started");
    std::future::pending::<()>().await;
}

/// The same in another group.
pub fn count_in(group: String) -> HandlerDef {
    let [handler] = handlers![count];
    HandlerDef { group: Box::leak(group.into_boxed_str()), ..handler }
}

#[handler(group = "latency")]
pub async fn note_start(order: Order, State(counter): State<Counter>) {
    counter.start(order.number);
}
