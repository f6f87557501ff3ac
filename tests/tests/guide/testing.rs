//! `docs/testing.md`.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use streamjobs::dead_letter::Reason;
use streamjobs::testing::{Next, Streams, perform};
use streamjobs::{Event, EventId, Job, JobError, Runtime, State, handler, handlers};

/// Charges each event once.
#[derive(Clone, Default)]
struct Terminal(Arc<Mutex<(HashSet<String>, u32)>>);

impl Terminal {
    fn new() -> Self {
        Self::default()
    }

    /// Its first charge fails.
    fn busy_once() -> Self {
        Self(Arc::new(Mutex::new((HashSet::new(), 1))))
    }

    fn charge(&self, id: &EventId, cents: u64) -> Result<(), JobError> {
        let mut state = self.0.lock().unwrap();
        if cents == 0 {
            return Err(JobError::dead("an order without a price"));
        }
        if state.1 > 0 {
            state.1 -= 1;
            return Err(JobError::retry("the terminal is busy"));
        }
        state.0.insert(id.as_str().to_owned());
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Mails(Arc<Mutex<Vec<(String, SystemTime)>>>);

impl Mails {
    fn send(&self, order_id: &str, at: SystemTime) {
        self.0.lock().unwrap().push((order_id.to_owned(), at));
    }

    fn sent(&self) -> Vec<(String, SystemTime)> {
        self.0.lock().unwrap().clone()
    }
}

// page: begin
#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct OrderPlaced {
    order_id: String,
    cents: u64,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "invoices", type = "invoice.due")]
struct InvoiceDue {
    order_id: String,
}

#[handler(group = "billing", max_attempts = 3, backoff = "1m")]
async fn charge(
    order: OrderPlaced,
    State(terminal): State<Terminal>,
    job: Job,
) -> Result<(), JobError> {
    terminal.charge(job.event_id(), order.cents)?;
    let invoice = InvoiceDue { order_id: order.order_id };
    let soon = Duration::from_secs(7_200);
    job.client().publish_in_with_id(soon, &invoice, job.derived_event_id(1)).await?;
    Ok(())
}

#[handler(group = "reminders")]
async fn remind(invoice: InvoiceDue, State(mails): State<Mails>, job: Job) {
    mails.send(&invoice.order_id, job.now());
}
// page: end

// page: begin
#[tokio::test]
async fn an_order_without_a_price_is_a_dead_letter() -> Result<(), Box<dyn std::error::Error>> {
    let order = OrderPlaced { order_id: "o-1".into(), cents: 0 };
    let run = perform::<charge>(&order).state(Terminal::new()).await?;
    assert!(matches!(run.next, Next::DeadLetter { reason: Reason::Rejected, .. }));
    Ok(())
}
// page: end

// page: begin
#[tokio::test(start_paused = true)]
async fn a_customer_is_reminded_two_hours_after_the_order() -> Result<(), Box<dyn std::error::Error>>
{
    let (streams, mails) = (Streams::new(), Mails::default());
    streams.deliver_twice();
    let client = streams.client();
    let runtime = Runtime::builder(&client)
        .handlers(handlers![charge, remind])
        .state(Terminal::busy_once())
        .state(mails.clone())
        .start()
        .await?;

    let hour = Duration::from_secs(3_600);
    client.publish(&OrderPlaced { order_id: "o-1".into(), cents: 900 }).await?;
    let drained = streams.drain(hour).await?;
    assert_eq!((drained.failed, drained.done, drained.later), (1, 1, 1));

    let waiting = streams.scheduled::<InvoiceDue>()?;
    assert_eq!((waiting.len(), waiting[0].event.order_id.as_str()), (1, "o-1"));
    streams.advance(2 * hour).await;
    assert_eq!(streams.published::<InvoiceDue>()?.len(), 1);
    assert!(mails.sent()[0].1 >= waiting[0].due);
    let _ = runtime.shutdown().await;
    Ok(())
}
// page: end

#[test]
fn the_page_prints_what_is_run_here() {
    crate::assert_printed(include_str!("../../../docs/testing.md"), include_str!("testing.rs"));
}
