//! The stages of a stop: drain, grace, cancel, settle.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};
use tracing::info;

use crate::model::entry::EntryId;
use crate::model::fail_point::FailPoint;
use crate::runtime::Runtime;
use crate::runtime::consumer::queue::QueueContext;
use crate::runtime::consumer::running::RunningConsumer;
use crate::runtime::observe::report::Counters;

/// What a shutdown did, and what it had to leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Jobs that were in flight when the shutdown began and ended by themselves.
    pub finished: u64,
    /// Jobs that were handed back uncounted, for other processes to claim at once.
    pub released: u64,
    /// Jobs that could neither finish nor be handed back; others claim them when their lease ends.
    pub abandoned: Vec<Abandoned>,
    /// How long the shutdown took.
    pub took: Duration,
}

/// A job that a shutdown had to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Abandoned {
    /// The stream.
    pub stream: String,
    /// The group.
    pub group: String,
    /// The entry.
    pub entry_id: EntryId,
}

impl Runtime {
    /// Stops all consumers in stages: takes in no more work, waits for running jobs up to the grace
    /// period, tells the rest to stop, hands back what did not end, and says what it had to leave.
    /// Services are stopped last, once no job can leave them anything more, and have 5 seconds to
    /// end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the runtime: what it held is claimed by others when its lease
    /// ends.
    pub async fn shutdown(self) -> ShutdownReport {
        let started = Instant::now();
        let workers = self.workers.close();
        let stops = workers.iter().map(|worker| worker.stop(self.workers.grace()));
        let mut whole = ShutdownReport::default();
        for report in join_all(stops).await {
            whole.finished += report.finished;
            whole.released += report.released;
            whole.abandoned.extend(report.abandoned);
        }
        self.workers.end().await;
        self.services.stop().await;
        whole.took = started.elapsed();
        whole
    }
}

impl RunningConsumer {
    /// Stops this consumer alone, and removes it from the group. Whoever else asks for it meanwhile
    /// or later waits for the same stop.
    pub(crate) async fn stop(&self, grace: Duration) -> ShutdownReport {
        self.leaving.store(true, Ordering::SeqCst);
        self.stopped.get_or_init(|| self.stop_in_stages(grace)).await.clone()
    }

    async fn stop_in_stages(&self, grace: Duration) -> ShutdownReport {
        let started = Instant::now();
        let before = self.tally.counters();
        info!(consumer = %self.name, in_flight = self.in_flight(), "shutdown: taking in no more work");
        self.stop.cancel();
        self.end_intake().await;
        FailPoint::ShutdownMidDrain.reached();
        self.jobs.close();
        if timeout(grace, self.jobs.wait()).await.is_err() {
            self.cut_off().await;
        }
        self.settle().await;
        self.released.cancel();
        self.keeping.close();
        let _late = timeout(STEP_MAX, self.keeping.wait()).await.is_err();
        let abandoned = self.queues.iter().flat_map(|context| abandoned(context)).collect();
        self.retire().await;
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

    /// Wakes the readers and waits for the loops that take work in. A read is never cut off: its
    /// answer may carry entries.
    async fn end_intake(&self) {
        self.intake.close();
        let wake = self.queues.iter().map(|context| {
            let context = Arc::clone(context);
            let wake = async move {
                context.wake.wake(context.store.as_ref(), context.config.block).await
            };
            self.keeping.spawn_on(wake, &self.executors.io)
        });
        let woken = join_all(wake);
        let longest =
            self.queues.iter().map(|context| context.config.block + context.runtime.read_margin);
        let patience = longest.max().unwrap_or_default() + STEP_MAX;
        let _late =
            timeout(patience, async { tokio::join!(woken, self.intake.wait()) }).await.is_err();
    }

    /// Tells running jobs that their time is over, and waits for them to see it.
    async fn cut_off(&self) {
        let running = self.in_flight();
        info!(consumer = %self.name, running, "shutdown: grace is over, cancelling what runs");
        self.cut_off_handlers();
        let window = self.queues.iter().map(|context| context.config.window()).max();
        let window = window.unwrap_or_default();
        let _blocked = timeout(window + STEP_MAX, self.jobs.wait()).await.is_err();
    }

    /// Waits until the server knows every verdict, or gives up.
    async fn settle(&self) {
        self.settling.close();
        if timeout(SETTLE_MAX, self.settling.wait()).await.is_err() {
            self.abort.cancel();
            let _late = timeout(STEP_MAX, self.settling.wait()).await.is_err();
        }
    }

    /// Removes this consumer from the group where nothing is pending for it; handed-back entries
    /// keep it there until somebody has claimed them, and a janitor removes it then.
    async fn retire(&self) {
        let retire = self.queues.iter().map(|context| {
            let context = Arc::clone(context);
            context.departed.add(&context.queue, &self.name);
            let retire = async move {
                let (queue, consumer) = (&context.queue, &context.identity.consumer);
                match context.store.retire(queue, consumer).await {
                    Ok(true) => context.departed.remove(queue, consumer),
                    Ok(false) => {}
                    Err(error) => context.report.server_error("retire this consumer", &error),
                }
            };
            self.keeping.spawn_on(retire, &self.executors.io)
        });
        let _late = timeout(STEP_MAX, join_all(retire)).await.is_err();
    }
}

fn abandoned(context: &QueueContext) -> Vec<Abandoned> {
    let name = &context.queue;
    let left = context.held.holds().into_iter();
    left.map(|hold| Abandoned {
        stream: name.stream.to_string(),
        group: name.group.to_string(),
        entry_id: hold.id,
    })
    .collect()
}

/// How long a step that needs the server may take before the shutdown goes on without it.
const STEP_MAX: Duration = Duration::from_secs(2);
/// How long the server may take to learn the verdicts of all that ended.
const SETTLE_MAX: Duration = Duration::from_secs(5);
