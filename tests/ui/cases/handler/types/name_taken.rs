//! The item beside the function uses the function's name for a type.

use streamjobs::{Entry, handler};

#[allow(non_camel_case_types)]
struct confirm;

#[handler(group = "mail", stream = "orders")]
async fn confirm(_: Entry) {}

fn main() {}
