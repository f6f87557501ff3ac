//! An option has no error whose meaning could be given.

#[path = "../../support.rs"]
mod support;

use std::collections::HashMap;
use std::time::Duration;

use streamjobs::{JobError, ResultExt, handler};
use support::OrderPlaced;

#[handler(group = "mail")]
async fn find(order: OrderPlaced) -> Result<(), JobError> {
    let addresses = HashMap::from([("alice", "alice@example.org")]);
    addresses.get(order.customer.as_str()).dead()?;
    order.customer.chars().next().later(Duration::from_secs(1))?;
    Ok(())
}

fn main() {}
