//! Brings failed jobs back when their back-off is over.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::runtime::consumer::queue::QueueContext;
use crate::runtime::state::activity::IDLE_BACKOFF;
use crate::runtime::state::next_due::COALESCE;
use crate::runtime::state::wait::{LoopBackoff, jittered};
use crate::store::{Promoted, StoreError};

/// The promoting loop of one queue.
pub(crate) struct Promoter {
    context: Arc<QueueContext>,
    /// The last known count of hand-backs.
    released: Option<u64>,
}

impl Promoter {
    pub(crate) fn new(context: Arc<QueueContext>) -> Self {
        Self { context, released: None }
    }

    /// Promotes due jobs at the interval, or when the next one is due, until the stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut next = Instant::now();
        let mut pause = LoopBackoff::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.context.due.reached(next) => {}
            }
            self.context.due.forget();
            // A pause here leaves due jobs to other processes; the look at the server goes on.
            let limit = if self.context.gate.is_shut_here() { 0 } else { BATCH_MAX };
            let sent = Instant::now();
            let delay = match self.context.store.promote(&self.context.queue, limit).await {
                Ok(promoted) => {
                    self.context.clock.observe(sent, Instant::now(), promoted.now);
                    self.context.quiet.looked(sent, &promoted);
                    pause.reset();
                    self.promoted(promoted).await
                }
                // The reader makes a lost group again.
                Err(StoreError::GroupMissing) => self.interval(),
                Err(error) => {
                    self.context.report.server_error("promote due jobs", &error);
                    self.context.quiet.mark_active(Instant::now());
                    pause.wait(&stop).await;
                    self.interval()
                }
            };
            next = Instant::now() + delay;
        }
    }

    /// How long until the next look if nothing is due before: more seldom while the group is quiet,
    /// but never so that the server's clock is looked at too seldom.
    fn interval(&self) -> Duration {
        let context = &self.context;
        let interval = context.runtime.promote_interval;
        if !context.quiet.is_quiet(Instant::now()) {
            return jittered(interval);
        }
        jittered((interval * IDLE_BACKOFF).min(context.config.lease / 3).max(interval))
    }

    /// Tells the reader and the reaper what waits for them, or that they have to wait, and says
    /// when to look again.
    async fn promoted(&mut self, promoted: Promoted) -> Duration {
        let context = &self.context;
        context.report.left(promoted.left);
        if context.pause_everywhere(promoted.paused) {
            context.wake.wake(context.store.as_ref(), context.config.block).await;
        }
        if promoted.waiting > 0 {
            context.lane_waits.store(true, Ordering::Release);
            context.wake.wake(context.store.as_ref(), context.config.block).await;
        }
        // At the start, whatever was ever handed back may still wait.
        if self.released.replace(promoted.released).unwrap_or(0) != promoted.released {
            context.reap_now.notify_one();
        }
        if context.gate.is_shut() {
            return self.interval();
        }
        if promoted.promoted >= BATCH_MAX {
            return Duration::ZERO;
        }
        let interval = self.interval();
        promoted.next_due.map_or(interval, |due| due.max(COALESCE).min(interval))
    }
}

const BATCH_MAX: usize = 500;
