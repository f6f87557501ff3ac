//! Trims streams and dead letters to their retention, and removes dead consumers.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::model::config::Retention;
use crate::runtime::observe::{QueueContext, QueueEvent};
use crate::runtime::state::{
    Activity, IDLE_BACKOFF, IdleTurns, OncePerInterval, TrimBlocker, stopped_within,
};
use crate::store::admin::{Cut, Trim, Unfinished};

/// The trimming loop of one queue.
#[derive(Debug)]
pub(crate) struct Trimmer {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) interval: Duration,
    pub(crate) retention: Retention,
    pub(crate) dead_letters_max: Option<NonZeroU64>,
    pub(crate) activity: Arc<Activity>,
    /// The turn to trim the stream, which all trimmers of this process share.
    pub(crate) turn: Arc<OncePerInterval>,
    pub(crate) blocker: Arc<TrimBlocker>,
}

impl Trimmer {
    /// Trims at the interval until the stop, less often while the group is idle.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut turns = IdleTurns::default();
        let pause = || self.activity.pause(Instant::now(), self.interval);
        while !stopped_within(&stop, pause()).await {
            if turns.take(self.activity.is_idle(Instant::now()), IDLE_BACKOFF) {
                self.trim_stream().await;
                self.trim_dead_letters().await;
                self.remove_dead().await;
            }
        }
    }

    /// Trims the stream, unless another trimmer of this process just did.
    async fn trim_stream(&self) {
        let (context, stream) = (&self.context, &self.context.queue().stream);
        let Some(trim) = trim_of(self.retention) else { return };
        if !self.turn.take(Instant::now(), self.interval) {
            return;
        }
        let trimmed = context.store.trim(stream, trim).await;
        if let Some(trimmed) = context.report.ok_or_report("trim the stream", trimmed) {
            context.report.queue(QueueEvent::EntriesTrimmed(trimmed.removed));
            self.blocker.set(trimmed.blocked_by.map(|(group, _)| group));
        }
    }

    async fn trim_dead_letters(&self) {
        let context = &self.context;
        let Some(max) = self.dead_letters_max else { return };
        let trimmed = context.store.trim_dead_letters(context.queue(), max.get()).await;
        if let Some(dead_letters) = context.report.ok_or_report("trim the dead letters", trimmed) {
            context.report.queue(QueueEvent::DeadLettersTrimmed(dead_letters));
        }
    }

    /// Removes consumers that have sent no heartbeat for a long time and have nothing pending.
    async fn remove_dead(&self) {
        let context = &self.context;
        let silence = (context.config.lease * DEAD_LEASES).max(DEAD_MIN);
        let removed = context.store.retire_dead(context.queue(), silence).await;
        if let Some(consumers) = context.report.ok_or_report("remove dead consumers", removed) {
            context.report.queue(QueueEvent::ConsumersRemoved(consumers));
        }
    }
}

/// How a process trims for a retention; `None` if publishing trims, or if nothing does.
fn trim_of(retention: Retention) -> Option<Trim> {
    let (cut, unfinished) = match retention {
        Retention::History(entries) => (Cut::Length(entries.get()), Unfinished::Keep),
        Retention::MaxAge(age) => (Cut::Age(age), Unfinished::Lose),
        Retention::MaxLen(_) | Retention::MaxLenExact(_) | Retention::Unlimited => return None,
    };
    Some(Trim { cut, exact: false, unfinished })
}

/// A consumer without a heartbeat for this many leases is dead.
const DEAD_LEASES: u32 = 10;
const DEAD_MIN: Duration = Duration::from_secs(30);
