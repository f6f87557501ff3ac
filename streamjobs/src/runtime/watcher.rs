//! Watches a queue as its server sees it: gauges and alerts.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::insight::alert::QueueSample;
use crate::insight::view::GroupInfo;
use crate::model::config::Retention;
use crate::runtime::pause::{jittered, stopped_within};
use crate::runtime::queue::QueueContext;
use crate::runtime::quiet::{SELDOM, Turns};

/// The watching loop of one queue.
pub(crate) struct Watcher {
    pub(crate) context: Arc<QueueContext>,
}

impl Watcher {
    /// Looks at the interval until the stop, more seldom while the group is quiet. Of several
    /// consumers of one queue, one looks.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let interval = self.context.runtime.watch_interval;
        let begun = Instant::now();
        let mut turns = Turns::default();
        loop {
            let now = Instant::now();
            let due = turns.take(self.context.quiet.is_quiet(now), SELDOM);
            if due && self.context.lookout.take_turn(now, interval) {
                self.look(begun).await;
            }
            if stopped_within(&stop, jittered(interval)).await {
                return;
            }
        }
    }

    async fn look(&self, begun: Instant) {
        let context = &self.context;
        let group = GroupInfo::load(context.store.as_ref(), &context.queue).await;
        let group = context.report.unless_failed("look at the group", group);
        let stream = match context.lookout.leads {
            true => {
                let info = context.store.stream_info(&context.queue.stream).await;
                context.report.unless_failed("look at the stream", info).flatten()
            }
            false => None,
        };
        context.report.seen(group.as_ref(), stream.as_ref());
        let now = Instant::now();
        let blocked_by = context.trims.blocked_by();
        let reading = QueueSample {
            happened: context.lookout.happened(),
            group: group.as_ref(),
            reads: self.reads(begun, now),
            length: stream.as_ref().map(|stream| stream.length),
            length_max: self.length_max(),
            blocked_by: blocked_by.as_deref(),
        };
        for alert in context.lookout.look(now, &reading) {
            context.report.alert(&alert);
            context.audience.tell(&alert);
        }
    }

    /// Whether reading is as it should be. On a quiet stream the first answer comes when the block
    /// time is over, and until then nothing is wrong.
    fn reads(&self, begun: Instant, now: Instant) -> bool {
        let health = self.context.health_at(now);
        let begins = now.saturating_duration_since(begun) <= health.last_read_max;
        health.healthy || (health.last_read.is_none() && begins)
    }

    /// How long the stream may be.
    fn length_max(&self) -> Option<u64> {
        let context = &self.context;
        let history = match context.client.retention(&context.queue.stream) {
            Retention::History(entries) => Some(entries.get().saturating_mul(2)),
            _ => None,
        };
        context.runtime.alerts.stream_length.or(history)
    }
}
