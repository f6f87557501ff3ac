//! The spans of this crate: a short one for readers of logs, and others that follow OpenTelemetry's
//! conventions for messaging.
//!
//! The short one, `job`, is of level info. The usual subscriber puts the fields of all spans in front of each line
//! that a handler logs, so it has only three. The others have the level debug and the target `streamjobs::trace`: a
//! collector enables them for itself. Without a subscriber that enables it, a span costs one comparison: nothing is
//! formatted or allocated.

use std::fmt;
use std::sync::Arc;

use tracing::field::Empty;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Span, debug_span, info_span};

use super::TraceContext;
use crate::model::entry::Entry;
use crate::model::name::{ConsumerName, EventId, GroupName, StreamName};

/// Covers the publishing of one event, or of many in one call.
pub(crate) fn send(stream: &StreamName, events: usize, id: Option<&EventId>) -> Span {
    debug_span!(
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

/// Covers one run of a handler, for readers of its log lines. The event type is cut after 100
/// letters: any client may have written it.
pub(crate) fn job(entry: &Entry, event_id: &EventId, attempt: u32) -> Span {
    if !is_heard(Level::INFO) {
        return Span::none();
    }
    info_span!(
        target: JOB_TARGET,
        "job",
        event_type = entry.event_type().map(cut),
        event_id = event_id.as_str(),
        attempt,
    )
}

/// Covers one run of a handler for several jobs. It belongs to none of the jobs: each has a span of its own.
pub(crate) fn batch(event_type: Option<&str>, jobs: usize) -> Span {
    info_span!(target: JOB_TARGET, parent: None, "batch", event_type = event_type.map(cut), jobs)
}

fn cut(text: &str) -> &str {
    let end = text.char_indices().nth(EVENT_TYPE_MAX).map(|(end, _)| end);
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

/// The fields of the span that covers one run of a handler, for a collector.
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
    if !is_heard(Level::DEBUG) {
        return Span::none();
    }
    let Processing { stream, group, consumer, event_id, delivery_count, attempt } = processing;
    debug_span!(
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
        "streamjobs.delivery_count" = delivery_count,
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
    debug_span!(
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

/// Whether a subscriber takes spans of this level. Where another crate has enabled `tracing`'s own log lines for
/// loggers without spans, a span that no subscriber takes costs much more than this check.
fn is_heard(level: Level) -> bool {
    level <= LevelFilter::current()
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
const JOB_TARGET: &str = "streamjobs::job";
const EVENT_TYPE_MAX: usize = 100;
const SYSTEM: &str = "redis";
