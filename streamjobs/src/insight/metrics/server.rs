//! Gauges of what the server reports about a group and its stream. Every process reports the same
//! values, so these gauges are set to a value, while gauges of a process's own work are raised and
//! lowered.

use std::time::Duration;

use metrics::Gauge;

use super::labels::Labels;
use super::table::{
    JOBS, LAG, LAG_KNOWN, OLDEST_PENDING, OLDEST_WAITING, PAUSED, SCHEDULED_WAITING,
    SCHEDULES_UNDECLARED, STREAM_BYTES, STREAM_LENGTH,
};
use crate::insight::view::GroupInfo;
use crate::store::inspect::StreamSizes;

/// The handles.
#[derive(Debug)]
pub(crate) struct ServerGauges {
    waiting: Gauge,
    pending: Gauge,
    released: Gauge,
    retrying: Gauge,
    dead: Gauge,
    oldest_waiting: Gauge,
    oldest_pending: Gauge,
    lag: Gauge,
    lag_known: Gauge,
    paused: Gauge,
    stream_bytes: Gauge,
    stream_length: Gauge,
    scheduled: Gauge,
    undeclared_schedules: Gauge,
}

impl ServerGauges {
    pub(super) fn new(labels: &Labels, of_stream: &Labels) -> Self {
        let state = |state| labels.and("state", state).gauge(JOBS);
        Self {
            waiting: state("waiting"),
            pending: state("pending"),
            released: state("released"),
            retrying: state("retrying"),
            dead: state("dead"),
            oldest_waiting: labels.gauge(OLDEST_WAITING),
            oldest_pending: labels.gauge(OLDEST_PENDING),
            lag: labels.gauge(LAG),
            lag_known: labels.gauge(LAG_KNOWN),
            paused: labels.gauge(PAUSED),
            stream_bytes: of_stream.gauge(STREAM_BYTES),
            stream_length: of_stream.gauge(STREAM_LENGTH),
            scheduled: of_stream.gauge(SCHEDULED_WAITING),
            undeclared_schedules: of_stream.gauge(SCHEDULES_UNDECLARED),
        }
    }

    /// The group as the server reports it.
    pub(crate) fn set_group(&self, group: &GroupInfo) {
        self.waiting.set(whole(group.backlog.entries));
        self.pending.set(whole(group.pending));
        self.released.set(whole(group.released));
        self.retrying.set(whole(group.retrying));
        if let Some(letters) = group.dead_letters {
            self.dead.set(whole(letters));
        }
        self.oldest_waiting.set(group.oldest_waiting.unwrap_or(Duration::ZERO));
        self.oldest_pending.set(group.oldest_pending.unwrap_or(Duration::ZERO));
        if let Some(lag) = group.lag {
            self.lag.set(whole(lag));
        }
        self.lag_known.set(f64::from(u8::from(group.lag.is_some())));
        self.paused.set(f64::from(u8::from(group.paused.is_some())));
    }

    /// How many scheduled events wait.
    pub(crate) fn set_scheduled(&self, waiting: u64) {
        self.scheduled.set(whole(waiting));
    }

    /// How many schedules no live process declares.
    pub(crate) fn set_undeclared_schedules(&self, schedules: u64) {
        self.undeclared_schedules.set(whole(schedules));
    }

    /// The stream as the server reports it.
    pub(crate) fn set_stream(&self, stream: &StreamSizes) {
        self.stream_length.set(whole(stream.length));
        if let Some(bytes) = stream.bytes {
            self.stream_bytes.set(whole(bytes));
        }
    }
}

/// Counts of jobs and bytes are far below the range in which an f64 cannot hold every integer.
fn whole(count: u64) -> f64 {
    count as f64
}
