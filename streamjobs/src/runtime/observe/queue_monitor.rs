//! What the consumers of one queue in this process share for its alerts.

use std::sync::Mutex;

use tokio::time::Instant;

use crate::insight::alert::{Alert, AlertState, EventCounts, QueueSample};
use crate::runtime::observe::{JobEvent, QueueEvent};
use crate::runtime::state::{OncePerInterval, lock};

/// The events of a queue that alerts count, and the alerts that are raised. There is one for each
/// queue, however many consumers it has.
#[derive(Debug)]
pub(crate) struct QueueMonitor {
    /// Whether the watcher of this queue reads its stream as well: one queue of each stream does.
    pub(crate) watches_stream: bool,
    /// The turn to watch the queue, among its consumers.
    pub(crate) turn: OncePerInterval,
    happened: Mutex<EventCounts>,
    watch: Mutex<AlertState>,
}

impl QueueMonitor {
    pub(crate) fn new(watch: AlertState, watches_stream: bool) -> Self {
        Self {
            watches_stream,
            turn: OncePerInterval::default(),
            happened: Mutex::default(),
            watch: Mutex::new(watch),
        }
    }

    pub(super) fn record_job(&self, event: &JobEvent<'_>) {
        if let JobEvent::DeadLettered { .. } = event {
            lock(&self.happened).dead_lettered += 1;
        }
    }

    pub(super) fn record_queue(&self, event: &QueueEvent<'_>, by: u64) {
        match event {
            QueueEvent::Claimed(_) => lock(&self.happened).claimed += by,
            QueueEvent::Trimmed(_) => lock(&self.happened).dead_lettered += by,
            QueueEvent::GroupRecreated => lock(&self.happened).groups_recreated += by,
            QueueEvent::TrimmedUnread(_) => lock(&self.happened).trimmed_unread += by,
            _ => {}
        }
    }

    pub(crate) fn happened(&self) -> EventCounts {
        *lock(&self.happened)
    }

    /// The alerts that begin or end with a reading.
    pub(crate) fn changes(&self, now: Instant, reading: &QueueSample<'_>) -> Vec<Alert> {
        lock(&self.watch).update(now, reading)
    }
}
