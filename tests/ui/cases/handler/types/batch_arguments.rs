#[path = "../../support.rs"]
mod support;

use streamjobs::once::OnceMark;
use streamjobs::{Batch, Job, handler};
use support::OrderPlaced;

#[handler(group = "mail", batch = 10)]
async fn one_event(_: OrderPlaced) {}

#[handler(group = "mail", batch = 10)]
async fn one_job(_: Batch<OrderPlaced>, _: Job) {}

#[handler(group = "mail", batch = 10)]
async fn one_mark(_: Batch<OrderPlaced>, _: &mut OnceMark) {}

fn main() {}
