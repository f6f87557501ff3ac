use streamjobs::{Entry, handler};

#[handler]
async fn none_at_all(_: Entry) {}

#[handler(stream = "orders", concurrency = 4)]
async fn among_others(_: Entry) {}

fn main() {}
