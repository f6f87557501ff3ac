//! A handler cannot end the guard's transaction; the runtime does.

use streamjobs::{Event, JobError, JobResource, handler};
use streamjobs_postgres::Once;

#[derive(Event, serde::Serialize, serde::Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Order {
    id: String,
}

#[handler(group = "billing")]
async fn commit(_order: Order, tx: &mut Once) -> Result<(), JobError> {
    JobResource::commit(*tx).await
}

#[handler(group = "shipping")]
async fn roll_back(_order: Order, tx: &mut Once) -> Result<(), JobError> {
    tx.rollback().await;
    Ok(())
}

#[handler(group = "stock")]
async fn take_away(_order: Order, tx: Once) -> Result<(), JobError> {
    tx.commit().await
}

fn main() {}
