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
    /// Reading began, or began again, so the first answer has its time from here.
    expected: Option<Instant>,
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
    /// The consumer of this process that reads.
    pub consumer: String,
    /// How long ago the reading connection last had an answer; none before the first.
    pub last_read: Option<Duration>,
    /// How old the last answer may be: the block time and the margin for the answer.
    pub last_read_max: Duration,
    /// How long ago the server last answered a renewal or a look at its clock.
    pub last_answer: Duration,
    /// Whether every slot is taken, so that nothing is read at present.
    pub saturated: bool,
    /// Whether the group is paused, here or in every process, so that nothing is read at present.
    pub paused: bool,
    /// Jobs in flight here.
    pub in_flight: usize,
    /// Whether all is well: the reading connection has read within its time, or every slot is taken
    /// or the group is paused and the server still answers; and no loop has ended by a fault of
    /// this crate, which is in the log as an error.
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
        let state = State { read: None, expected: None, saturated: false, broken: false };
        Self { state: Mutex::new(state) }
    }

    pub(crate) fn note_read(&self, now: Instant) {
        let mut state = self.lock();
        *state = State { read: Some(now), expected: None, saturated: false, ..*state };
    }

    /// Nothing was read for a good reason, which is over.
    pub(crate) fn expect_read(&self, now: Instant) {
        self.lock().expected = Some(now);
    }

    /// Whether reading began so lately that its first answer may be on its way.
    pub(crate) fn is_beginning(&self, now: Instant, patience: Duration) -> bool {
        let expected = self.lock().expected;
        expected.is_some_and(|expected| now.saturating_duration_since(expected) <= patience)
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
