//! `docs/results.md`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::stream::JobResult;
use streamjobs::testing::{Streams, perform};
use streamjobs::{Client, Event, JobError, ResultExt, Runtime, handler, handlers};

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "quotes", type = "quote.wanted")]
struct QuoteWanted {
    article: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Price {
    cents: u64,
}

fn catalogue_price(article: &str) -> Result<u64, JobError> {
    let number = article.strip_prefix("a-").ok_or("no such article").dead()?;
    Ok(1_200 * number.parse::<u64>().dead()?)
}

// page: begin
#[handler(group = "pricing", result = "10m", timeout = "5s")]
async fn price(wanted: QuoteWanted) -> Result<Price, JobError> {
    Ok(Price { cents: catalogue_price(&wanted.article)? })
}
// page: end

async fn quote(
    client: &Client,
    article: String,
) -> Result<Option<Price>, Box<dyn std::error::Error>> {
    // page: begin
    let published = client.publish(&QuoteWanted { article }).await?;
    let pricing = client.stream("quotes")?.group("pricing")?;
    match pricing.wait_for::<Price>(&published, Duration::from_secs(5)).await? {
        JobResult::Done(price) => Ok(Some(price)),
        JobResult::Dead(letter) => Err(letter.error.unwrap_or_default().into()),
        JobResult::NotKept | JobResult::Unknown => Ok(None),
    }
    // page: end
}

async fn performed() -> Result<(), Box<dyn std::error::Error>> {
    // page: begin
    let run = perform::<price>(&QuoteWanted { article: "a-1".into() }).await?;
    assert_eq!(run.result::<Price>()?, Some(Price { cents: 1_200 }));
    // page: end
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn who_publishes_a_question_gets_the_price_or_why_there_is_none() {
    let streams = Streams::new();
    let client = streams.client();
    let late = quote(&client, "a-2".to_owned()).await.unwrap();
    assert_eq!(late, None, "there is no process yet");
    let runtime = Runtime::builder(&client).handlers(handlers![price]).start().await.unwrap();
    assert_eq!(quote(&client, "a-3".to_owned()).await.unwrap(), Some(Price { cents: 3_600 }));
    let error = quote(&client, "b-3".to_owned()).await.unwrap_err();
    assert_eq!(error.to_string(), "no such article");
    performed().await.unwrap();
    let _ = runtime.shutdown().await;
}

#[test]
fn the_page_prints_what_is_run_here() {
    crate::assert_printed(include_str!("../../../docs/results.md"), include_str!("results.rs"));
}
