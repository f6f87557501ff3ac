//! The embedded runtime: its builder, its wiring, and the handle that the application keeps.

mod acker;
mod acks;
mod builder;
mod clock;
mod dispatcher;
mod executor;
mod health;
mod held;
mod io;
mod janitor;
mod lease;
mod pause;
mod plan;
mod queue;
mod reader;
mod reaper;
mod report;
mod retry;
mod shutdown;
mod wake;

pub use self::builder::RuntimeBuilder;
pub use self::health::{Health, QueueHealth};
pub use self::report::Counters;
pub use self::shutdown::{Abandoned, ShutdownReport};

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::io::Io;
use self::queue::QueueContext;
use self::report::Tally;
use crate::client::Client;
use crate::handler::panic_text;
use crate::name::ConsumerName;

/// A running runtime: reads, runs handlers, settles and recovers until it is shut down.
///
/// Keep it as long as the application serves, and end it with [`shutdown`](Self::shutdown).
/// Dropping it stops everything at once: running handlers are told that their time is over, and
/// what they held is claimed by others when its lease ends.
#[must_use = "dropping the runtime stops it"]
pub struct Runtime {
    queues: Vec<RunningQueue>,
    consumer: ConsumerName,
    tally: Arc<Tally>,
    grace: Duration,
    /// Ends the taking in of work.
    stop: CancellationToken,
    /// Ends the renewing of leases.
    released: CancellationToken,
    /// Ends every retry of a settlement.
    abort: CancellationToken,
    intake: TaskTracker,
    jobs: TaskTracker,
    settling: TaskTracker,
    keeping: TaskTracker,
    io: Io,
}

/// One queue of a running runtime.
struct RunningQueue {
    context: Arc<QueueContext>,
}

impl Runtime {
    /// Settings for a runtime on this client's server.
    pub fn builder(client: &Client) -> RuntimeBuilder {
        RuntimeBuilder::new(client.clone())
    }

    /// The name this process run reads under.
    #[must_use]
    pub fn consumer(&self) -> &ConsumerName {
        &self.consumer
    }

    /// How often each thing happened since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.tally.counters()
    }

    /// Whether every group reads: for a health endpoint.
    #[must_use]
    pub fn health(&self) -> Health {
        let now = Instant::now();
        Health {
            queues: self.queues.iter().map(|queue| queue_health(&queue.context, now)).collect(),
        }
    }

    fn new(io: Io, consumer: ConsumerName, tally: Arc<Tally>, grace: Duration) -> Self {
        Self {
            queues: Vec::new(),
            consumer,
            tally,
            grace,
            stop: CancellationToken::new(),
            released: CancellationToken::new(),
            abort: CancellationToken::new(),
            intake: TaskTracker::new(),
            jobs: TaskTracker::new(),
            settling: TaskTracker::new(),
            keeping: TaskTracker::new(),
            io,
        }
    }

    /// Starts the loops of one queue, and the channels through which they meet.
    fn run_queue(&mut self, context: Arc<QueueContext>) {
        let slots = context.config.concurrency;
        // Every message carries slots, so neither channel can ever be full of work that has none.
        let (assign, assignments) = mpsc::channel(BATCHES_MAX);
        let (settle, settlements) = mpsc::channel(slots);
        let io = self.io.handle();
        let shared = || Arc::clone(&context);
        let reader = reader::Reader::new(shared(), assign.clone()).run(self.stop.clone());
        self.intake.spawn_on(watched(shared(), "reader", reader), io);
        let reaper = reaper::Reaper::new(shared(), assign).run(self.stop.clone());
        self.intake.spawn_on(watched(shared(), "reaper", reaper), io);
        let promoter = retry::Promoter::new(shared()).run(self.stop.clone());
        self.intake.spawn_on(watched(shared(), "promoter", promoter), io);
        let janitor = janitor::Janitor::new(shared()).run(self.stop.clone());
        self.intake.spawn_on(watched(shared(), "janitor", janitor), io);
        let keeper = lease::LeaseKeeper { context: shared() }.run(self.released.clone());
        self.keeping.spawn_on(watched(shared(), "lease keeper", keeper), io);
        let acker = acker::Acker::new(shared(), settlements, self.abort.clone()).run();
        self.settling.spawn_on(watched(shared(), "acker", acker), io);
        let dispatcher = dispatcher::Dispatcher {
            context: shared(),
            assignments,
            settlements: settle,
            jobs: self.jobs.clone(),
        };
        let dispatcher = dispatcher.run(self.stop.clone());
        self.jobs.spawn(watched(shared(), "dispatcher", dispatcher));
        self.queues.push(RunningQueue { context });
    }
}

/// Runs a loop to its end. One that panics, which is a fault of this crate, turns the health red
/// instead of going quietly.
async fn watched(context: Arc<QueueContext>, name: &'static str, body: impl Future<Output = ()>) {
    if let Err(panic) = AssertUnwindSafe(body).catch_unwind().await {
        context.health.note_broken();
        context.report.loop_ended(name, &panic_text(panic.as_ref()));
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.stop.cancel();
        self.released.cancel();
        self.abort.cancel();
        for queue in &self.queues {
            queue.context.held.cut_off();
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("consumer", &self.consumer)
            .field("queues", &self.queues.len())
            .finish_non_exhaustive()
    }
}

fn queue_health(context: &QueueContext, now: Instant) -> QueueHealth {
    let (last_read, saturated) = context.health.look(now);
    let last_read_max = context.config.block + context.runtime.read_margin;
    let last_answer = context.clock.silence(now);
    let reads = last_read.is_some_and(|age| age <= last_read_max);
    let answers = last_answer <= context.config.lease / 2;
    QueueHealth {
        stream: context.queue.stream.to_string(),
        group: context.queue.group.to_string(),
        last_read,
        last_read_max,
        last_answer,
        saturated,
        in_flight: context.held.len(),
        healthy: (reads || (saturated && answers)) && !context.health.is_broken(),
    }
}

/// Batches on their way to the dispatcher.
const BATCHES_MAX: usize = 16;
