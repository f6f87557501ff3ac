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
mod wiring;
mod worker;

pub use self::builder::RuntimeBuilder;
pub use self::health::{Health, QueueHealth};
pub use self::report::Counters;
pub use self::shutdown::{Abandoned, ShutdownReport};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use self::io::Io;
use self::queue::QueueContext;
use self::report::Tally;
use self::worker::Worker;
use crate::client::Client;
use crate::name::ConsumerName;

/// A running runtime: reads, runs handlers, settles and recovers until it is shut down.
///
/// Keep it as long as the application serves, and end it with [`shutdown`](Self::shutdown).
/// Dropping it stops everything at once: running handlers are told that their time is over, and
/// what they held is claimed by others when its lease ends.
#[must_use = "dropping the runtime stops it"]
pub struct Runtime {
    workers: Vec<Worker>,
    consumer: ConsumerName,
    tally: Arc<Tally>,
    grace: Duration,
    /// What runs beside the workers.
    tasks: TaskTracker,
    /// Dropped last: everything else runs on it.
    _io: Io,
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
        Health { queues: self.queues().map(|context| queue_health(context, now)).collect() }
    }

    fn new(
        io: Io,
        consumer: ConsumerName,
        tally: Arc<Tally>,
        workers: Vec<Worker>,
        grace: Duration,
    ) -> Self {
        Self { workers, consumer, tally, grace, tasks: TaskTracker::new(), _io: io }
    }

    fn queues(&self) -> impl Iterator<Item = &QueueContext> {
        self.workers.iter().flat_map(|worker| &worker.queues).map(Arc::as_ref)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        for worker in &self.workers {
            worker.abandon();
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("consumer", &self.consumer)
            .field("workers", &self.workers)
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
