//! Whether the runtime reads, and whether all of its loops run.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What is known of the loops of one queue.
#[derive(Debug)]
pub(crate) struct LoopHealth {
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    read: Option<Instant>,
    /// Every slot is taken, so there is nothing to read for.
    saturated: bool,
    /// A loop ended that never should.
    broken: bool,
}

/// The state of one group on one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueHealth {
    /// The stream.
    pub stream: String,
    /// The group.
    pub group: String,
    /// How long ago the reading connection last had an answer; none before the first.
    pub last_read: Option<Duration>,
    /// How old the last answer may be: the block time and the margin for the answer.
    pub last_read_max: Duration,
    /// How long ago the server last answered a renewal or a look at its clock.
    pub last_answer: Duration,
    /// Whether every slot is taken, so that nothing is read at present.
    pub saturated: bool,
    /// Jobs in flight here.
    pub in_flight: usize,
    /// Whether all is well: the reading connection has read within its time, or every slot is taken
    /// and the server still answers; and no loop has ended by a fault of this crate, which is in the
    /// log as an error.
    pub healthy: bool,
}

/// The state of a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Every group on every stream.
    pub queues: Vec<QueueHealth>,
}

impl Health {
    /// Whether every queue is healthy.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.queues.iter().all(|queue| queue.healthy)
    }
}

impl LoopHealth {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { read: None, saturated: false, broken: false }) }
    }

    pub(crate) fn note_read(&self, now: Instant) {
        let mut state = self.lock();
        *state = State { read: Some(now), saturated: false, ..*state };
    }

    pub(crate) fn note_saturated(&self) {
        self.lock().saturated = true;
    }

    pub(crate) fn note_broken(&self) {
        self.lock().broken = true;
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.lock().broken
    }

    /// How long ago the last read was, and whether reading waits for slots.
    pub(crate) fn look(&self, now: Instant) -> (Option<Duration>, bool) {
        let state = *self.lock();
        (state.read.map(|read| now.saturating_duration_since(read)), state.saturated)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
