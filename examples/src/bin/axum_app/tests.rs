//! The job without a server, under virtual time.

use std::error::Error;

use streamjobs::handlers;
use streamjobs::testing::Streams;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_mail_that_cannot_be_sent_is_tried_five_times() -> Result<(), Box<dyn Error>> {
    let streams = Streams::new();
    let client = streams.client();
    let builder = Runtime::builder(&client).handlers(handlers![welcome]);
    let runtime = builder.state(Mailer).start().await?;
    for email in ["alice@example.org", "no address"] {
        client.publish(&UserRegistered { email: email.into() }).await?;
    }
    let drained = streams.drain(Duration::from_secs(3_600)).await?; // no real time
    assert_eq!((drained.done, drained.failed, drained.dead_letters.len()), (1, 5, 1));
    let _ = runtime.shutdown().await;
    Ok(())
}
