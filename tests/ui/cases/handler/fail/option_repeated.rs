use streamjobs::{Entry, handler};

#[handler(group = "mail", stream = "orders", group = "post")]
async fn twice(_: Entry) {}

fn main() {}
