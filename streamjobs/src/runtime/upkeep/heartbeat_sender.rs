//! Sends heartbeats: a consumer's description of itself, and how far the group is done.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::recent_counts::RecentCounts;
use crate::model::heartbeat::Heartbeat;
use crate::runtime::observe::{QueueContext, QueueEvent, wide};
use crate::runtime::state::{
    Activity, Clock, IdleTurns, InFlight, RefusedJobs, Slots, StoppedConsumers, stopped_within,
};

/// The heartbeat loop of one queue.
#[derive(Debug)]
pub(crate) struct HeartbeatSender {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) interval: Duration,
    pub(crate) clock: Arc<Clock>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) refused: RefusedJobs,
    pub(crate) stopped: Arc<StoppedConsumers>,
}

impl HeartbeatSender {
    /// Sends a heartbeat at the interval until the stop, and at every second interval while the
    /// group is idle.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let started = self.clock.server_now(Instant::now());
        let mut heartbeat =
            Heartbeat::this_process(started, self.interval, self.context.config.lease)
                .with_types(self.context.types.iter().copied())
                .with_limit(self.context.config.limit)
                .with_rate(self.context.config.rate);
        let mut turns = IdleTurns::default();
        let mut recent = RecentCounts::new(Instant::now());
        loop {
            let idle = self.activity.is_idle(Instant::now());
            if turns.take(idle, IDLE_HEARTBEATS) {
                let next = if idle { self.interval * IDLE_HEARTBEATS } else { self.interval };
                self.send(&mut heartbeat, &mut recent, next).await;
            }
            self.remove_stopped().await;
            if stopped_within(&stop, self.activity.pause(Instant::now(), self.interval)).await {
                return;
            }
        }
    }

    /// Sends a heartbeat, which says when the next heartbeat is expected.
    async fn send(&self, heartbeat: &mut Heartbeat, recent: &mut RecentCounts, next: Duration) {
        let (context, counters) = (&self.context, self.context.report.counters());
        let (done, failed) = recent.sample(Instant::now(), counters.succeeded, counters.failed);
        let refused = self.refused.count();
        heartbeat.in_flight = wide(self.in_flight.len().saturating_sub(refused));
        heartbeat.refused = wide(refused);
        heartbeat.slots = wide(self.slots.size());
        heartbeat.shared = self.slots.shared_here();
        heartbeat.done = Some(counters.succeeded);
        heartbeat.failed = Some(counters.failed);
        (heartbeat.recent_done, heartbeat.recent_failed) = (Some(done), Some(failed));
        heartbeat.claimed_early_by = context.report.claimer();
        heartbeat.claimed = Some(counters.claimed);
        let text = heartbeat.clone().with_interval(next).write();
        let recorded = context.store.heartbeat(context.queue(), context.consumer(), &text).await;
        if let Some(recorded) = context.report.ok_or_report("heartbeat", recorded) {
            self.in_flight.begin_with_moves(recorded.moves);
            context.report.queue(QueueEvent::TrimmedUnread(recorded.trimmed_unread));
        }
    }

    /// Removes the names of consumers that stopped in this process, once nothing is pending for
    /// them.
    async fn remove_stopped(&self) {
        let (context, queue) = (&self.context, self.context.queue());
        for consumer in self.stopped.of(queue) {
            let removed = context.store.retire(queue, &consumer).await;
            let removed = context.report.ok_or_report("remove a stopped consumer", removed);
            if removed == Some(true) {
                self.stopped.remove(queue, &consumer);
            }
        }
    }
}

/// How often a consumer sends a heartbeat.
pub(crate) fn heartbeat_interval(lease: Duration, janitor_interval: Duration) -> Duration {
    (lease / 3).min(janitor_interval)
}

/// While the group is idle, a consumer sends a heartbeat only every this many intervals. If a consumer left out more,
/// other
/// processes would consider it dead.
const IDLE_HEARTBEATS: u32 = 2;
