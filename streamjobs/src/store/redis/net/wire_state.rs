//! What the parts of a shared connection share.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::runtime::{Handle, Id};
use tokio::time::Instant;

use super::incoming::Caller;

/// What callers, the connection's task and the tasks that check for late answers share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Wakes the connection's task.
    pub(super) task: AtomicWaker,
}

pub(super) struct State {
    /// Bytes of requests of which no write has begun.
    pub(super) outgoing: Vec<u8>,
    /// The callers that wait for the answers to these requests, in their order.
    pub(super) unsent: Vec<Caller>,
    /// The callers whose requests were written or are being written, in the order of their answers.
    pub(super) sent: VecDeque<Caller>,
    /// When something last moved on the connection, and when the last answer arrived.
    pub(super) moved: Instant,
    pub(super) answered: Instant,
    /// The executors on which a task looks for late answers.
    pub(super) watched: Vec<Id>,
    /// Whether the connection is over, so that nothing is sent any more.
    pub(super) is_over: bool,
}

impl Shared {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let state = State {
            outgoing: Vec::new(),
            unsent: Vec::new(),
            sent: VecDeque::new(),
            moved: now,
            answered: now,
            watched: Vec::new(),
            is_over: false,
        };
        Self { state: Mutex::new(state), task: AtomicWaker::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the callers whose answers take too long, or all callers if nothing has moved for too long. Returns false
    /// if no answer is expected; in that case this executor is not watched any more. `is_late` says that the process
    /// did not get to run in time.
    pub(super) fn give_up(&self, executor: Id, is_late: bool) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        let is_silent = now.saturating_duration_since(state.moved) >= SILENCE_MAX && !is_late;
        if is_silent && state.expects_answers() {
            state.is_over = true;
            self.task.wake();
        }
        let (answered, is_over) = (state.answered, state.is_over);
        let State { sent, unsent, .. } = &mut *state;
        for caller in sent.iter_mut().chain(unsent) {
            let allowance = &mut caller.allowance;
            if is_silent || allowance.is_over(now) && !allowance.goes_on(now, is_late, answered) {
                caller.tell(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        let goes_on = state.expects_answers() && !is_over;
        if !goes_on {
            state.watched.retain(|watched| *watched != executor);
        }
        goes_on
    }

    /// Records that the task on this executor is gone.
    pub(super) fn leave(&self, executor: Id) {
        self.lock().watched.retain(|watched| *watched != executor);
    }
}

impl State {
    pub(super) fn expects_answers(&self) -> bool {
        !self.sent.is_empty() || !self.unsent.is_empty()
    }

    /// The caller's executor, if no task checks for late answers there yet.
    pub(super) fn unwatched(&mut self) -> Option<Handle> {
        let executor = Handle::try_current().ok()?;
        let is_watched = self.watched.contains(&executor.id());
        if !is_watched {
            self.watched.push(executor.id());
        }
        (!is_watched).then_some(executor)
    }
}

/// If all callers give up before their answers are late, a dead connection is noticed after this time. It is
/// longer than the time in which the slowest usable link sends everything that a socket buffers.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(60);
