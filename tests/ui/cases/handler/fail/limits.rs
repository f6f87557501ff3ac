#[path = "../../support.rs"]
mod support;

use streamjobs::handler;
use support::OrderPlaced;

#[handler(group = "mail", order = "customer")]
async fn order(_: OrderPlaced) {}

#[handler(group = "mail", order = "key", on_failure = "park")]
async fn on_failure(_: OrderPlaced) {}

#[handler(group = "mail", on_failure = "skip")]
async fn without_order(_: OrderPlaced) {}

#[handler(group = "mail", concurrency_per_key = 0, order = "key")]
async fn two(_: OrderPlaced) {}

#[handler(group = "mail", concurrency_total = "4")]
async fn total(_: OrderPlaced) {}

#[handler(group = "mail", fair = "customer")]
async fn fair(_: OrderPlaced) {}

#[handler(group = "mail", fair = "key", order = "key")]
async fn fair_and_order(_: OrderPlaced) {}

fn main() {}
