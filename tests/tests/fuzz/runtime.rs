//! Entries of other clients on a running runtime, in memory.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::of;
use streamjobs::config::{GroupOptions, Retention, Unhandled};
use streamjobs::testing::Streams;
use streamjobs::{Event, Runtime, StreamName, handler, handlers};
use streamjobs_tests::conformance::append;
use streamjobs_tests::eventually::eventually_async;

use crate::fuzzer::{FenceResult, fuzz};
use crate::{fields_of, quotes_nothing};

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Order {
    id: u64,
    note: String,
}

#[handler(group = "work")]
async fn work(order: Order) {
    drop(order);
}

/// One entry, and what becomes of it: done, or a dead letter with the same bytes. Both are the end.
async fn followed(input: &[u8]) -> FenceResult {
    let streams = Streams::new();
    let client = streams.client();
    let fields = fields_of(input);
    let stream = StreamName::new("orders").map_err(|error| error.to_string())?;
    let store = of(&client);
    for answer in append(&*store, &stream, Retention::Unlimited, vec![fields.clone()]).await {
        answer.map_err(|error| error.to_string())?;
    }
    let options = GroupOptions::new().unhandled(Unhandled::DeadLetter);
    let runtime = Runtime::builder(&client).handlers(handlers![self::work]);
    let runtime = runtime.group("work", options).start().await;
    let runtime = runtime.map_err(|error| error.to_string())?;
    eventually_async(Duration::from_secs(3_600), "the end of the entry", async || {
        runtime.counters().dead_lettered + runtime.counters().succeeded > 0
    })
    .await;
    let report = runtime.shutdown().await;
    if !report.abandoned.is_empty() || !streams.pending("orders", "work").is_empty() {
        return Err("it is still pending".to_owned());
    }
    let letters = client.dead_letters("orders", "work").map_err(|error| error.to_string())?;
    let page = letters.list(None, 10).await.map_err(|error| error.to_string())?;
    match page.letters.as_slice() {
        [] => Ok("done".to_owned()),
        [letter] if letter.fields == fields => {
            let error = letter.error.clone().unwrap_or_default();
            // The event type is no payload and may be named.
            if !letter.event_type().is_some_and(|of| of.contains("canary")) {
                quotes_nothing(&error)?;
            }
            Ok(error.chars().filter(|letter| !letter.is_ascii_digit()).take(60).collect())
        }
        [letter] => {
            Err(format!("{} fields were dead-lettered as {:?}", fields.len(), letter.fields))
        }
        letters => Err(format!("one entry became {} letters", letters.len())),
    }
}

#[test]
fn an_entry_of_another_client_is_done_or_dead_lettered_byte_for_byte_and_never_loops() {
    fuzz("entries", |input| {
        // Names of fields are the writer's own and may be shown.
        let named =
            fields_of(input).iter().any(|(name, _)| name.windows(6).any(|part| part == b"canary"));
        if named {
            return Ok("names".to_owned());
        }
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(followed(input))
    });
}
