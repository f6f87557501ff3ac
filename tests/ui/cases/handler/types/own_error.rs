//! An error that is not one: `std::error::Error` is missing.

#[path = "../../support.rs"]
mod support;

use streamjobs::{JobError, handler};
use support::OrderPlaced;

#[derive(Debug)]
enum MailError {
    Refused,
}

#[handler(group = "mail")]
async fn returned(_: OrderPlaced) -> Result<(), MailError> {
    Err(MailError::Refused)
}

#[handler(group = "bills")]
async fn passed_on(_: OrderPlaced) -> Result<(), JobError> {
    Err(MailError::Refused)?;
    Ok(())
}

fn main() {}
