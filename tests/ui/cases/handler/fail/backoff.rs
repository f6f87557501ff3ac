use streamjobs::{Entry, handler};

#[handler(group = "mail", stream = "orders", backoff = "often")]
async fn not_a_duration(_: Entry) {}

#[handler(group = "mail", stream = "orders", backoff = "1s..")]
async fn no_end(_: Entry) {}

#[handler(group = "mail", stream = "orders", backoff = "10m..1s")]
async fn swapped(_: Entry) {}

#[handler(group = "mail", stream = "orders", backoff = "0s..1s")]
async fn never_grows(_: Entry) {}

fn main() {}
