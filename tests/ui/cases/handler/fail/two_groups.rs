use streamjobs::{Entry, handler};

#[handler(group = "mail", stream = "orders")]
#[handler(group = "audit", stream = "orders")]
async fn both(_: Entry) {}

fn main() {}
