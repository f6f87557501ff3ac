//! `docs/cancel.md`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::dead_letter::Reason;
use streamjobs::{
    Client, Event, EventId, Job, JobError, Published, Runtime, State, handler, handlers,
};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::RedisServer;

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "report.requested")]
struct Report {
    pages: u32,
}

impl Report {
    fn pages(&self) -> std::ops::Range<u32> {
        0..self.pages
    }
}

/// Pages that were written.
#[derive(Clone, Default)]
struct Pages(Arc<Mutex<Vec<u32>>>);

async fn cancel(
    client: &Client,
    published: &Published,
    event_id: EventId,
) -> Result<(), Box<dyn std::error::Error>> {
    // page: begin
    let orders = client.stream("orders")?;
    orders.cancel(&published.event_id).await?;
    orders.group("billing")?.cancel(&event_id).await?;
    orders.group("billing")?.uncancel(&event_id).await?;

    for event in orders.cancelled(0, 50).await? {
        println!("{} {:?} {}", event.event_id, event.group, event.at);
    }
    // page: end
    Ok(())
}

// page: begin
#[handler(group = "exports")]
async fn export(report: Report, job: Job, State(pages): State<Pages>) -> Result<(), JobError> {
    for page in report.pages() {
        if job.cancelled().is_cancelled() {
            return Err(JobError::retry(format!("stopped: {:?}", job.cancel_reason())));
        }
        pages.write(page).await?;
    }
    Ok(())
}
// page: end

impl Pages {
    async fn write(&self, page: u32) -> Result<(), JobError> {
        self.0.lock().unwrap().push(page);
        tokio::task::yield_now().await;
        Ok(())
    }
}

#[tokio::test]
async fn a_long_report_is_cancelled_while_it_is_written() {
    let (server, pages) = (RedisServer::start().unwrap(), Pages::default());
    let client = Client::connect(&server.url()).await.unwrap();
    let builder = Runtime::builder(&client).handlers(handlers![export]).state(pages.clone());
    let runtime = builder.start().await.unwrap();
    let report = client.publish(&Report { pages: u32::MAX }).await.unwrap();
    let within = Duration::from_secs(20);
    let begun = async || !pages.0.lock().unwrap().is_empty();
    eventually_async(within, "begun", begun).await;
    cancel(&client, &report, EventId::new("another").unwrap()).await.unwrap();
    let letters = client.dead_letters("orders", "exports").unwrap();
    let ended = async || letters.list(None, 1).await.unwrap().letters.len() == 1;
    eventually_async(within, "ended", ended).await;
    let letter = letters.list(None, 1).await.unwrap().letters.remove(0);
    assert_eq!(letter.reason, Reason::Cancelled);
    assert_eq!(letter.error.as_deref(), Some("stopped: Some(Requested)"));
    let _ = runtime.shutdown().await;
}

#[test]
fn the_page_prints_what_is_run_here() {
    crate::assert_printed(include_str!("../../../docs/cancel.md"), include_str!("cancel.rs"));
}
