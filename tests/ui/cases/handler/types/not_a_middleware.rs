#[path = "../../support.rs"]
mod support;

use streamjobs::middleware::Next;
use streamjobs::{Job, JobError, handler};
use support::OrderPlaced;

async fn without_next(_: Job) -> Result<(), JobError> {
    Ok(())
}

async fn without_error(_: Job, next: Next) -> bool {
    next.run().await.is_ok()
}

#[handler(group = "mail", wrap = without_next)]
async fn one_argument(_: OrderPlaced) {}

#[handler(group = "mail", wrap = without_error)]
async fn other_result(_: OrderPlaced) {}

#[handler(group = "mail", wrap = support::missing)]
async fn unknown(_: OrderPlaced) {}

fn main() {}
