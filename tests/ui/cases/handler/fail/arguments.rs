use streamjobs::{Entry, handler};

#[handler(group = "mail", stream = "orders")]
async fn shared(_: Entry, _: &String) {}

#[handler(group = "mail", stream = "orders")]
async fn forever(_: Entry, _: &'static mut String) {}

#[handler(group = "mail", stream = "orders")]
async fn anything(_: Entry, _: impl Into<String>, _: Vec<impl Copy>) {}

#[handler(group = "mail", stream = "orders")]
async fn sometimes(_: Entry, #[cfg(unix)] _: streamjobs::Job) {}

fn main() {}
