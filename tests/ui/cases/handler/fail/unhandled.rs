use streamjobs::{Entry, handler};

#[handler(group = "mail", stream = "orders", unhandled = "drop")]
async fn no_choice(_: Entry) {}

fn main() {}
