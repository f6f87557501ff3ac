//! A boxed error that may not be `Send` cannot leave its thread, as a job's error does.

#[path = "../../support.rs"]
mod support;

use std::error::Error;

use streamjobs::handler;
use support::OrderPlaced;

#[handler(group = "mail")]
async fn boxed(_: OrderPlaced) -> Result<(), Box<dyn Error>> {
    Ok(())
}

fn main() {}
