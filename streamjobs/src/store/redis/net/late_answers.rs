//! Finds answers that take too long, on the executor of the callers that wait for them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, sleep_until};

use super::places::LATE;
use super::wire_state::Shared;

/// Checks every now and then while answers are expected over a connection. One timer for all of them costs less
/// than one for each request.
///
/// This is not the connection's own task, which might not get to run: a job that blocks its thread can be in its way,
/// or the executor on which the connection was opened is not driven any more. Callers are then told in time all the
/// same, and open another connection.
pub(super) struct LateAnswers {
    shared: Weak<Shared>,
    executor: Id,
    is_registered: bool,
}

impl LateAnswers {
    /// Starts the checks on an executor, which the connection has noted as watched.
    pub(super) fn look_for(shared: &Arc<Shared>, executor: &Handle) {
        let shared = Arc::downgrade(shared);
        let looking = Self { shared, executor: executor.id(), is_registered: true };
        executor.spawn(looking.run());
    }

    async fn run(mut self) {
        while self.is_registered {
            let due = Instant::now() + LOOK_EVERY;
            sleep_until(due).await;
            let Some(shared) = self.shared.upgrade() else { return };
            self.is_registered = shared.give_up(self.executor, Instant::now() > due + LATE);
        }
    }
}

impl Drop for LateAnswers {
    fn drop(&mut self) {
        if self.is_registered
            && let Some(shared) = self.shared.upgrade()
        {
            shared.leave(self.executor);
        }
    }
}

/// How often answers are checked: a request fails at most this much later than its deadline.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(250);
