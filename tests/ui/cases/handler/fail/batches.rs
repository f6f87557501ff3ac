#[path = "../../support.rs"]
mod support;

use streamjobs::schedule::Tick;
use streamjobs::{Batch, handler};
use support::OrderPlaced;

#[handler(group = "mail")]
async fn without_a_size(_: Batch<OrderPlaced>) {}

#[handler(group = "mail", batch = 0)]
async fn none(_: Batch<OrderPlaced>) {}

#[handler(group = "mail", batch = "10")]
async fn text(_: Batch<OrderPlaced>) {}

#[handler(group = "mail", wait = "1s")]
async fn wait_alone(_: OrderPlaced) {}

#[handler(group = "mail", batch = 10, wait = "1min")]
async fn unknown_unit(_: Batch<OrderPlaced>) {}

#[handler(group = "mail", batch_size = 10)]
async fn elsewhere(_: Batch<OrderPlaced>) {}

#[handler(group = "mail", every = "1m", batch = 10)]
async fn scheduled(_: Batch<Tick>) {}

fn main() {}
