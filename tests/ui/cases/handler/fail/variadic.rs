use streamjobs::{Entry, handler};

#[handler(group = "mail", stream = "orders")]
async unsafe extern "C" fn any_number(_: Entry, _: ...) {}

fn main() {}
