//! The loops of one queue, and where each of them runs.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::runtime::attempt::dispatcher::Dispatcher;
use crate::runtime::consumer::loop_supervisor::LoopSupervisor;
use crate::runtime::consumer::queue_handle::QueueHandle;
use crate::runtime::intake::lease_keeper::LeaseKeeper;
use crate::runtime::intake::reader::Reader;
use crate::runtime::intake::reaper::Reaper;
use crate::runtime::settle::ack_flusher::AckFlusher;
use crate::runtime::settle::settler::Settler;
use crate::runtime::upkeep::heartbeat_sender::HeartbeatSender;
use crate::runtime::upkeep::promoter::Promoter;
use crate::runtime::upkeep::trimmer::Trimmer;
use crate::runtime::upkeep::watcher::Watcher;

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
        let [stop, settled, abort] = &supervisor.tokens;
        let watched = |name, body| supervisor.clone().watch(Arc::clone(queue), name, body);
        let TokioHandles { io, app } = handles;
        self.dispatcher.executor.handlers.log_started(&queue.context, queue.slots.size());
        for (name, body) in [
            ("reader", self.reader.run(stop.clone()).boxed()),
            ("reaper", self.reaper.run(stop.clone()).boxed()),
            ("promoter", self.promoter.run(stop.clone()).boxed()),
            ("heartbeat", self.heartbeat.run(stop.clone()).boxed()),
            ("trimmer", self.trimmer.run(stop.clone()).boxed()),
            ("watcher", self.watcher.run(stop.clone()).boxed()),
        ] {
            tasks.intake.spawn_on(watched(name, body), io);
        }
        let lease_keeper = self.lease_keeper.run(settled.clone()).boxed();
        tasks.keeping.spawn_on(watched("lease keeper", lease_keeper), io);
        let settler = self.settler.run(abort.clone()).boxed();
        tasks.settling.spawn_on(watched("settler", settler), io);
        let ack_flusher = self.ack_flusher.run(abort.clone()).boxed();
        tasks.settling.spawn_on(watched("ack flusher", ack_flusher), io);
        let dispatcher = self.dispatcher.run(tasks.jobs.clone(), stop.clone()).boxed();
        tasks.jobs.spawn_on(watched("dispatcher", dispatcher), app);
    }
}
