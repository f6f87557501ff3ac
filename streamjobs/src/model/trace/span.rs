//! The spans of this crate, by OpenTelemetry's conventions for messaging.
//!
//! Their target is `streamjobs::trace` and their level is info. Without a subscriber that enables
//! them, a span costs one comparison: nothing is formatted or allocated.

use std::fmt;
use std::sync::Arc;

use tracing::field::Empty;
use tracing::{Span, info_span};

use super::TraceContext;
use crate::model::name::{ConsumerName, EventId, GroupName, StreamName};

/// Covers the publishing of one event, or of many in one call.
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

/// The fields of the span that covers one run of a handler.
#[derive(Clone, Copy)]
pub(crate) struct Processing<'a> {
    pub(crate) stream: &'a StreamName,
    pub(crate) group: &'a GroupName,
    pub(crate) consumer: &'a ConsumerName,
    pub(crate) event_id: &'a EventId,
    pub(crate) delivery_count: u64,
    pub(crate) attempt: u32,
}

/// Covers one run of a handler.
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

/// Covers a request that settles jobs on the server. `operation` is one of a few words.
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

/// Marks the span as failed. `kind` is one of a few words.
pub(crate) fn failed(span: &Span, kind: &'static str) {
    span.record("otel.status_code", "ERROR");
    span.record("error.type", kind);
}

type Provide = dyn Fn() -> Option<TraceContext> + Send + Sync;
type Hook = dyn Fn(&Span, &TraceContext) + Send + Sync;

/// The application's function that returns the current trace.
#[derive(Clone)]
pub(crate) struct TraceProvider(pub(crate) Arc<Provide>);

/// The application's function that is called with a new span and the trace that it continues.
#[derive(Clone)]
pub(crate) struct SpanHook(pub(crate) Arc<Hook>);

impl fmt::Debug for TraceProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TraceProvider(..)")
    }
}

impl fmt::Debug for SpanHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpanHook(..)")
    }
}

const TARGET: &str = "streamjobs::trace";
const SYSTEM: &str = "redis";
