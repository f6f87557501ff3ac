use streamjobs::{Entry, handler};

#[handler(group = 7, stream = 'o')]
async fn names(_: Entry) {}

#[handler(group = "mail", stream = "orders", concurrency = "4", max_attempts = -1, max_deliveries = 2.5)]
async fn counts(_: Entry) {}

#[handler(group = "mail", stream = "orders", timeout = 30, backoff = 1..2, lease = 10)]
async fn durations(_: Entry) {}

#[handler(group = "mail", stream = "orders", start = 0, unhandled = dead_letter)]
async fn choices(_: Entry) {}

#[handler(group = "mail", stream = "orders", crate = "streamjobs", wrap = "timed")]
async fn paths(_: Entry) {}

fn main() {}
