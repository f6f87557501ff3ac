//! The stages of a consumer's stop: drain, grace, cancel, settle.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};
use tracing::info;

use crate::model::fail_point::FailPoint;
use crate::runtime::consumer::{Abandoned, QueueHandle, RunningConsumer, ShutdownReport};
use crate::runtime::observe::Counters;

impl RunningConsumer {
    /// Stops this consumer alone, and removes it from the group. Every caller waits for the same
    /// stop and gets its report.
    pub(crate) async fn stop(&self, grace: Duration) -> ShutdownReport {
        self.leaving.store(true, Ordering::SeqCst);
        self.stopped.get_or_init(|| self.stop_in_stages(grace)).await.clone()
    }

    async fn stop_in_stages(&self, grace: Duration) -> ShutdownReport {
        let started = Instant::now();
        let before = self.tally.counters();
        info!(consumer = %self.name, in_flight = self.in_flight(), "shutdown: intake stops");
        self.tokens.stop.cancel();
        self.end_intake().await;
        FailPoint::ShutdownMidDrain.reached();
        self.tasks.jobs.close();
        if timeout(grace, self.tasks.jobs.wait()).await.is_err() {
            self.cancel_running().await;
        }
        self.tell_limits().await;
        self.end_settling().await;
        self.tokens.settled.cancel();
        self.tasks.keeping.close();
        let _late = timeout(STEP_MAX, self.tasks.keeping.wait()).await.is_err();
        let abandoned = self.queues.iter().flat_map(|queue| abandoned(queue)).collect();
        self.remove().await;
        let after = self.tally.counters();
        let ended = |counters: Counters| counters.succeeded + counters.failed + counters.snoozed;
        let report = ShutdownReport {
            finished: ended(after) - ended(before),
            released: after.released - before.released,
            abandoned,
            took: started.elapsed(),
        };
        info!(
            consumer = %self.name, finished = report.finished, released = report.released,
            abandoned = report.abandoned.len(), took = ?report.took, "shutdown: done"
        );
        report
    }

    /// Unblocks the readers and waits for the loops of intake and upkeep. A read is never dropped,
    /// because its answer may carry entries.
    async fn end_intake(&self) {
        self.tasks.intake.close();
        let unblock = self.queues.iter().map(|queue| {
            let queue = Arc::clone(queue);
            let unblock = async move { queue.unblock_reader().await };
            self.tasks.keeping.spawn_on(unblock, &self.handles.io)
        });
        let unblocked = join_all(unblock);
        let read = |queue: &Arc<QueueHandle>| queue.context.config.block + queue.health.read_margin;
        let longest = self.queues.iter().map(read).max();
        let limit = longest.unwrap_or_default() + STEP_MAX;
        let ended = async { tokio::join!(unblocked, self.tasks.intake.wait()) };
        let _late = timeout(limit, ended).await.is_err();
    }

    /// Cancels running jobs, and waits until they have ended.
    async fn cancel_running(&self) {
        let running = self.in_flight();
        info!(consumer = %self.name, running, "shutdown: grace is over, cancelling running jobs");
        self.cancel_handlers();
        let window = self.queues.iter().map(|queue| queue.context.config.window()).max();
        let limit = window.unwrap_or_default() + STEP_MAX;
        let _blocked = timeout(limit, self.tasks.jobs.wait()).await.is_err();
    }

    /// Tells the server if a job that ended after the promoters has asked the whole group to wait.
    async fn tell_limits(&self) {
        let tell = self.queues.iter().map(|queue| {
            let queue = Arc::clone(queue);
            let tell = async move { queue.tell_limit().await };
            self.tasks.keeping.spawn_on(tell, &self.handles.io)
        });
        let _late = timeout(STEP_MAX, join_all(tell)).await.is_err();
    }

    /// Waits until every verdict is carried out, up to a limit.
    async fn end_settling(&self) {
        self.tasks.settling.close();
        if timeout(SETTLE_MAX, self.tasks.settling.wait()).await.is_err() {
            self.tokens.abort.cancel();
            let _late = timeout(STEP_MAX, self.tasks.settling.wait()).await.is_err();
        }
    }

    /// Removes this consumer from the group where nothing is pending for it. Released entries stay
    /// under its name until they are claimed; after that, a heartbeat loop of this process removes
    /// it.
    async fn remove(&self) {
        let remove = self.queues.iter().map(|queue| {
            let queue = Arc::clone(queue);
            queue.stopped.add(queue.context.queue(), &self.name);
            let remove = async move { queue.remove_consumer().await };
            self.tasks.keeping.spawn_on(remove, &self.handles.io)
        });
        let _late = timeout(STEP_MAX, join_all(remove)).await.is_err();
    }
}

/// What is still in flight after the stop.
fn abandoned(handle: &QueueHandle) -> Vec<Abandoned> {
    let queue = handle.context.queue();
    let left = handle.in_flight.holds().into_iter();
    left.map(|hold| Abandoned {
        stream: queue.stream.to_string(),
        group: queue.group.to_string(),
        entry_id: hold.id,
    })
    .collect()
}

/// How long a step that needs the server may take before the shutdown goes on without it.
const STEP_MAX: Duration = Duration::from_secs(2);
/// How long it may take to carry out the verdicts of all jobs that ended.
const SETTLE_MAX: Duration = Duration::from_secs(5);
