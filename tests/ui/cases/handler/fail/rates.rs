use streamjobs::{Entry, handler};

#[handler(group = "mail", stream = "orders", rate = "100")]
async fn no_time(_: Entry) {}

#[handler(group = "mail", stream = "orders", rate = "0/1m")]
async fn zero(_: Entry) {}

#[handler(group = "mail", stream = "orders", rate = "10/1min")]
async fn unknown_unit(_: Entry) {}

#[handler(group = "mail", stream = "orders", rate = "1/31d")]
async fn too_slow(_: Entry) {}

#[handler(group = "mail", stream = "orders", rate = "100001/1s")]
async fn too_fast(_: Entry) {}

#[handler(group = "mail", stream = "orders", rate = 100)]
async fn number(_: Entry) {}

#[handler(group = "mail", stream = "orders", rate = "100/1m", burst = 0)]
async fn no_burst(_: Entry) {}

#[handler(group = "mail", stream = "orders", rate = "100/1s", burst = 1_000_001)]
async fn large_burst(_: Entry) {}

#[handler(group = "mail", stream = "orders", rate = "1/30d", burst = 20)]
async fn long_burst(_: Entry) {}

#[handler(group = "mail", stream = "orders", burst = 20)]
async fn burst_alone(_: Entry) {}

fn main() {}
