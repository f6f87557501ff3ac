//! The spans of this crate, after OpenTelemetry's conventions for messaging.
//!
//! Their target is `streamjobs::trace` and their level is info. Without a subscriber that wants
//! them, a span is a comparison of two numbers: nothing is formatted and nothing is allocated.

use std::fmt;
use std::sync::Arc;

use tracing::field::Empty;
use tracing::{Span, info_span};

use super::TraceContext;
use crate::model::name::{ConsumerName, EventId, GroupName, StreamName};

/// Around the publishing of one event, or of many in one call.
pub(crate) fn send(stream: &StreamName, events: usize, id: Option<&EventId>) -> Span {
    info_span!(
        target: TARGET,
        "send",
        "otel.name" = format_args!("send {stream}"),
        "otel.kind" = "producer",
        "otel.status_code" = Empty,
        "error.type" = Empty,
        "messaging.system" = SYSTEM,
        "messaging.operation.name" = "send",
        "messaging.operation.type" = "send",
        "messaging.destination.name" = stream.as_str(),
        "messaging.message.id" = id.map(EventId::as_str),
        "messaging.batch.message_count" = events,
    )
}

/// What the span around one run of a handler tells.
#[derive(Clone, Copy)]
pub(crate) struct Processing<'a> {
    pub(crate) stream: &'a StreamName,
    pub(crate) group: &'a GroupName,
    pub(crate) consumer: &'a ConsumerName,
    pub(crate) event_id: &'a EventId,
    pub(crate) delivery_count: u64,
    pub(crate) attempt: u32,
}

/// Around one run of a handler.
pub(crate) fn process(processing: Processing<'_>) -> Span {
    let Processing { stream, group, consumer, event_id, delivery_count, attempt } = processing;
    info_span!(
        target: TARGET,
        "process",
        "otel.name" = format_args!("process {stream}"),
        "otel.kind" = "consumer",
        "otel.status_code" = Empty,
        "error.type" = Empty,
        "messaging.system" = SYSTEM,
        "messaging.operation.name" = "process",
        "messaging.operation.type" = "process",
        "messaging.destination.name" = stream.as_str(),
        "messaging.consumer.group.name" = group.as_str(),
        "messaging.client.id" = consumer.as_str(),
        "messaging.message.id" = event_id.as_str(),
        "messaging.redis.message.delivery_count" = delivery_count,
        "streamjobs.attempt" = attempt,
    )
}

/// Around a request that tells the server how jobs ended. `operation` is one of a few words.
pub(crate) fn settle(
    operation: &'static str,
    stream: &StreamName,
    group: &GroupName,
    jobs: usize,
    event_id: Option<&EventId>,
) -> Span {
    info_span!(
        target: TARGET,
        "settle",
        "otel.name" = format_args!("{operation} {stream}"),
        "otel.kind" = "client",
        "otel.status_code" = Empty,
        "error.type" = Empty,
        "messaging.system" = SYSTEM,
        "messaging.operation.name" = operation,
        "messaging.operation.type" = "settle",
        "messaging.destination.name" = stream.as_str(),
        "messaging.consumer.group.name" = group.as_str(),
        "messaging.message.id" = event_id.map(EventId::as_str),
        "messaging.batch.message_count" = jobs,
    )
}

/// Says that what the span is around went wrong. `kind` is one of a few words.
pub(crate) fn failed(span: &Span, kind: &'static str) {
    span.record("otel.status_code", "ERROR");
    span.record("error.type", kind);
}

type Ask = dyn Fn() -> Option<TraceContext> + Send + Sync;
type Tell = dyn Fn(&Span, &TraceContext) + Send + Sync;

/// Asks the application for the trace that it is in.
#[derive(Clone)]
pub(crate) struct Asking(pub(crate) Arc<Ask>);

/// Tells the application of a span, and of the trace that it continues.
#[derive(Clone)]
pub(crate) struct Telling(pub(crate) Arc<Tell>);

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asking(..)")
    }
}

impl fmt::Debug for Telling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Telling(..)")
    }
}

const TARGET: &str = "streamjobs::trace";
const SYSTEM: &str = "redis";
