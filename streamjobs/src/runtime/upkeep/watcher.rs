//! Watches a queue as its server reports it: gauges and alerts.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::insight::sample::PartSample;
use crate::insight::view::GroupInfo;
use crate::runtime::observe::{
    AlertSubscribers, HealthProbe, QueueContext, QueueEvent, QueueMonitor,
};
use crate::runtime::state::{Activity, IDLE_BACKOFF, IdleTurns, TrimBlocker, stopped_within};

/// The watching loop of one queue.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) interval: Duration,
    /// The length from which the stream is too long, all partitions together.
    pub(crate) length_max: Option<u64>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) monitor: Arc<QueueMonitor>,
    pub(crate) subscribers: Arc<AlertSubscribers>,
    pub(crate) health: Arc<HealthProbe>,
    pub(crate) blocker: Arc<TrimBlocker>,
}

impl Watcher {
    /// Reads the group's figures at the interval until the stop, less often while the group is idle.
    /// If a queue has several consumers in this process, one of them does.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let begun = Instant::now();
        let mut turns = IdleTurns::default();
        loop {
            let now = Instant::now();
            let due = turns.take(self.activity.is_idle(now), IDLE_BACKOFF);
            if due && self.monitor.turn.take(now, self.interval) {
                self.watch(begun).await;
            }
            if stopped_within(&stop, self.activity.pause(Instant::now(), self.interval)).await {
                return;
            }
        }
    }

    async fn watch(&self, begun: Instant) {
        let (report, store) = (&self.context.report, self.context.store.as_ref());
        let queue = self.context.queue();
        let group = GroupInfo::load(store, queue).await;
        let group = report.ok_or_report("read the group's figures", group);
        let stream = match self.monitor.watches_stream {
            true => {
                let info = store.stream_sizes(&queue.stream).await;
                report.ok_or_report("read the stream's figures", info).flatten()
            }
            false => None,
        };
        report.seen_here(group.as_ref(), stream.as_ref());
        let now = Instant::now();
        let sample = PartSample {
            happened: self.monitor.happened(),
            blocked_cause: self.monitor.blocked_cause(),
            group,
            reads: self.reads(begun, now),
            sizes: stream,
            blocked_by: self.blocker.group(),
        };
        let watched = self.monitor.watched(now, &queue.stream, sample, self.length_max);
        report.seen(watched.group.as_ref(), watched.sizes.as_ref());
        for alert in watched.alerts {
            report.queue(QueueEvent::Alerted(&alert));
            self.subscribers.send(&alert);
        }
    }

    /// Whether the queue reads. On an idle stream the first answer arrives only after the block
    /// time; until then the queue counts as reading.
    fn reads(&self, begun: Instant, now: Instant) -> bool {
        let health = self.health.health_at(now);
        let begins = now.saturating_duration_since(begun) <= health.last_read_max;
        health.healthy || (health.last_read.is_none() && begins)
    }
}
