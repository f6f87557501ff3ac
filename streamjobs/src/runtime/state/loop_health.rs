//! What is known about the loops of one queue: whether they read, and whether all of them run.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::runtime::state::lock;

/// The state of the loops of one queue.
#[derive(Debug, Default)]
pub(crate) struct LoopHealth {
    state: Mutex<LoopState>,
}

#[derive(Clone, Copy, Debug, Default)]
struct LoopState {
    last_read: Option<Instant>,
    /// When reading began, or began again: the first answer is expected from then on.
    expected: Option<Instant>,
    /// Whether every slot is taken, so that the reader waits for one.
    saturated: bool,
    /// Whether the reader waits until a job may start.
    limited: bool,
    /// Whether a loop ended that must not end.
    broken: bool,
}

impl LoopHealth {
    pub(crate) fn note_read(&self, now: Instant) {
        let mut state = lock(&self.state);
        let (saturated, limited) = (false, false);
        *state = LoopState { last_read: Some(now), expected: None, saturated, limited, ..*state };
    }

    /// Records that reading begins, or begins again after a pause.
    pub(crate) fn expect_read(&self, now: Instant) {
        lock(&self.state).expected = Some(now);
    }

    /// Whether reading began so recently that its first answer may be on its way.
    pub(crate) fn is_beginning(&self, now: Instant, timeout: Duration) -> bool {
        let expected = lock(&self.state).expected;
        expected.is_some_and(|expected| now.saturating_duration_since(expected) <= timeout)
    }

    pub(crate) fn note_saturated(&self) {
        lock(&self.state).saturated = true;
    }

    /// Records that the reader waits until a job may start. Returns whether that is new.
    pub(crate) fn note_limited(&self) -> bool {
        !std::mem::replace(&mut lock(&self.state).limited, true)
    }

    pub(crate) fn note_broken(&self) {
        lock(&self.state).broken = true;
    }

    pub(crate) fn is_broken(&self) -> bool {
        lock(&self.state).broken
    }

    /// How long ago the last read was, and whether the reader waits for a slot or for a start.
    pub(crate) fn last_read(&self, now: Instant) -> (Option<Duration>, bool) {
        let state = *lock(&self.state);
        let waits = state.saturated || state.limited;
        (state.last_read.map(|read| now.saturating_duration_since(read)), waits)
    }
}
