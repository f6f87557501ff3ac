//! Keeps the house: the durable floor, signs of life, retention, and dead consumers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Retention;
use crate::runtime::pause::{jittered, stopped_within};
use crate::runtime::queue::QueueContext;
use crate::store::{Cut, StoreError};

/// The housekeeping loop of one queue.
pub(crate) struct Janitor {
    pub(crate) context: Arc<QueueContext>,
}

impl Janitor {
    /// Beats every third of a lease, and cleans at its own interval, until the stop.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let context = &self.context;
        let interval = context.runtime.janitor_interval;
        let beat = (context.config.lease / 3).min(interval);
        let mut cleaned = Instant::now();
        loop {
            self.take("beat", context.store.beat(&context.queue, &context.place.consumer).await);
            self.see_off().await;
            if cleaned.elapsed() >= interval {
                cleaned = Instant::now();
                self.clean().await;
            }
            if stopped_within(&stop, jittered(beat)).await {
                return;
            }
        }
    }

    async fn clean(&self) {
        let context = &self.context;
        let cut = match context.client.retention(&context.queue.stream) {
            Retention::History(entries) => Some(Cut::History(entries.get())),
            Retention::MaxAge(age) => Some(Cut::Age(age)),
            Retention::MaxLen(_) | Retention::MaxLenExact(_) | Retention::Unlimited => None,
        };
        let interval = context.runtime.janitor_interval;
        if let Some(cut) = cut.filter(|_| context.trims.take(Instant::now(), interval)) {
            let trimmed = self.take("trim", context.store.trim(&context.queue.stream, cut).await);
            context.report.entries_trimmed(trimmed.unwrap_or(0));
        }
        let silence = (context.config.lease * SILENT_LEASES).max(SILENCE_MIN);
        let retired = self.take(
            "retire dead consumers",
            context.store.retire_dead(&context.queue, silence).await,
        );
        context.report.consumers_retired(retired.unwrap_or(0));
    }

    /// Removes the names of consumers that stopped in this process, once nothing is pending for them.
    async fn see_off(&self) {
        let context = &self.context;
        for consumer in context.departed.of(&context.queue) {
            let retired = context.store.retire(&context.queue, &consumer).await;
            if self.take("remove a stopped consumer", retired).is_some_and(|retired| retired) {
                context.departed.remove(&context.queue, &consumer);
            }
        }
    }

    /// Housekeeping that fails is done the next time.
    fn take<T>(&self, during: &'static str, answer: Result<T, StoreError>) -> Option<T> {
        match answer {
            Ok(value) => Some(value),
            Err(StoreError::GroupMissing) => None,
            Err(error) => {
                self.context.report.server_error(during, &error);
                None
            }
        }
    }
}

/// A consumer that has not beaten for this many leases is dead.
const SILENT_LEASES: u32 = 10;
const SILENCE_MIN: Duration = Duration::from_secs(30);
