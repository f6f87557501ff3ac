//! One consumer of a group: its loops on every stream that the group reads.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::handler::panic_text;
use crate::model::name::{ConsumerName, GroupName};
use crate::runtime::attempt::dispatcher;
use crate::runtime::consumer::queue::QueueContext;
use crate::runtime::consumer::stop::ShutdownReport;
use crate::runtime::consumer::wiring::log_table;
use crate::runtime::intake::{lease_keeper, reader, reaper};
use crate::runtime::observe::report::Tally;
use crate::runtime::settle::settler;
use crate::runtime::upkeep::{janitor, promoter, watcher};

/// Where a worker's tasks run.
#[derive(Clone, Debug)]
pub(crate) struct Executors {
    /// The thread of the loops, which no handler can block.
    pub(crate) io: Handle,
    /// The application's own executor, for handlers.
    pub(crate) app: Handle,
}

/// A running consumer. Every token and every tracker is its own, so it can be stopped alone.
pub(crate) struct RunningConsumer {
    pub(crate) name: ConsumerName,
    pub(crate) group: GroupName,
    /// The group's queues, one for each stream.
    pub(crate) queues: Vec<Arc<QueueContext>>,
    /// Counts for this worker alone.
    pub(crate) tally: Arc<Tally>,
    pub(crate) executors: Executors,
    /// Ends the taking in of work.
    pub(crate) stop: CancellationToken,
    /// Ends the renewing of leases.
    pub(crate) released: CancellationToken,
    /// Ends every retry of a settlement.
    pub(crate) abort: CancellationToken,
    pub(crate) intake: TaskTracker,
    pub(crate) jobs: TaskTracker,
    pub(crate) settling: TaskTracker,
    pub(crate) keeping: TaskTracker,
    /// It has begun to stop, and takes in no more work.
    pub(crate) leaving: AtomicBool,
    /// What its stop came to. Whoever asks for it twice gets the same.
    pub(crate) stopped: OnceCell<ShutdownReport>,
}

impl RunningConsumer {
    /// A worker whose loops are not started yet.
    pub(crate) fn new(
        name: ConsumerName,
        group: GroupName,
        queues: Vec<Arc<QueueContext>>,
        tally: Arc<Tally>,
        executors: Executors,
    ) -> Self {
        Self {
            name,
            group,
            queues,
            tally,
            executors,
            stop: CancellationToken::new(),
            released: CancellationToken::new(),
            abort: CancellationToken::new(),
            intake: TaskTracker::new(),
            jobs: TaskTracker::new(),
            settling: TaskTracker::new(),
            keeping: TaskTracker::new(),
            leaving: AtomicBool::new(false),
            stopped: OnceCell::new(),
        }
    }

    /// Starts the loops of every queue.
    pub(crate) fn start(&self) {
        for context in &self.queues {
            log_table(context);
            self.start_queue(context);
        }
    }

    /// Jobs in flight, over all queues.
    pub(crate) fn in_flight(&self) -> usize {
        self.queues.iter().map(|context| context.held.len()).sum()
    }

    /// Jobs that may be in flight at once, over all queues.
    pub(crate) fn concurrency(&self) -> usize {
        self.queues.iter().map(|context| context.slots.size()).sum()
    }

