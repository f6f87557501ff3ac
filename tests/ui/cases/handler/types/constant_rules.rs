use streamjobs::{Entry, handler};

const BRACES: &str = "mail{1}";
const EMPTY: &str = "";

#[handler(group = BRACES, stream = "orders")]
async fn braces(_: Entry) {}

#[handler(group = "mail", stream = EMPTY)]
async fn empty(_: Entry) {}

fn main() {}
