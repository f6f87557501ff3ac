//! The second process: it takes its share of the notifications until it is killed.

use streamjobs::Client;

use crate::AnyError;
use crate::story::shop::{Book, runtime};

/// Works until it is told to stop. In the demo it never is.
pub(crate) async fn run(url: &str) -> Result<(), AnyError> {
    let client = Client::connect(url).await?;
    let runtime = runtime(&client, &Book::default(), "helper").only_groups(["notifications"]);
    let runtime = runtime.start().await?;
    println!("  [helper] ready");
    tokio::signal::ctrl_c().await?;
    let report = runtime.shutdown().await;
    println!("  [helper] stopped, {} handed back", report.released);
    Ok(())
}
