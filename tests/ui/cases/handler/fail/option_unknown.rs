use streamjobs::{Entry, handler};

#[handler(group = "mail", stream = "orders", retries = 5, timeout = "30s")]
async fn misspelled(_: Entry) {}

#[handler("mail", stream = "orders")]
async fn not_an_option(_: Entry) {}

fn main() {}
