//! The second process of the story, which runs notifications until it is killed.

use streamjobs::Client;

use crate::AnyError;
use crate::story::handlers::{Book, runtime};

/// Runs until Ctrl-C. In the story it is killed instead.
pub(crate) async fn run(url: &str) -> Result<(), AnyError> {
    let client = Client::connect(url).await?;
    let runtime = runtime(&client, &Book::default(), "helper").only_groups(["notifications"]);
    let runtime = runtime.start().await?;
    println!("  [helper] ready");
    tokio::signal::ctrl_c().await?;
    let report = runtime.shutdown().await;
    println!("  [helper] stopped, {} released", report.released);
    Ok(())
}
