#[path = "../../support.rs"]
mod support;

use streamjobs::{JobError, handler};
use support::OrderPlaced;

struct Price;

#[handler(group = "mail", result = "10m")]
async fn no_result(_: OrderPlaced) -> u8 {
    7
}

#[handler(group = "mail", result = "10m")]
async fn cannot_be_written(_: OrderPlaced) -> Result<Price, JobError> {
    Ok(Price)
}

fn main() {}
