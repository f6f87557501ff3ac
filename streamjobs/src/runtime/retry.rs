//! Brings failed jobs back when their back-off is over.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::runtime::pause::{Pause, jittered, stopped_within};
use crate::runtime::queue::QueueContext;
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
        let interval = self.context.runtime.promote_interval;
        let mut delay = Duration::ZERO;
        let mut pause = Pause::new();
        while !stopped_within(&stop, delay).await {
            // A pause here leaves due jobs to other processes; the look at the server goes on.
            let limit = if self.context.gate.is_shut_here() { 0 } else { BATCH_MAX };
            let sent = Instant::now();
            delay = match self.context.store.promote(&self.context.queue, limit).await {
                Ok(promoted) => {
                    self.context.clock.observe(sent, Instant::now(), promoted.now);
                    pause.reset();
                    self.promoted(promoted, interval).await
                }
                // The reader makes a lost group again.
                Err(StoreError::GroupMissing) => jittered(interval),
                Err(error) => {
                    self.context.report.server_error("promote due jobs", &error);
                    pause.wait(&stop).await;
                    jittered(interval)
                }
            };
        }
    }

    /// Tells the reader and the reaper what waits for them, or that they have to wait, and says
    /// when to look again.
    async fn promoted(&mut self, promoted: Promoted, interval: Duration) -> Duration {
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
            context.sweep_now.notify_one();
        }
        if context.gate.is_shut() {
            return jittered(interval);
        }
        if promoted.promoted >= BATCH_MAX {
            return Duration::ZERO;
        }
        promoted.next_due.map_or(jittered(interval), |due| due.max(DUE_MIN).min(jittered(interval)))
    }
}

const BATCH_MAX: usize = 500;
/// Jobs due within this time are promoted together.
const DUE_MIN: Duration = Duration::from_millis(5);
