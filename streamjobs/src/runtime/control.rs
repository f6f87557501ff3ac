//! Changing a runtime while it runs.

use std::num::NonZeroU32;
use std::sync::Arc;

use crate::model::error::ControlError;
use crate::model::name::{ConsumerName, GroupName, StreamName};
use crate::runtime::consumer::consumer_set::ConsumerSet;
use crate::runtime::consumer::running_consumer::RunningConsumer;
use crate::runtime::consumer::shutdown_report::ShutdownReport;

/// One consumer of a running runtime, as it was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Consumer {
    /// The group.
    pub group: GroupName,
    /// The streams that it reads.
    pub streams: Vec<StreamName>,
    /// Its name on the server.
    pub name: ConsumerName,
    /// How many jobs it may have in flight at once, over all its streams.
    pub concurrency: usize,
    /// Whether it reads none of its streams because the group is paused, in this process or in
    /// every one.
    pub paused: bool,
    /// Jobs that it has in flight.
    pub in_flight: usize,
    /// Whether it is being removed, and takes in no more work.
    pub leaving: bool,
}

/// Changes a running runtime: adds and removes consumers, changes concurrency, pauses.
///
/// Clones are handles on the same runtime, for an admin page or a signal handler; the runtime
/// itself stays with whoever shuts it down. Once that has begun, nothing can be changed any more.
/// What is changed here holds for this process, and until it ends.
#[derive(Clone, Debug)]
pub struct Control {
    set: Arc<ConsumerSet>,
}

impl Control {
    pub(crate) fn new(set: Arc<ConsumerSet>) -> Self {
        Self { set }
    }

    /// The consumers of this moment, in the order of their starts.
    #[must_use]
    pub fn consumers(&self) -> Vec<Consumer> {
        self.set.running().iter().map(|consumer| describe(consumer)).collect()
    }

    /// Starts another consumer of a group in this process: its name.
    ///
    /// It reads every stream that the group reads here, each through a connection of its own, and
    /// has slots of its own: as many on each stream as the group's concurrency says. A group that
    /// is missing on the server is made. More slots for the consumer there is
    /// ([`set_concurrency`](Self::set_concurrency)) are cheaper; another consumer is worth its
    /// connections where one connection cannot bring enough.
    ///
    /// # Errors
    ///
    /// When this runtime has no handlers for the group, the server cannot be reached or refuses the
    /// group, or the shutdown has begun. No consumer is there then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future adds no consumer; the group may have been made.
    pub async fn add_consumer(&self, group: &str) -> Result<ConsumerName, ControlError> {
        self.set.add(group, None).await
    }

    /// As [`add_consumer`](Self::add_consumer), with a first part of its name of its own in place of
    /// the runtime's [prefix](crate::RuntimeBuilder::consumer_prefix): to tell consumers of one
    /// group and process apart.
    ///
    /// # Errors
    ///
    /// When the prefix makes no name, and as there.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn add_consumer_named(
        &self,
        group: &str,
        prefix: &str,
    ) -> Result<ConsumerName, ControlError> {
        self.set.add(group, Some(prefix)).await
    }

    /// Stops one consumer of this process in the stages of a shutdown, and removes it from the
    /// server.
    ///
    /// It reads no more; once its last read has ended, its handlers have the runtime's grace to end
    /// by themselves; the rest is told to stop and handed back, uncounted, for any other consumer
    /// of the group to claim at once. The server forgets its name in one step with seeing that
    /// nothing is pending for it: now, or as soon as what it handed back has been claimed.
    ///
    /// No other consumer is needed. After the last one of a group, its jobs wait for another
    /// process, or for [`add_consumer`](Self::add_consumer). When the server cannot be reached,
    /// what could not be handed back is in the report as abandoned; others claim it when its lease
    /// ends.
    ///
    /// A handler that waits for the removal of its own consumer holds it up until the grace is
    /// over.
    ///
    /// # Errors
    ///
    /// When no consumer of this runtime has the name, or the shutdown has begun.
    ///
    /// # Cancel safety
    ///
    /// The removal goes on when the future is dropped. Asking again waits for the same one.
    pub async fn remove_consumer(
        &self,
        name: &ConsumerName,
    ) -> Result<ShutdownReport, ControlError> {
        self.set.remove(name).await
    }

    /// Changes how many jobs of a group each of its consumers may have in flight at once, on each
    /// stream: now, and for consumers that are added later.
    ///
    /// More slots are there at once. Fewer cut nothing off: slots go as their jobs end. Beyond
    /// 100,000 there are no more.
    ///
    /// # Errors
    ///
    /// When this runtime has no handlers for the group, or the shutdown has begun.
    pub fn set_concurrency(
        &self,
        group: &str,
        concurrency: NonZeroU32,
    ) -> Result<(), ControlError> {
        self.set.set_concurrency(group, concurrency)
    }

    /// Pauses a group in this process: true unless it was paused already.
    ///
    /// Nothing is read, claimed or promoted any more. What is in flight goes on: running handlers
    /// end, their leases are renewed and their verdicts reach the server, and what a read brings
    /// that was under way is done. Other processes go on with the group's work. The health stays
    /// green.
    ///
    /// A group that is also paused in every process works again only when both pauses are over.
    ///
    /// # Errors
    ///
    /// When this runtime has no handlers for the group, or the shutdown has begun.
    pub fn pause(&self, group: &str) -> Result<bool, ControlError> {
        self.set.set_paused(group, true)
    }

    /// Ends a pause of this process: true if there was one.
    ///
    /// # Errors
    ///
    /// When this runtime has no handlers for the group, or the shutdown has begun.
    pub fn resume(&self, group: &str) -> Result<bool, ControlError> {
        self.set.set_paused(group, false)
    }

    /// Has this process look for idle entries of a group now instead of with its next sweep, which
    /// comes every third of a lease. Does not wait for it. While the group is paused, it is done at
    /// the end of the pause.
    ///
    /// # Errors
    ///
    /// When this runtime has no handlers for the group, or the shutdown has begun.
    pub fn reap_now(&self, group: &str) -> Result<(), ControlError> {
        self.set.reap_now(group)
    }

    /// As [`reap_now`](Self::reap_now), for one consumer of this process: what is idle is claimed for
    /// it, as far as it has free slots.
    ///
    /// # Errors
    ///
    /// When no consumer of this runtime has the name, or the shutdown has begun.
    pub fn reap_now_by(&self, consumer: &ConsumerName) -> Result<(), ControlError> {
        self.set.reap_now_by(consumer)
    }
}

fn describe(consumer: &RunningConsumer) -> Consumer {
    Consumer {
        group: consumer.group.clone(),
        streams: consumer.queues.iter().map(|queue| queue.context.queue().stream.clone()).collect(),
        name: consumer.name.clone(),
        concurrency: consumer.concurrency(),
        paused: consumer.is_paused(),
        in_flight: consumer.in_flight(),
        leaving: consumer.is_leaving(),
    }
}