    /// Whether nothing is read, on any queue, because of a pause.
    pub(crate) fn is_paused(&self) -> bool {
        self.queues.iter().all(|context| context.gate.is_shut())
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// Has the reapers look for idle entries without waiting for their interval.
    pub(crate) fn reap_now(&self) {
        for context in &self.queues {
            context.reap_now.notify_one();
        }
    }

    /// Ends the readers' present waits, so that they see what has changed. Does not wait for it.
    pub(crate) fn wake_readers(&self) {
        for context in &self.queues {
            let context = Arc::clone(context);
            let wake = async move {
                context.wake.wake(context.store.as_ref(), context.config.block).await;
            };
            self.keeping.spawn_on(wake, &self.executors.io);
        }
    }

    /// Ends everything without waiting: running handlers are told that their time is over, and what
    /// they held is claimed by others when its lease ends.
    pub(crate) fn abandon(&self) {
        self.stop.cancel();
        self.released.cancel();
        self.abort.cancel();
        self.cut_off_handlers();
    }

    pub(crate) fn cut_off_handlers(&self) {
        for context in &self.queues {
            context.held.cut_off();
        }
    }

    /// Starts the loops of one queue, and the channels through which they meet.
    fn start_queue(&self, context: &Arc<QueueContext>) {
        let (io, shared) = (&self.executors.io, || Arc::clone(context));
        let watched = |name, body: BoxFuture<'static, ()>| {
            let fuse = LoopSupervisor {
                queues: self.queues.clone(),
                tokens: [self.stop.clone(), self.released.clone(), self.abort.clone()],
            };
            fuse.watch(shared(), name, body)
        };
        // A batch carries slots, so there is never one without work to do. Neither channel is where
        // anything waits for long: both ends that receive do nothing but receive and start.
        let (assign, assignments) = mpsc::channel(BATCHES_MAX);
        let (settle, settlements) = mpsc::channel(SETTLEMENTS_MAX);
        let reader = reader::Reader::new(shared(), assign.clone()).run(self.stop.clone());
        self.intake.spawn_on(watched("reader", reader.boxed()), io);
        let reaper = reaper::Reaper::new(shared(), assign).run(self.stop.clone());
        self.intake.spawn_on(watched("reaper", reaper.boxed()), io);
        let promoter = promoter::Promoter::new(shared()).run(self.stop.clone());
        self.intake.spawn_on(watched("promoter", promoter.boxed()), io);
        let janitor = janitor::Janitor::new(shared()).run(self.stop.clone());
        self.intake.spawn_on(watched("janitor", janitor.boxed()), io);
        let watcher = watcher::Watcher { context: shared() }.run(self.stop.clone());
        self.intake.spawn_on(watched("watcher", watcher.boxed()), io);
        let keeper = lease_keeper::LeaseKeeper { context: shared() }.run(self.released.clone());
        self.keeping.spawn_on(watched("lease keeper", keeper.boxed()), io);
        let acker = settler::Settler::new(shared(), settlements, self.abort.clone()).run();
        self.settling.spawn_on(watched("acker", acker.boxed()), io);
        let dispatcher = dispatcher::Dispatcher {
            context: shared(),
            assignments,
            settlements: settle,
            jobs: self.jobs.clone(),
        };
        let dispatcher = watched("dispatcher", dispatcher.run(self.stop.clone()).boxed());
        self.jobs.spawn_on(dispatcher, &self.executors.app);
    }
}

impl fmt::Debug for RunningConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningConsumer")
            .field("name", &self.name)
            .field("queues", &self.queues.len())
            .finish_non_exhaustive()
    }
}

/// What ends a worker whose loops are no longer whole. One that went on without its acker would renew
/// for ever what nobody acknowledges.
struct LoopSupervisor {
    queues: Vec<Arc<QueueContext>>,
    tokens: [CancellationToken; 3],
}

impl LoopSupervisor {
    /// Runs a loop to its end. One that panics, which is a fault of this crate, turns the health red,
    /// and work goes on around it. One that has jobs in hand takes the worker with it: what that held
    /// is claimed by others when its lease ends.
    async fn watch(
        self,
        context: Arc<QueueContext>,
        name: &'static str,
        body: BoxFuture<'static, ()>,
    ) {
        if let Err(panic) = AssertUnwindSafe(body).catch_unwind().await {
            context.health.note_broken();
            context.report.loop_ended(name, &panic_text(panic.as_ref()));
            if WITH_JOBS_IN_HAND.contains(&name) {
                self.trip();
            }
        }
    }

    fn trip(self) {
        for token in self.tokens {
            token.cancel();
        }
        for context in self.queues {
            for hold in context.held.fence(Instant::now(), Duration::ZERO) {
                context.report.lease_lost(hold, "a loop of its consumer has ended");
            }
        }
    }
}

/// Loops whose end would leave jobs held and renewed for ever.
const WITH_JOBS_IN_HAND: [&str; 4] = ["reader", "dispatcher", "acker", "lease keeper"];
/// Batches on their way to the dispatcher.
const BATCHES_MAX: usize = 16;
/// Verdicts on their way to the acker.
const SETTLEMENTS_MAX: usize = 256;
