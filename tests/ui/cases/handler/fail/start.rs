use streamjobs::{Entry, handler};

#[handler(group = "mail", stream = "orders", start = "yesterday")]
async fn a_day(_: Entry) {}

#[handler(group = "mail", stream = "orders", start = "1700000000000")]
async fn half_an_id(_: Entry) {}

fn main() {}
