//! `docs/progress.md`.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::stream::PendingQuery;
use streamjobs::testing::Streams;
use streamjobs::{Client, Event, Job, JobError, Runtime, State, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use tokio::sync::Semaphore;

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "report.progressing")]
struct Report {
    pages: u32,
}

/// A permit for each page.
#[derive(Clone)]
struct Pages(Arc<Semaphore>);

impl Pages {
    async fn write(&self, _page: u32) -> Result<(), JobError> {
        self.0.acquire().await?.forget();
        Ok(())
    }
}

// page: begin
#[handler(group = "exports")]
async fn export(report: Report, job: Job, State(pages): State<Pages>) -> Result<(), JobError> {
    for page in 0..report.pages {
        job.progress(page.into(), u64::from(report.pages), "pages are written");
        pages.write(page).await?;
    }
    Ok(())
}
// page: end

async fn print(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    // page: begin
    let pending = client.stream("orders")?.group("exports")?.pending(PendingQuery::new()).await?;
    for entry in pending.entries {
        if let Some(progress) = entry.progress {
            println!("{}: {} {}", entry.id, progress.done, progress.text);
        }
    }
    // page: end
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_report_says_how_many_pages_are_written() {
    let (streams, pages) = (Streams::new(), Pages(Arc::new(Semaphore::new(2))));
    let client = streams.client();
    let builder = Runtime::builder(&client).handlers(handlers![export]).state(pages.clone());
    let runtime = builder.start().await.unwrap();
    client.publish(&Report { pages: 3 }).await.unwrap();
    let group = client.stream("orders").unwrap().group("exports").unwrap();
    let shown = async || {
        let page = group.pending(PendingQuery::new()).await.unwrap();
        page.entries.into_iter().find_map(|entry| entry.progress)
    };
    let two = async || shown().await.is_some_and(|progress| progress.done == 2);
    eventually_async(Duration::from_secs(10), "two pages are written", two).await;
    assert_eq!(shown().await.unwrap().of, Some(3));
    print(&client).await.unwrap();
    pages.0.add_permits(1);
    assert_eq!(streams.drain(Duration::ZERO).await.unwrap().done, 1);
    let _ = runtime.shutdown().await;
}

#[test]
fn the_page_prints_what_is_run_here() {
    crate::assert_printed(include_str!("../../../docs/progress.md"), include_str!("progress.rs"));
}
