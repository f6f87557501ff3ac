//! What the consumers of one queue in this process share for its alerts.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

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
    claimed: AtomicU64,
    dead_lettered: AtomicU64,
    groups_recreated: AtomicU64,
    trimmed_unread: AtomicU64,
    watch: Mutex<AlertState>,
}

impl QueueMonitor {
    pub(crate) fn new(watch: AlertState, watches_stream: bool) -> Self {
        Self {
            watches_stream,
            turn: OncePerInterval::default(),
            claimed: AtomicU64::new(0),
            dead_lettered: AtomicU64::new(0),
            groups_recreated: AtomicU64::new(0),
            trimmed_unread: AtomicU64::new(0),
            watch: Mutex::new(watch),
        }
    }

    pub(super) fn record_job(&self, event: &JobEvent<'_>) {
        if let JobEvent::DeadLettered { .. } = event {
            self.dead_lettered.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn record_queue(&self, event: &QueueEvent<'_>, by: u64) {
        let counter = match event {
            QueueEvent::Claimed(_) => &self.claimed,
            QueueEvent::Trimmed(_) => &self.dead_lettered,
            QueueEvent::GroupRecreated => &self.groups_recreated,
            QueueEvent::TrimmedUnread(_) => &self.trimmed_unread,
            _ => return,
        };
        counter.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn happened(&self) -> EventCounts {
        EventCounts {
            claimed: self.claimed.load(Ordering::Relaxed),
            dead_lettered: self.dead_lettered.load(Ordering::Relaxed),
            groups_recreated: self.groups_recreated.load(Ordering::Relaxed),
            trimmed_unread: self.trimmed_unread.load(Ordering::Relaxed),
        }
    }

    /// The alerts that begin or end with a reading.
    pub(crate) fn changes(&self, now: Instant, reading: &QueueSample<'_>) -> Vec<Alert> {
        lock(&self.watch).update(now, reading)
    }
}
