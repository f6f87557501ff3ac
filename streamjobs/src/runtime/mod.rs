//! The embedded runtime: its builder, its wiring, and the handle that the application keeps.

mod acker;
mod acks;
mod builder;
mod clock;
mod control;
mod departed;
mod dispatcher;
mod due;
mod executor;
mod gate;
mod given_up;
mod health;
mod held;
mod io;
mod janitor;
mod lease;
mod lookout;
mod pause;
mod plan;
mod queue;
mod quiet;
mod reader;
mod reaper;
mod report;
mod retry;
mod services;
mod shutdown;
mod slots;
mod wake;
mod watcher;
mod wiring;
mod worker;
mod workers;

pub use self::builder::RuntimeBuilder;
pub use self::control::{Consumer, Control};
pub use self::health::{Health, QueueHealth};
pub use self::lookout::Alerts;
pub use self::report::Counters;
pub use self::shutdown::{Abandoned, ShutdownReport};
pub use crate::insight::alert::Alert;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use tokio::time::Instant;

use self::io::Io;
use self::services::Services;
use self::workers::Workers;
use crate::model::error::ControlError;
use crate::model::name::ConsumerName;
use crate::publish::client::Client;

/// A running runtime: reads, runs handlers, settles and recovers until it is shut down.
///
/// Keep it as long as the application serves, and end it with [`shutdown`](Self::shutdown).
/// Dropping it stops everything at once: running handlers are told that their time is over, what
/// they held is claimed by others when its lease ends, and services are dropped where they wait.
#[must_use = "dropping the runtime stops it"]
pub struct Runtime {
    workers: Arc<Workers>,
    services: Services,
    consumer: ConsumerName,
    /// Dropped last: everything else runs on it.
    _io: Io,
}

impl Runtime {
    /// Settings for a runtime on this client's server.
    pub fn builder(client: &Client) -> RuntimeBuilder {
        RuntimeBuilder::new(client.clone())
    }

    /// The name of the first consumer that was started: the only one of a process that works on one
    /// group. [`consumers`](Self::consumers) has them all.
    #[must_use]
    pub fn consumer(&self) -> &ConsumerName {
        &self.consumer
    }

    /// How often each thing happened since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.workers.wiring().tally.counters()
    }

    /// Whether every group reads: for a health endpoint. Consumers that are being removed do not
    /// count.
    #[must_use]
    pub fn health(&self) -> Health {
        let now = Instant::now();
        let workers = self.workers.running();
        let staying = workers.iter().filter(|worker| !worker.is_leaving());
        let queues = staying.flat_map(|worker| &worker.queues);
        Health { queues: queues.map(|context| context.health_at(now)).collect() }
    }

    /// Alerts from now on, as they come.
    #[must_use]
    pub fn alerts(&self) -> Alerts {
        self.workers.wiring().audience.listen()
    }

    /// A handle that changes this runtime while it runs, for other parts of the application.
    #[must_use]
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.workers))
    }

    /// The consumers of this moment; see [`Control::consumers`].
    #[must_use]
    pub fn consumers(&self) -> Vec<Consumer> {
        self.control().consumers()
    }

    /// Starts another consumer of a group; see [`Control::add_consumer`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn add_consumer(&self, group: &str) -> Result<ConsumerName, ControlError> {
        self.control().add_consumer(group).await
    }

    /// Stops one consumer and removes it; see [`Control::remove_consumer`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn remove_consumer(
        &self,
        name: &ConsumerName,
    ) -> Result<ShutdownReport, ControlError> {
        self.control().remove_consumer(name).await
    }

    /// Changes how many jobs of a group may be in flight; see [`Control::set_concurrency`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn set_concurrency(
        &self,
        group: &str,
        concurrency: NonZeroU32,
    ) -> Result<(), ControlError> {
        self.control().set_concurrency(group, concurrency)
    }

    /// Pauses a group in this process; see [`Control::pause`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn pause(&self, group: &str) -> Result<bool, ControlError> {
        self.control().pause(group)
    }

    /// Ends a pause of this process; see [`Control::resume`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn resume(&self, group: &str) -> Result<bool, ControlError> {
        self.control().resume(group)
    }

    /// Looks for idle entries of a group now; see [`Control::reap_now`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn reap_now(&self, group: &str) -> Result<(), ControlError> {
        self.control().reap_now(group)
    }

    fn new(io: Io, consumer: ConsumerName, workers: Workers, services: Services) -> Self {
        Self { workers: Arc::new(workers), services, consumer, _io: io }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        for worker in self.workers.close() {
            worker.abandon();
        }
        self.services.abandon();
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("consumer", &self.consumer)
            .field("workers", &self.workers)
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}
