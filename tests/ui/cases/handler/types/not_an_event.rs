use streamjobs::{Entry, handler};

struct Plain;

#[handler(group = "mail")]
async fn plain(_: Plain) {}

#[handler(group = "mail")]
async fn entry_of_no_stream(_: Entry) {}

fn main() {}
