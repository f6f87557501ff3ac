#[path = "../../support.rs"]
mod support;

use streamjobs::{Batch, JobError, handler};
use support::OrderPlaced;

#[handler(group = "mail", result = "10m")]
async fn nothing(_: OrderPlaced) {}

#[handler(group = "mail", result = "10m")]
async fn result_of_nothing(_: OrderPlaced) -> Result<(), JobError> {
    Ok(())
}

#[handler(group = "mail", result = "500ms")]
async fn too_short(_: OrderPlaced) -> Result<u8, JobError> {
    Ok(7)
}

#[handler(group = "mail", result = "8d")]
async fn too_long(_: OrderPlaced) -> Result<u8, JobError> {
    Ok(7)
}

#[handler(group = "mail", result = true)]
async fn no_time(_: OrderPlaced) -> Result<u8, JobError> {
    Ok(7)
}

#[handler(group = "mail", batch = 10, result = "10m")]
async fn batch(_: Batch<OrderPlaced>) -> Result<u8, JobError> {
    Ok(7)
}

fn main() {}
