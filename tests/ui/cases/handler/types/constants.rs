use streamjobs::{Entry, handler};

const NUMBER: u32 = 7;

#[handler(group = NUMBER, stream = "orders")]
async fn number(_: Entry) {}

#[handler(group = names::GROUP, stream = "orders")]
async fn absent(_: Entry) {}

#[handler(group = "mail", stream = NUMBER)]
async fn stream(_: Entry) {}

fn main() {}
