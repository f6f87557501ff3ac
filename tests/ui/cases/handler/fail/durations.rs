use streamjobs::{Entry, handler};

#[handler(group = "mail", stream = "orders", timeout = "30", lease = "1.5s")]
async fn not_durations(_: Entry) {}

#[handler(group = "mail", stream = "orders", timeout = "366d")]
async fn too_long(_: Entry) {}

#[handler(group = "mail", stream = "orders", timeout = "0s")]
async fn no_time(_: Entry) {}

#[handler(group = "mail", stream = "orders", lease = "59ms")]
async fn short_lease(_: Entry) {}

#[handler(group = "mail", stream = "orders", lease = "25h")]
async fn long_lease(_: Entry) {}

#[handler(group = "mail", stream = "orders", unhandled_after = "31d")]
async fn long_wait(_: Entry) {}

#[handler(group = "mail", stream = "orders", expires = "999ms")]
async fn short_expiry(_: Entry) {}

fn main() {}
