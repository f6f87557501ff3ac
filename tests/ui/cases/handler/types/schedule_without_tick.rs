#[path = "../../support.rs"]
mod support;

use streamjobs::{Entry, handler};
use support::OrderPlaced;

#[handler(group = "reports", every = "5m")]
async fn takes_an_event(_: OrderPlaced) {}

#[handler(group = "reports", cron = "@daily", stream = "orders")]
async fn takes_an_entry(_: Entry) {}

fn main() {}
