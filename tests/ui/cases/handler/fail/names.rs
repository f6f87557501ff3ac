use streamjobs::{Entry, handler};

#[handler(group = "", stream = "")]
async fn empty(_: Entry) {}

#[handler(group = "m{ai}l", stream = "orders:{a}{b}")]
async fn braces(_: Entry) {}

#[handler(group = "ma\nil", stream = "or\tders")]
async fn control_characters(_: Entry) {}

#[handler(group = "mail", stream = "{orders}:lane:mail")]
async fn helper_key(_: Entry) {}

#[handler(
    group = "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\
             0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789x",
    stream = "orders"
)]
async fn too_long(_: Entry) {}

fn main() {}
