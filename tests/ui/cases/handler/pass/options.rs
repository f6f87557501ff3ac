#[path = "../../support.rs"]
mod support;

use streamjobs::{Entry, JobError, handler, handlers};
use support::OrderPlaced;

#[handler(group = "none but the group")]
async fn group(_: OrderPlaced) {}

#[handler(group = "mail", stream = "orders:{acme}")]
async fn stream(_: Entry) {}

#[handler(group = "mail", concurrency = 1)]
async fn concurrency(_: OrderPlaced) {}

#[handler(group = "mail", max_attempts = 4_294_967_295)]
async fn max_attempts(_: OrderPlaced) {}

#[handler(group = "mail", max_deliveries = 3u32)]
async fn max_deliveries(_: OrderPlaced) {}

#[handler(group = "mail", timeout = "365d")]
async fn timeout(_: OrderPlaced) {}

#[handler(group = "mail", backoff = "0s")]
async fn backoff_fixed(_: OrderPlaced) {}

#[handler(group = "mail", backoff = "500ms..500ms")]
async fn backoff_exponential(_: OrderPlaced) {}

#[handler(group = "mail", lease = "60ms")]
async fn lease(_: OrderPlaced) {}

#[handler(group = "mail", start = "0")]
async fn start_beginning(_: OrderPlaced) {}

#[handler(group = "mail", start = "$")]
async fn start_end(_: OrderPlaced) {}

#[handler(group = "mail", start = "1700000000000-0")]
async fn start_after(_: OrderPlaced) {}

#[handler(group = "mail", unhandled = "acknowledge")]
async fn unhandled_acknowledge(_: OrderPlaced) {}

#[handler(group = "mail", unhandled = "dead-letter")]
async fn unhandled_dead_letter(_: OrderPlaced) {}

#[handler(group = "mail", unhandled = "leave")]
async fn unhandled_leave(_: OrderPlaced) {}

#[handler(group = "mail", unhandled_after = "30d")]
async fn unhandled_after(_: OrderPlaced) {}

#[handler(group = "mail", expires = "365d")]
async fn expires(_: OrderPlaced) {}

#[handler(group = "mail", crate = ::streamjobs)]
async fn crate_path(_: OrderPlaced) {}

#[handler(
    group = r"mail",
    backoff = "1s..10m",
    concurrency = 32,
    expires = "1s",
    lease = "1h",
    max_attempts = 5,
    max_deliveries = 5,
    start = "$",
    timeout = "5m",
    unhandled = "leave",
    unhandled_after = "1h"
)]
async fn all_together(_: OrderPlaced) -> Result<(), JobError> {
    Ok(())
}

fn main() {
    let listed = handlers![group, stream, timeout, all_together];
    assert!(listed.iter().all(|handler| handler.stream.starts_with("orders")));
}
