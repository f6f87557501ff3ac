use streamjobs::{Entry, handler};

#[handler(group, stream = "orders")]
async fn bare(_: Entry) {}

#[handler(group("mail"), stream = "orders")]
async fn as_a_list(_: Entry) {}

#[handler(group = "mail", stream = "orders", concurrency = )]
async fn empty(_: Entry) {}

#[handler(group = "mail" stream = "orders")]
async fn no_comma(_: Entry) {}

fn main() {}
