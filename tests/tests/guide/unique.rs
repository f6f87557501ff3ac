//! `docs/unique.md`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::unique::{Debounce, Unique, UniquePublished};
use streamjobs::{Client, Event};
use streamjobs_tests::server::RedisServer;

// page: begin
#[derive(Event, Serialize, Deserialize)]
#[event(stream = "docs", type = "doc.index", unique = "doc")]
struct Index {
    doc: u64,
    asked_by: String,
}
// page: end

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "docs", type = "doc.saved", unique = "doc")]
struct Saved {
    doc: u64,
    version: u32,
}

async fn index_once(client: &Client, index: Index) -> Result<(), Box<dyn std::error::Error>> {
    // page: begin
    let hour = Duration::from_secs(3_600);
    match client.publish_unique(&Unique::within(hour), &index).await? {
        UniquePublished::New(published) => println!("stored as {}", published.entry_id),
        UniquePublished::Repeated(published) => println!("was stored as {}", published.entry_id),
        UniquePublished::Duplicate { stands, .. } => println!("{} stands", stands.event_id),
    }
    client.publish_unique(&Unique::until_done("indexer", hour), &index).await?;
    client.publish_unique(&Unique::within(hour).key("nightly"), &index).await?;
    // page: end
    Ok(())
}

async fn save_quietly(client: &Client, event: Saved) -> Result<(), Box<dyn std::error::Error>> {
    // page: begin
    // A second after the last one, and at the latest a minute after the first one.
    let quiet = Debounce::new(Duration::from_secs(1), Duration::from_secs(60));
    let waits = client.publish_debounced(&quiet, &Saved { doc: 7, version: 3 }).await?;
    if let Some(replaced) = &waits.replaced {
        println!("{replaced} will not run");
    }
    // At most one in a minute, with the newest payload.
    let minute = Duration::from_secs(60);
    client.publish_debounced(&Debounce::new(minute, minute).keep_time(), &event).await?;
    // page: end
    Ok(())
}

#[tokio::test]
async fn a_document_is_indexed_once_and_saved_quietly() {
    let server = RedisServer::start().unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    for _ in 0..2 {
        index_once(&client, Index { doc: 7, asked_by: "alice".into() }).await.unwrap();
    }
    assert_eq!(server.length("docs"), 2, "one of the document, one of the key");
    save_quietly(&client, Saved { doc: 8, version: 1 }).await.unwrap();
    save_quietly(&client, Saved { doc: 8, version: 2 }).await.unwrap();
    assert_eq!(client.scheduled("docs").unwrap().count().await.unwrap(), 2);
}

#[test]
fn the_page_prints_what_is_run_here() {
    crate::assert_printed(include_str!("../../../docs/unique.md"), include_str!("unique.rs"));
}
