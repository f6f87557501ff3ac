use streamjobs::{Entry, handler};

#[handler(group = "mail", stream = "orders")]
async fn missing() {}

#[handler(group = "mail", stream = "orders")]
async fn borrowed(_: &Entry) {}

#[handler(group = "mail", stream = "orders")]
async fn after_a_resource(_: &mut Vec<u8>, _: Entry) {}

fn main() {}
