//! Gauges of what the server says about a group and its stream: every process says the same, so
//! they are set, where gauges of what a process does are moved.

use std::time::Duration;

use metrics::Gauge;

use super::{
    JOBS, LAG, LAG_KNOWN, Labels, OLDEST_PENDING, OLDEST_WAITING, PAUSED, QueueMetrics,
    STREAM_BYTES, STREAM_LENGTH, stream_label,
};
use crate::insight::view::GroupInfo;
use crate::model::name::StreamName;
use crate::store::inspect::StreamInfo;

/// The handles.
#[derive(Debug)]
pub(super) struct Seen {
    waiting: Gauge,
    pending: Gauge,
    retrying: Gauge,
    dead: Gauge,
    oldest_waiting: Gauge,
    oldest_pending: Gauge,
    lag: Gauge,
    lag_known: Gauge,
    paused: Gauge,
    stream_bytes: Gauge,
    stream_length: Gauge,
}

impl Seen {
    pub(super) fn new(labels: &Labels, stream: &StreamName) -> Self {
        let state = |state| labels.and("state", state).gauge(JOBS);
        let of_stream = Labels(vec![stream_label(stream)]);
        Self {
            waiting: state("waiting"),
            pending: state("pending"),
            retrying: state("retrying"),
            dead: state("dead"),
            oldest_waiting: labels.gauge(OLDEST_WAITING),
            oldest_pending: labels.gauge(OLDEST_PENDING),
            lag: labels.gauge(LAG),
            lag_known: labels.gauge(LAG_KNOWN),
            paused: labels.gauge(PAUSED),
            stream_bytes: of_stream.gauge(STREAM_BYTES),
            stream_length: of_stream.gauge(STREAM_LENGTH),
        }
    }
}

impl QueueMetrics {
    /// The group as the server sees it.
    pub(crate) fn seen_group(&self, group: &GroupInfo) {
        let seen = &self.seen;
        seen.waiting.set(whole(group.backlog.entries));
        seen.pending.set(whole(group.pending));
        seen.retrying.set(whole(group.retrying));
        if let Some(letters) = group.dead_letters {
            seen.dead.set(whole(letters));
        }
        seen.oldest_waiting.set(group.oldest_waiting.unwrap_or(Duration::ZERO));
        seen.oldest_pending.set(group.oldest_pending.unwrap_or(Duration::ZERO));
        if let Some(lag) = group.lag {
            seen.lag.set(whole(lag));
        }
        seen.lag_known.set(f64::from(u8::from(group.lag.is_some())));
        seen.paused.set(f64::from(u8::from(group.paused.is_some())));
    }

    /// The stream as the server sees it.
    pub(crate) fn seen_stream(&self, stream: &StreamInfo) {
        self.seen.stream_length.set(whole(stream.length));
        if let Some(bytes) = stream.bytes {
            self.seen.stream_bytes.set(whole(bytes));
        }
    }
}

/// Counts of jobs and bytes are far below where an f64 loses ones.
fn whole(count: u64) -> f64 {
    count as f64
}
