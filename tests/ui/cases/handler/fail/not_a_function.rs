use streamjobs::{Entry, handler};

#[handler(group = "mail", stream = "orders")]
struct Mail;

#[handler(group = "mail", stream = "orders")]
pub static MAIL: fn(Entry) = mail;

fn mail(_: Entry) {}

fn main() {}
