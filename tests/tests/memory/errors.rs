//! Errors of handlers whose own code misbehaves: each is a failed attempt of its job.

use std::error::Error;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::config::GroupOptions;
use streamjobs::dead_letter::Reason;
use streamjobs::testing::Streams;
use streamjobs::{Backoff, Event, Runtime, handler, handlers};
use streamjobs_tests::eventually::eventually_async;

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "broken", type = "broken.reported")]
struct Report {
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Fault {
    DisplayFails,
    DisplayPanics,
    SourcePanics,
    OwnCause,
    DropPanics,
    PayloadDropPanics,
}

/// An error that misbehaves in one way.
#[derive(Debug)]
struct Misbehaving(Fault);

impl fmt::Display for Misbehaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Fault::DisplayFails => Err(fmt::Error),
            Fault::DisplayPanics => panic!("in Display"),
            _ => f.write_str("it failed"),
        }
    }
}

impl Error for Misbehaving {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self.0 {
            Fault::OwnCause => Some(self),
            Fault::SourcePanics => panic!("in source"),
            _ => None,
        }
    }
}

impl Drop for Misbehaving {
    fn drop(&mut self) {
        if matches!(self.0, Fault::DropPanics | Fault::PayloadDropPanics) {
            panic!("in Drop");
        }
    }
}

#[handler(group = "work")]
async fn fail(report: Report) -> Result<(), Misbehaving> {
    match report.fault {
        fault @ Fault::PayloadDropPanics => std::panic::panic_any(Misbehaving(fault)),
        fault => Err(Misbehaving(fault)),
    }
}

/// The attempts that were counted, and the text of the dead letter.
async fn failures(fault: Fault) -> (u64, Reason, String) {
    let streams = Streams::new();
    let client = streams.client();
    let options = GroupOptions::new()
        .max_attempts(NonZeroU32::new(2).unwrap())
        .backoff(Backoff::fixed(Duration::from_millis(10)));
    let builder = Runtime::builder(&client).handlers(handlers![self::fail]);
    let runtime = builder.group("work", options).start().await.unwrap();
    client.publish(&Report { fault }).await.unwrap();
    let ended = async || runtime.counters().dead_lettered == 1;
    eventually_async(Duration::from_secs(600), "a dead letter", ended).await;
    let counted = runtime.counters().failed;
    let _ = runtime.shutdown().await;
    let letters =
        client.dead_letters("broken", "work").unwrap().list(None, 10).await.unwrap().letters;
    (counted, letters[0].reason, letters[0].error.clone().unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn an_error_that_cannot_be_shown_is_a_failed_attempt() {
    for (fault, text) in [
        (Fault::DisplayFails, "(the error cannot be shown: its Display failed)"),
        (Fault::DisplayPanics, "(the error cannot be shown: its Display panicked)"),
        (Fault::SourcePanics, "it failed (its cause cannot be shown: source() panicked)"),
    ] {
        assert_eq!(failures(fault).await, (2, Reason::Exhausted, text.to_owned()), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_its_own_cause_is_a_failed_attempt() {
    let text = "it failed (causes after the first 32 are not shown)".to_owned();
    assert_eq!(failures(Fault::OwnCause).await, (2, Reason::Exhausted, text));
}

#[tokio::test(start_paused = true)]
async fn an_error_whose_drop_panics_is_a_failed_attempt() {
    let text = "it failed (the error cannot be dropped: its Drop panicked)".to_owned();
    assert_eq!(failures(Fault::DropPanics).await, (2, Reason::Exhausted, text));
}

#[tokio::test(start_paused = true)]
async fn a_panic_whose_payload_panics_when_dropped_is_a_failed_attempt() {
    let text = "the handler panicked: a panic without a message (the drop of its payload panicked)";
    assert_eq!(failures(Fault::PayloadDropPanics).await, (2, Reason::Exhausted, text.to_owned()));
}
