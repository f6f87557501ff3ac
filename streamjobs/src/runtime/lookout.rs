//! What all consumers of one queue in this process share for watching it, and who is told.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::insight::alert::{Alert, AlertState, EventCounts, QueueSample};

/// What is known of a queue beside its loops. Two consumers of one queue watch it once.
#[derive(Debug)]
pub(crate) struct Lookout {
    /// Whether this queue's looks are also the looks at its stream: one queue for each stream does.
    pub(crate) leads: bool,
    claimed: AtomicU64,
    dead_lettered: AtomicU64,
    groups_recreated: AtomicU64,
    trimmed_unread: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    looked: Option<Instant>,
    watch: AlertState,
}

impl Lookout {
    pub(crate) fn new(watch: AlertState, leads: bool) -> Self {
        Self {
            leads,
            claimed: AtomicU64::new(0),
            dead_lettered: AtomicU64::new(0),
            groups_recreated: AtomicU64::new(0),
            trimmed_unread: AtomicU64::new(0),
            state: Mutex::new(State { looked: None, watch }),
        }
    }

    pub(crate) fn claimed(&self, entries: u64) {
        self.claimed.fetch_add(entries, Ordering::Relaxed);
    }

    pub(crate) fn dead_lettered(&self, jobs: u64) {
        self.dead_lettered.fetch_add(jobs, Ordering::Relaxed);
    }

    pub(crate) fn group_recreated(&self) {
        self.groups_recreated.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn trimmed_unread(&self, entries: u64) {
        self.trimmed_unread.fetch_add(entries, Ordering::Relaxed);
    }

    pub(crate) fn happened(&self) -> EventCounts {
        EventCounts {
            claimed: self.claimed.load(Ordering::Relaxed),
            dead_lettered: self.dead_lettered.load(Ordering::Relaxed),
            groups_recreated: self.groups_recreated.load(Ordering::Relaxed),
            trimmed_unread: self.trimmed_unread.load(Ordering::Relaxed),
        }
    }

    /// Takes the turn to look, unless another consumer of the queue had it within most of the
    /// interval, which is jittered.
    pub(crate) fn take_turn(&self, now: Instant, interval: Duration) -> bool {
        let mut state = self.lock();
        let due =
            state.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= interval / 2);
        if due {
            state.looked = Some(now);
        }
        due
    }

    /// What begins and what ends with a reading.
    pub(crate) fn look(&self, now: Instant, reading: &QueueSample<'_>) -> Vec<Alert> {
        self.lock().watch.update(now, reading)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who is told of alerts.
pub(crate) struct Audience {
    callback: Option<Callback>,
    channel: broadcast::Sender<Alert>,
}

/// What the application is called with.
pub(crate) type Callback = Arc<dyn Fn(&Alert) + Send + Sync>;

impl Audience {
    pub(crate) fn new(callback: Option<Callback>) -> Self {
        Self { callback, channel: broadcast::Sender::new(ALERTS_MAX) }
    }

    /// Tells everybody; a callback that panics has been told.
    pub(crate) fn tell(&self, alert: &Alert) {
        if let Some(callback) = &self.callback {
            let _panicked = catch_unwind(AssertUnwindSafe(|| callback(alert))).is_err();
        }
        // Nobody may be listening.
        let _unheard = self.channel.send(alert.clone()).is_err();
    }

    pub(crate) fn listen(&self) -> Alerts {
        Alerts { channel: self.channel.subscribe() }
    }
}

impl fmt::Debug for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audience")
            .field("callback", &self.callback.is_some())
            .finish_non_exhaustive()
    }
}

/// Alerts as they come, from the moment of [`Runtime::alerts`](crate::Runtime::alerts) on.
#[derive(Debug)]
pub struct Alerts {
    channel: broadcast::Receiver<Alert>,
}

impl Alerts {
    /// The next alert; none when the runtime is gone. Whoever falls more than 256 alerts behind
    /// misses the oldest.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no alert is lost.
    pub async fn next(&mut self) -> Option<Alert> {
        loop {
            match self.channel.recv().await {
                Ok(alert) => return Some(alert),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

const ALERTS_MAX: usize = 256;
