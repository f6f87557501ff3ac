#[path = "../../support.rs"]
mod support;

use std::num::NonZeroU32;
use std::time::Duration;

use streamjobs::schedule::{DeclaredTiming, Missed, Tick};
use streamjobs::{Batch, Entry, JobError, State, handler, handlers};
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

mod around {
    use streamjobs::middleware::Next;
    use streamjobs::{Job, JobError};

    pub(super) async fn nothing(_: Job, next: Next) -> Result<(), JobError> {
        next.run().await
    }
}

#[handler(group = "mail", wrap = around::nothing)]
async fn wrap(_: OrderPlaced) {}

#[handler(group = "mail", order = "key")]
async fn order(_: OrderPlaced) {}

#[handler(group = "mail", order = "key", on_failure = "skip")]
async fn order_skip(_: OrderPlaced) {}

#[handler(group = "mail", concurrency_per_key = 2)]
async fn concurrency_per_key(_: OrderPlaced) {}

#[handler(group = "mail", concurrency_total = 100)]
async fn concurrency_total(_: OrderPlaced) {}

#[handler(group = "mail", fair = "key")]
async fn fair(_: OrderPlaced) {}

#[handler(group = "mail", rate = "100/1m")]
async fn rate(_: OrderPlaced) {}

#[handler(group = "mail", rate = "100000/1s", burst = 1_000_000)]
async fn rate_with_burst(_: OrderPlaced) {}

#[handler(group = "mail", batch = 1)]
async fn batch(_: Batch<OrderPlaced>) {}

#[handler(group = "mail", batch = 100, wait = "0s")]
async fn batch_with_wait(batch: Batch<OrderPlaced>, _: State<u8>) -> Result<(), JobError> {
    assert!(!batch.is_empty());
    Ok(())
}

#[handler(group = "mail", stream = "orders", batch = 10)]
async fn batch_of_entries(_: Batch<Entry>) {}

#[handler(group = "mail", result = "1s")]
async fn result(_: OrderPlaced) -> Result<u32, JobError> {
    Ok(7)
}

#[handler(group = "mail", result = "7d", timeout = "1m")]
async fn result_of_any_error(_: OrderPlaced) -> Result<Option<()>, String> {
    Ok(None)
}

#[handler(group = "mail", keep_done = "1s")]
async fn keep_done(_: OrderPlaced) {}

#[handler(group = "mail", keep_done = "7d", result = "10m")]
async fn keep_done_with_result(_: OrderPlaced) -> Result<u32, JobError> {
    Ok(7)
}

#[handler(group = "mail", slots = "mail")]
async fn slots(_: OrderPlaced) {}

#[handler(group = "mail", slots = "mail", weight = 100)]
async fn slots_with_weight(_: OrderPlaced) {}

#[handler(group = "mail", crate = ::streamjobs)]
async fn crate_path(_: OrderPlaced) {}

#[handler(group = "reports", cron = " 0  9 * * mon-FRI")]
async fn cron(_: Tick) {}

#[handler(group = "reports", cron = "@daily", zone = "europe/berlin", missed = "none")]
async fn zone(_: Tick) -> Result<(), JobError> {
    Ok(())
}

#[handler(
    group = "reports",
    every = "1s",
    missed = "one",
    overlap = "allow",
    stream = "ticks:{reports}"
)]
async fn every(_: Tick) {}

#[handler(group = "reports", every = "365d", offset = "1ms", jitter = "24h", expires = "1h")]
async fn offset(_: Tick) {}

#[handler(
    group = "reports",
    every = "5m",
    missed = "all",
    overlap = "skip",
    missed_max = 10_000,
    missed_within = "7d"
)]
async fn r#missed_all(_: streamjobs::schedule::Tick) {}

#[handler(
    group = r"mail",
    backoff = "1s..10m",
    burst = 20,
    concurrency = 32,
    expires = "1s",
    lease = "1h",
    max_attempts = 5,
    max_deliveries = 5,
    rate = "100/1m",
    start = "$",
    timeout = "5m",
    unhandled = "leave",
    unhandled_after = "1h"
)]
async fn all_together(_: OrderPlaced) -> Result<(), JobError> {
    Ok(())
}

fn main() {
    schedules();
    let listed = handlers![group, stream, timeout, all_together];
    assert!(listed.iter().all(|handler| handler.stream.starts_with("orders")));
    assert!(listed.iter().all(|handler| handler.result.is_none()));
    let kept = handlers![result, result_of_any_error].map(|handler| handler.result);
    assert_eq!(kept, [Duration::from_secs(1), Duration::from_secs(7 * 86_400)].map(Some));
    let shared = handlers![group, slots, slots_with_weight];
    let shared = shared.map(|handler| (handler.options.slots, handler.options.weight));
    let weight = NonZeroU32::new(100);
    assert_eq!(shared, [(None, None), (Some("mail"), None), (Some("mail"), weight)]);
}

/// What the descriptions of handlers with schedules say.
fn schedules() {
    let listed = handlers![cron, zone, every, offset, missed_all];
    let streams = listed.map(|handler| handler.stream);
    let own = "ticks:reports";
    assert_eq!(streams, [own, own, "ticks:{reports}", own, own]);
    let declared = listed.map(|handler| handler.schedule.unwrap());
    let names = declared.map(|schedule| schedule.name);
    assert_eq!(names, ["cron", "zone", "every", "offset", "missed_all"]);
    for (handler, schedule) in listed.iter().zip(declared) {
        assert_eq!(handler.types, Some(&[format!("tick.{}", schedule.name).as_str()][..]));
        schedule.schedule(handler.stream, "tick").unwrap();
    }
    let expected = DeclaredTiming::Cron { expression: "0 9 * * mon-FRI", zone: None };
    assert_eq!((declared[0].timing, declared[0].missed), (expected, Missed::One));
    let expected = DeclaredTiming::Cron { expression: "@daily", zone: Some("Europe/Berlin") };
    assert_eq!((declared[1].timing, declared[1].missed), (expected, Missed::None));
    let (period, offset) = (Duration::from_secs(365 * 86_400), Duration::from_millis(1));
    assert_eq!(declared[3].timing, DeclaredTiming::Every { period, offset });
    assert_eq!((declared[3].skip_while, declared[4].skip_while), (None, Some("reports")));
    assert_eq!(declared[3].jitter, Duration::from_secs(86_400));
    let (max, within) = (NonZeroU32::new(10_000).unwrap(), Duration::from_secs(7 * 86_400));
    assert_eq!(declared[4].missed, Missed::All { max, within });
}
