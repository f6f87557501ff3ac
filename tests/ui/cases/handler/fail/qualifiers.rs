use streamjobs::{Entry, handler};

#[handler(group = "mail", stream = "orders")]
async unsafe fn with_conditions(_: Entry) {}

#[handler(group = "mail", stream = "orders")]
async extern "C" fn from_elsewhere(_: Entry) {}

#[handler(group = "mail", stream = "orders")]
const fn at_compile_time(_: &Entry) {}

fn main() {}
