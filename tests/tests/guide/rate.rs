//! `docs/rate.md`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::stream::SetRate;
use streamjobs::{Client, Event, JobError, Rate, ResultExt, Runtime, State, handler, handlers};
use streamjobs_tests::server::RedisServer;

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "invoices", type = "invoice.due")]
struct Invoice {
    number: u64,
}

/// Another side that refuses its second request.
#[derive(Clone, Default)]
struct Api(Arc<AtomicUsize>);

#[derive(Debug)]
enum Refused {
    TooManyRequests { retry_after: Duration },
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("too many requests")
    }
}

impl std::error::Error for Refused {}

impl Api {
    async fn send(&self, _: &Invoice) -> Result<(), Refused> {
        let retry_after = Duration::from_millis(300);
        match self.0.fetch_add(1, Ordering::SeqCst) {
            1 => Err(Refused::TooManyRequests { retry_after }),
            _ => Ok(()),
        }
    }
}

// page: begin
#[handler(group = "invoices", rate = "100/1m", burst = 20)]
async fn send(invoice: Invoice, State(api): State<Api>) -> Result<(), JobError> {
    match api.send(&invoice).await {
        // The job is tried again in 30 seconds, and no job of the group starts before.
        Err(Refused::TooManyRequests { retry_after }) => Err("429").limited(retry_after),
        sent => Ok(sent?),
    }
}
// page: end

async fn change(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    // page: begin
    let group = client.stream("invoices")?.group("invoices")?;
    group.set_rate(Some("50/1m".parse::<Rate>()?.into())).await?;
    group.set_rate(Some(SetRate::Unlimited)).await?;
    // The rate of the code again.
    group.set_rate(None).await?;
    // page: end
    Ok(())
}

#[tokio::test]
async fn the_page_on_rates_runs_as_it_is_printed() {
    let server = RedisServer::start().unwrap();
    let (client, api) = (Client::connect(&server.url()).await.unwrap(), Api::default());
    let builder = Runtime::builder(&client).handlers(handlers![send]).state(api.clone());
    let runtime = builder.start().await.unwrap();
    for number in 0..5 {
        client.publish(&Invoice { number }).await.unwrap();
    }
    let all = async || runtime.counters().succeeded == 5;
    streamjobs_tests::eventually::eventually_async(Duration::from_secs(20), "all are sent", all)
        .await;
    assert_eq!((api.0.load(Ordering::SeqCst), runtime.counters().failed), (6, 0));
    change(&client).await.unwrap();
    let _ = runtime.shutdown().await;
    crate::assert_printed(include_str!("../../../docs/rate.md"), include_str!("rate.rs"));
}
