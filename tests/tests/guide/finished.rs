//! `docs/finished.md`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::stream::FinishedQuery;
use streamjobs::testing::Streams;
use streamjobs::{Client, Event, Runtime, handler, handlers};

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "parcels", type = "parcel.packed", key = "customer")]
struct Parcel {
    number: u32,
    customer: String,
}

// page: begin
#[handler(group = "parcels", keep_done = "1h")]
async fn send(parcel: Parcel) {
    println!("parcel {} is on its way", parcel.number);
}
// page: end

async fn print(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    // page: begin
    let parcels = client.stream("parcels")?.group("parcels")?;
    for job in parcels.finished(FinishedQuery::new().key("alice").limit(20)).await?.jobs {
        println!(
            "{} at attempt {} after {:?} in {}",
            job.event_id, job.attempt, job.took, job.process
        );
    }
    // page: end
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_parcel_that_was_sent_is_found_by_its_customer() {
    let streams = Streams::new();
    let client = streams.client();
    let runtime = Runtime::builder(&client).handlers(handlers![send]).start().await.unwrap();
    for (number, customer) in [(1, "alice"), (2, "bob")] {
        client.publish(&Parcel { number, customer: customer.to_owned() }).await.unwrap();
    }
    streams.drain(Duration::from_secs(10)).await.unwrap();
    let _ = runtime.shutdown().await;
    let parcels = client.stream("parcels").unwrap().group("parcels").unwrap();
    let page = parcels.finished(FinishedQuery::new().key("alice")).await.unwrap();
    assert_eq!((page.jobs.len(), page.compared), (1, 2));
    print(&client).await.unwrap();
}

#[test]
fn the_page_prints_what_is_run_here() {
    crate::assert_printed(include_str!("../../../docs/finished.md"), include_str!("finished.rs"));
}
