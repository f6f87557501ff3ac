//! Promotes failed jobs to the lane when their back-off is over.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::runtime::observe::{LimitPlaces, QueueContext, QueueEvent};
use crate::runtime::state::{
    Activity, COALESCE, Clock, IDLE_BACKOFF, KnownBefore, LaneSignal, LoopBackoff, NextDue,
    ReaderUnblock, ReapSignal, StreamUse, stopped_before,
};
use crate::runtime::upkeep::{CancelWatch, PauseSwitch};
use crate::store::{Promoted, StoreError};

/// The promoting loop of one queue.
#[derive(Debug)]
pub(crate) struct Promoter {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) interval: Duration,
    pub(crate) activity: Arc<Activity>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) next_due: Arc<NextDue>,
    pub(crate) follows: Follows,
    pub(crate) lane: Arc<LaneSignal>,
    pub(crate) reap: Arc<ReapSignal>,
    pub(crate) unblock: Arc<ReaderUnblock>,
    pub(crate) usage: Arc<StreamUse>,
    /// How many times entries of the queue had been released, by the last answer.
    pub(crate) released: Option<u64>,
}

/// Acts on what a promotion reports about the group.
#[derive(Debug)]
pub(crate) struct Follows {
    pub(crate) pause: Arc<PauseSwitch>,
    pub(crate) cancels: Arc<CancelWatch>,
    pub(crate) places: Arc<LimitPlaces>,
}

impl Promoter {
    /// Promotes due jobs at the interval, or when the next one is due, until the stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut next = Instant::now();
        let mut backoff = LoopBackoff::new();
        // Whether the last answer said that jobs had lost their place.
        let mut misplaced = false;
        while !stopped_before(&stop, self.next_due.reached(next)).await {
            self.next_due.forget();
            let sent = Instant::now();
            // During a pause in this process, due jobs are left to other processes, but the group is still
            // observed. The same is done while the group is idle, because the store does that for many
            // queues in one request. Jobs that lost their place get it back all the same.
            let is_idle = self.activity.is_idle(sent) && !misplaced;
            let only_observes = self.follows.pause.gate.is_shut_here() || is_idle;
            let limit = if only_observes { 0 } else { BATCH_MAX };
            match self.follows.pause.starts.tell_limit().await {
                // Otherwise a read that already waits would take what comes next.
                Ok(true) => self.unblock_reader().await,
                Ok(false) => {}
                Err(error) => self.context.report.store_failed("let the group wait", &error),
            }
            let (queue, consumer) = (self.context.queue(), self.context.consumer());
            let before = self.follows.pause.starts.before_promotion();
            let delay = match self.context.store.promote(queue, consumer, limit).await {
                Ok(promoted) => {
                    self.context.report.answered();
                    self.clock.observe(sent, Instant::now(), promoted.now);
                    self.activity.observe(sent, &promoted);
                    backoff.reset();
                    misplaced = promoted.misplaced > 0;
                    let delay = self.promoted(promoted, sent, before).await;
                    if misplaced && is_idle && !self.follows.pause.gate.is_shut() {
                        delay.min(COALESCE)
                    } else {
                        delay
                    }
                }
                // The reader recreates a lost group.
                Err(StoreError::GroupMissing) => self.interval(),
                Err(error) => {
                    self.context.report.store_failed("promote due jobs", &error);
                    self.activity.mark_active(Instant::now());
                    backoff.wait(&stop).await;
                    self.interval()
                }
            };
            next = Instant::now() + delay;
        }
    }

    /// How long until the next promotion, if nothing is due before. For an idle group it is longer, but at
    /// most a third of the lease, because the answer also carries the server's clock.
    fn interval(&self) -> Duration {
        let now = Instant::now();
        let longest = (self.interval * IDLE_BACKOFF).min(self.context.config.lease / 3);
        let interval = match self.activity.is_idle(now) {
            true => longest.max(self.interval),
            false => self.interval,
        };
        self.activity.pause(now, interval)
    }

    /// Signals to the reader and the reaper what the answer means for them. Returns how long until the next
    /// promotion.
    async fn promoted(
        &mut self,
        promoted: Promoted,
        sent: Instant,
        before: KnownBefore,
    ) -> Duration {
        let now = Instant::now();
        self.usage.scheduled.heard(now, promoted.scheduled);
        self.usage.schedules.heard(now, promoted.has_schedules);
        self.context.report.queue(QueueEvent::PayloadsUnstored(promoted.left));
        self.context.report.queue(QueueEvent::RetriesRestored(promoted.restored));
        self.context.report.retries_stranded(promoted.stranded);
        if self.follows.pause.heard(&promoted, before) {
            self.unblock_reader().await;
        }
        if let Err(error) = self.follows.cancels.heard(promoted.cancels, sent).await {
            self.context.report.store_failed("read which jobs are cancelled", &error);
        }
        if let Err(error) = self.follows.places.sweep(promoted.parked, promoted.limit).await {
            self.context.report.store_failed("look for places in the limit to free", &error);
        }
        if promoted.waiting > 0 || self.follows.places.lines_wait(promoted.parked) {
            self.lane.raise();
            self.unblock_reader().await;
        }
        // At the start, entries that were released before may all still be unclaimed.
        if self.released.replace(promoted.released).unwrap_or(0) != promoted.released {
            self.reap.request();
        }
        if self.follows.pause.gate.is_shut() {
            return self.interval();
        }
        if promoted.promoted >= BATCH_MAX {
            return Duration::ZERO;
        }
        let interval = self.interval();
        promoted.next_due.map_or(interval, |due| due.max(COALESCE).min(interval))
    }

    async fn unblock_reader(&self) {
        self.unblock.unblock(self.context.store.as_ref(), self.context.config.block).await;
    }
}

const BATCH_MAX: usize = 500;
