use streamjobs::{Entry, handler};

#[handler(group = "mail", stream = "orders", concurrency = 0, max_attempts = 0, max_deliveries = 0)]
async fn zero(_: Entry) {}

#[handler(group = "mail", stream = "orders", concurrency = 4_294_967_296)]
async fn too_large(_: Entry) {}

fn main() {}
