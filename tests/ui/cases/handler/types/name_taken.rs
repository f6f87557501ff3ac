//! The item beside the function takes its name among the types.

use streamjobs::{Entry, handler};

#[allow(non_camel_case_types)]
struct confirm;

#[handler(group = "mail", stream = "orders")]
async fn confirm(_: Entry) {}

fn main() {}
