#[path = "../../support.rs"]
mod support;

use streamjobs::{JobError, handler};
use support::OrderPlaced;

struct NoError;

#[handler(group = "mail")]
async fn number(_: OrderPlaced) -> u8 {
    7
}

#[handler(group = "mail")]
async fn value_in_a_result(_: OrderPlaced) -> Result<u8, JobError> {
    Ok(7)
}

#[handler(group = "mail")]
async fn not_an_error(_: OrderPlaced) -> Result<(), NoError> {
    Ok(())
}

#[handler(group = "mail")]
async fn hidden(_: OrderPlaced) -> impl Copy {
    7
}

fn main() {}
