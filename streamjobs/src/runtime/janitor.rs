//! Keeps the house: the durable floor, signs of life, retention, and dead consumers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::model::config::Retention;
use crate::model::heartbeat::Heartbeat;
use crate::runtime::pause::{jittered, stopped_within};
use crate::runtime::queue::QueueContext;
use crate::runtime::quiet::{SELDOM, Turns};
use crate::store::admin::{Cut, Trim, Unfinished};

/// The housekeeping loop of one queue.
pub(crate) struct Janitor {
    context: Arc<QueueContext>,
    beat: Duration,
    about: Heartbeat,
}

impl Janitor {
    pub(crate) fn new(context: Arc<QueueContext>) -> Self {
        let beat = context.heartbeat_interval();
        let about = Heartbeat::this_process(context.server_now(), beat);
        Self { context, beat, about }
    }

    /// Beats every third of a lease, and cleans at its own interval, until the stop; both more
    /// seldom while the group is quiet.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let interval = self.context.runtime.janitor_interval;
        let mut cleaned = Instant::now();
        let (mut beats, mut cleanings) = (Turns::default(), Turns::default());
        loop {
            let quiet = self.context.quiet.is_quiet(Instant::now());
            if beats.take(quiet, QUIET_BEATS) {
                self.heartbeat(if quiet { self.beat * QUIET_BEATS } else { self.beat }).await;
            }
            self.see_off().await;
            if cleaned.elapsed() >= interval {
                cleaned = Instant::now();
                if cleanings.take(quiet, SELDOM) {
                    self.clean().await;
                }
            }
            if stopped_within(&stop, jittered(self.beat)).await {
                return;
            }
        }
    }

    /// Beats, and says when the next beat is to be expected.
    async fn heartbeat(&mut self, next: Duration) {
        let context = &self.context;
        self.about.in_flight = u64::try_from(context.held.len()).unwrap_or(u64::MAX);
        self.about.slots = u64::try_from(context.slots.size()).unwrap_or(u64::MAX);
        let counted = context.report.counted();
        self.about.done = Some(counted.succeeded);
        self.about.failed = Some(counted.failed);
        self.about.claimed = Some(counted.claimed);
        let about = self.about.clone().with_interval(next).write();
        let consumer = &context.place.consumer;
        let beat = context.store.heartbeat(&context.queue, consumer, &about).await;
        let beat = context.report.unless_failed("heartbeat", beat);
        context.report.trimmed_unread(beat.map_or(0, |beat| beat.trimmed_unread));
    }

    async fn clean(&self) {
        let context = &self.context;
        let interval = context.runtime.janitor_interval;
        if let Some(trim) = self.trim().filter(|_| context.trims.take(Instant::now(), interval)) {
            let trimmed = context.store.trim(&context.queue.stream, trim).await;
            if let Some(trimmed) = context.report.unless_failed("trim", trimmed) {
                context.report.entries_trimmed(trimmed.removed);
                context.trims.set_held_by(trimmed.blocked_by.map(|(group, _)| group));
            }
        }
        if let Some(letters) = context.runtime.dead_letters_max {
            let trimmed = context.store.trim_dead_letters(&context.queue, letters.get()).await;
            let trimmed = context.report.unless_failed("trim the dead letters", trimmed);
            context.report.letters_trimmed(trimmed.unwrap_or(0));
        }
        let silence = (context.config.lease * SILENT_LEASES).max(SILENCE_MIN);
        let retired = context.store.retire_dead(&context.queue, silence).await;
        let retired = context.report.unless_failed("retire dead consumers", retired);
        context.report.consumers_retired(retired.unwrap_or(0));
    }

    /// What the stream's retention leaves to running processes.
    fn trim(&self) -> Option<Trim> {
        let (cut, unfinished) = match self.context.client.retention(&self.context.queue.stream) {
            Retention::History(entries) => (Cut::Length(entries.get()), Unfinished::Keep),
            Retention::MaxAge(age) => (Cut::Age(age), Unfinished::Lose),
            Retention::MaxLen(_) | Retention::MaxLenExact(_) | Retention::Unlimited => return None,
        };
        Some(Trim { cut, exact: false, unfinished })
    }

    /// Removes the names of consumers that stopped in this process, once nothing is pending for
    /// them.
    async fn see_off(&self) {
        let context = &self.context;
        for consumer in context.departed.of(&context.queue) {
            let retired = context.store.retire(&context.queue, &consumer).await;
            let retired = context.report.unless_failed("remove a stopped consumer", retired);
            if retired == Some(true) {
                context.departed.remove(&context.queue, &consumer);
            }
        }
    }
}

/// A consumer that has not beaten for this many leases is dead.
const SILENT_LEASES: u32 = 10;
const SILENCE_MIN: Duration = Duration::from_secs(30);
/// While the group is quiet, one beat in so many: no more than may be missing from whoever is taken to
/// live by its last beat.
const QUIET_BEATS: u32 = 2;
