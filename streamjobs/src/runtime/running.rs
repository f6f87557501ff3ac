//! The handle on a running runtime, which the application keeps.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::model::error::ControlError;
use crate::model::name::ConsumerName;
use crate::runtime::consumer::{ConsumerSet, IoThread, Plan, Services, ShutdownReport};
use crate::runtime::control::{Consumer, Control};
use crate::runtime::observe::{Alerts, Counters, Health};

/// A running runtime: reads, runs handlers, settles and recovers until it is shut down.
///
/// Keep it as long as the application serves, and end it with [`shutdown`](Self::shutdown).
/// Dropping it stops everything at once: running handlers are cancelled, services are dropped where
/// they wait, and other processes claim the jobs in flight when their leases end.
#[must_use = "dropping the runtime stops it"]
pub struct Runtime {
    pub(super) consumers: Arc<ConsumerSet>,
    pub(super) services: Services,
    pub(super) first: ConsumerName,
    pub(super) plan: Plan,
    /// Dropped last: everything else runs on it.
    pub(super) _io: IoThread,
}

impl Runtime {
    /// The name of the consumer that was started first: the only consumer in a process that works on one group.
    /// [`consumers`](Self::consumers) lists all of them.
    #[must_use]
    pub fn consumer(&self) -> &ConsumerName {
        &self.first
    }

    /// The settings with which the runtime was started, and where each comes from. Later changes by
    /// [`set_concurrency`](Self::set_concurrency) are not shown.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How often each thing happened since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.control().counters()
    }

    /// Whether every group reads: for a health endpoint. Consumers that are being removed do not
    /// count.
    #[must_use]
    pub fn health(&self) -> Health {
        self.control().health()
    }

    /// Receives alerts that occur from now on.
    #[must_use]
    pub fn alerts(&self) -> Alerts {
        self.consumers.wiring.hooks.alerts.subscribe()
    }

    /// A handle that changes this runtime while it runs, for other parts of the application.
    #[must_use]
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.consumers))
    }

    /// The present consumers; see [`Control::consumers`].
    #[must_use]
    pub fn consumers(&self) -> Vec<Consumer> {
        self.control().consumers()
    }

    /// Starts another consumer of a group; see [`Control::add_consumer`].
    ///
    /// # Errors
    ///
    /// As for [`Control::add_consumer`].
    ///
    /// # Cancel safety
    ///
    /// As for [`Control::add_consumer`].
    pub async fn add_consumer(&self, group: &str) -> Result<ConsumerName, ControlError> {
        self.control().add_consumer(group).await
    }

    /// Stops one consumer and removes it; see [`Control::remove_consumer`].
    ///
    /// # Errors
    ///
    /// As for [`Control::remove_consumer`].
    ///
    /// # Cancel safety
    ///
    /// As for [`Control::remove_consumer`].
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
    /// As for [`Control::set_concurrency`].
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
    /// As for [`Control::pause`].
    pub fn pause(&self, group: &str) -> Result<bool, ControlError> {
        self.control().pause(group)
    }

    /// Resumes a group that was paused in this process; see [`Control::resume`].
    ///
    /// # Errors
    ///
    /// As for [`Control::resume`].
    pub fn resume(&self, group: &str) -> Result<bool, ControlError> {
        self.control().resume(group)
    }

    /// Scans for idle entries of a group now; see [`Control::reap_now`].
    ///
    /// # Errors
    ///
    /// As for [`Control::reap_now`].
    pub fn reap_now(&self, group: &str) -> Result<(), ControlError> {
        self.control().reap_now(group)
    }

    /// Stops all consumers in stages: takes in no more work, waits for running jobs up to the grace period, cancels
    /// jobs that still run, releases jobs that did not end, and reports jobs that it had to abandon. Observers have 5
    /// seconds for the observations that still wait. Services are stopped last, when no job can leave them more work,
    /// and have 5 seconds to end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the runtime: other processes claim the jobs in flight when their
    /// leases end.
    pub async fn shutdown(self) -> ShutdownReport {
        let started = Instant::now();
        let consumers = self.consumers.close();
        let stops = consumers.iter().map(|consumer| consumer.stop(self.consumers.grace()));
        let mut whole = ShutdownReport::default();
        for report in join_all(stops).await {
            whole.add(report);
        }
        self.consumers.end().await;
        if let Some(observers) = &self.consumers.wiring.hooks.observers {
            observers.stop().await;
        }
        self.services.stop().await;
        whole.took = started.elapsed();
        whole
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        for consumer in self.consumers.close() {
            consumer.abandon();
        }
        self.services.abandon();
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("first", &self.first)
            .field("consumers", &self.consumers)
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}
