use streamjobs::{Entry, handler};

#[handler(group = "mail", stream = "orders")]
fn blocking(_: Entry) {}

fn main() {}
