//! The loops of one queue, and where each of them runs.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::model::cause::panic_text;
use crate::runtime::attempt::Dispatcher;
use crate::runtime::consumer::QueueHandle;
use crate::runtime::intake::{LeaseKeeper, Reader, Reaper};
use crate::runtime::observe::QueueEvent;
use crate::runtime::settle::{AckFlusher, Settler};
use crate::runtime::upkeep::{
    DoneWriter, Firer, HeartbeatSender, ProgressWriter, Promoter, Scheduler, TrendWriter, Trimmer,
    Watcher,
};

/// Where a consumer's tasks run.
#[derive(Clone, Debug)]
pub(crate) struct TokioHandles {
    /// The thread of the loops, which handlers cannot block.
    pub(crate) io: Handle,
    /// The application's own executor, for handlers.
    pub(crate) app: Handle,
}

/// The stages in which a consumer's tasks end.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    pub(crate) intake: TaskTracker,
    pub(crate) jobs: TaskTracker,
    pub(crate) settling: TaskTracker,
    pub(crate) keeping: TaskTracker,
}

/// What ends a consumer's tasks.
#[derive(Clone, Debug, Default)]
pub(crate) struct StopTokens {
    /// Ends intake and upkeep.
    pub(crate) stop: CancellationToken,
    /// Ends the renewal of leases.
    pub(crate) settled: CancellationToken,
    /// Ends the repetition of failed settlements.
    pub(crate) abort: CancellationToken,
}

impl StopTokens {
    /// Ends everything at once.
    pub(crate) fn cancel(&self) {
        for token in [&self.stop, &self.settled, &self.abort] {
            token.cancel();
        }
    }
}

/// The loops of one queue, not started yet.
#[derive(Debug)]
pub(crate) struct QueueLoops {
    pub(crate) reader: Reader,
    pub(crate) reaper: Reaper,
    pub(crate) lease_keeper: LeaseKeeper,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) settler: Settler,
    pub(crate) ack_flusher: AckFlusher,
    pub(crate) promoter: Promoter,
    pub(crate) scheduler: Scheduler,
    pub(crate) firer: Firer,
    pub(crate) heartbeat: HeartbeatSender,
    pub(crate) trimmer: Trimmer,
    pub(crate) watcher: Watcher,
}

impl QueueLoops {
    /// Starts every loop.
    pub(crate) fn start(
        self,
        queue: &Arc<QueueHandle>,
        supervisor: &LoopSupervisor,
        tasks: &Tasks,
        handles: &TokioHandles,
    ) {
        let StopTokens { stop, settled, abort } = &supervisor.tokens;
        let watched = |name, body| supervisor.clone().watch(Arc::clone(queue), name, body);
        let TokioHandles { io, app } = handles;
        self.dispatcher.executor.handlers.log_started(&queue.context, queue.slots.size());
        for (name, body) in [
            ("reader", self.reader.run(stop.clone()).boxed()),
            ("reaper", self.reaper.run(stop.clone()).boxed()),
            ("promoter", self.promoter.run(stop.clone()).boxed()),
            ("scheduler", self.scheduler.run(stop.clone()).boxed()),
            ("firer", self.firer.run(stop.clone()).boxed()),
            ("heartbeat", self.heartbeat.run(stop.clone()).boxed()),
            ("trimmer", self.trimmer.run(stop.clone()).boxed()),
            ("watcher", self.watcher.run(stop.clone()).boxed()),
        ] {
            tasks.intake.spawn_on(watched(name, body), io);
        }
        let lease_keeper = self.lease_keeper.run(settled.clone()).boxed();
        tasks.keeping.spawn_on(watched("lease keeper", lease_keeper), io);
        let board = Arc::clone(&queue.context.identity.progress);
        let progress = ProgressWriter { context: Arc::clone(&queue.context), board };
        let progress = progress.run(settled.clone()).boxed();
        tasks.keeping.spawn_on(watched("progress writer", progress), io);
        if let (Some(notes), Some(keep)) =
            (&queue.context.done_notes, queue.context.config.keep_done)
        {
            let (context, notes) = (Arc::clone(&queue.context), Arc::clone(notes));
            let writer = DoneWriter { context, notes, keep }.run(settled.clone()).boxed();
            tasks.keeping.spawn_on(watched("done writer", writer), io);
        }
        if let Some(counts) = queue.context.report.trend.clone() {
            let writer = TrendWriter { context: Arc::clone(&queue.context), counts };
            let writer = writer.run(settled.clone()).boxed();
            tasks.keeping.spawn_on(watched("trend writer", writer), io);
        }
        let settler = self.settler.run(abort.clone()).boxed();
        tasks.settling.spawn_on(watched("settler", settler), io);
        let ack_flusher = self.ack_flusher.run(abort.clone()).boxed();
        tasks.settling.spawn_on(watched("ack flusher", ack_flusher), io);
        let dispatcher = self.dispatcher.run(tasks.jobs.clone(), stop.clone()).boxed();
        tasks.jobs.spawn_on(watched("dispatcher", dispatcher), app);
    }
}

/// Ends a consumer that has lost a loop which handles jobs. Without its settler, for example, it
/// would renew entries that are never acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct LoopSupervisor {
    pub(crate) queues: Vec<Arc<QueueHandle>>,
    pub(crate) tokens: StopTokens,
}

impl LoopSupervisor {
    /// Runs a loop of one queue to its end.
    ///
    /// A panic is a fault of this crate and makes the queue unhealthy. After the panic of a loop that
    /// handles jobs, the consumer ends; its entries are claimed when their leases end. Otherwise it
    /// works on.
    pub(crate) async fn watch(
        self,
        queue: Arc<QueueHandle>,
        name: &'static str,
        body: BoxFuture<'static, ()>,
    ) {
        if let Err(panic) = AssertUnwindSafe(body).catch_unwind().await {
            queue.health.loops.note_broken();
            let panic = panic_text(panic);
            queue.context.report.queue(QueueEvent::LoopEnded { name, panic: &panic });
            if HANDLING_JOBS.contains(&name) {
                self.trip();
            }
        }
    }

    fn trip(self) {
        self.tokens.cancel();
        for queue in self.queues {
            queue.abandon_leases("a loop of its consumer has ended");
        }
    }
}

/// Loops whose end would leave entries in flight that are renewed and never settled.
const HANDLING_JOBS: [&str; 5] = ["reader", "dispatcher", "settler", "ack flusher", "lease keeper"];
