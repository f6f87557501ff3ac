//! Changing a runtime while it runs.

use std::num::NonZeroU32;
use std::sync::Arc;

use tokio::time::Instant;

use crate::insight::view::SlotSet;
use crate::model::error::ControlError;
use crate::model::name::{ConsumerName, GroupName, StreamName};
use crate::runtime::consumer::{ConsumerSet, RunningConsumer, ShutdownReport};
use crate::runtime::observe::{Counters, Health};

/// One consumer of a running runtime, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Consumer {
    /// The group.
    pub group: GroupName,
    /// The streams that it reads.
    pub streams: Vec<StreamName>,
    /// Its name on the server.
    pub name: ConsumerName,
    /// How many jobs it may have in flight at once, over all its streams. Of
    /// [shared slots](crate::RuntimeBuilder::shared_slots), each stream counts with the most that it may have.
    pub concurrency: usize,
    /// Whether it reads none of its streams because the group is paused, in this process or in
    /// every process.
    pub paused: bool,
    /// Jobs that it has in flight.
    pub in_flight: usize,
    /// Whether it is being removed and takes in no more work.
    pub leaving: bool,
}

/// Changes a running runtime: adds and removes consumers, changes concurrency, pauses.
///
/// Clones are handles on the same runtime, for an admin page or a signal handler. The [`Runtime`]
/// itself stays with the caller that shuts it down. Once the shutdown has begun, changes are
/// refused. A change applies to this process until the process ends.
///
/// [`Runtime`]: crate::Runtime
#[derive(Clone, Debug)]
pub struct Control {
    set: Arc<ConsumerSet>,
}

impl Control {
    pub(crate) fn new(set: Arc<ConsumerSet>) -> Self {
        Self { set }
    }

    /// The present consumers, in the order in which they were started.
    #[must_use]
    pub fn consumers(&self) -> Vec<Consumer> {
        self.set.running().iter().map(|consumer| describe(consumer)).collect()
    }

    /// Whether every group reads; see [`Runtime::health`](crate::Runtime::health). For the health
    /// endpoint of a web server, which cannot own the runtime itself. After the shutdown no group is
    /// left, and the answer is that all groups are healthy.
    #[must_use]
    pub fn health(&self) -> Health {
        let now = Instant::now();
        let consumers = self.set.running();
        let staying = consumers.iter().filter(|consumer| !consumer.is_leaving());
        let queues = staying.flat_map(|consumer| &consumer.queues);
        Health::of(queues.map(|queue| queue.health.health_at(now)))
    }

    /// How often each thing happened since the start; see
    /// [`Runtime::counters`](crate::Runtime::counters).
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.set.wiring.tally.counters()
    }

    /// The sets of slots that groups share in this process, by name, and how much of each is in use now. Once all is
    /// done, nothing is.
    #[must_use]
    pub fn shared_slots(&self) -> Vec<SlotSet> {
        self.set.wiring.slot_sets()
    }

    /// Starts another consumer of a group in this process. Returns its name.
    ///
    /// It reads every stream that the group reads here, and has slots of its own: as many on each stream
    /// as the group's concurrency. Of [shared slots](crate::RuntimeBuilder::shared_slots) it takes its own share,
    /// with the group's weight. With more than two readers, consumers share connections. A group
    /// that is missing on the server is created. More slots for the present consumer
    /// ([`set_concurrency`](Self::set_concurrency)) are cheaper.
    ///
    /// # Errors
    ///
    /// When this runtime has no handlers for the group, the server cannot be reached or refuses the
    /// group, or the shutdown has begun. In these cases no consumer was added.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future adds no consumer; the group may have been created.
    pub async fn add_consumer(&self, group: &str) -> Result<ConsumerName, ControlError> {
        self.set.add(group, None).await
    }

    /// Like [`add_consumer`](Self::add_consumer), with a name that begins with this prefix instead of
    /// the runtime's [prefix](crate::RuntimeBuilder::consumer_prefix): to distinguish the consumers of
    /// one group and process.
    ///
    /// # Errors
    ///
    /// When the prefix is not valid in a name, and as for `add_consumer`.
    ///
    /// # Cancel safety
    ///
    /// As for `add_consumer`.
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
    /// The consumer stops reading. When its last read has ended, its handlers have the runtime's grace to end by
    /// themselves. After that they are cancelled and their jobs released, uncounted, for any other consumer of the
    /// group to claim at once. The consumer's name is removed from the server in one step with the check that nothing
    /// is pending for it: now, or as soon as the released jobs are claimed.
    ///
    /// The last consumer of a group can be removed, too. The group's jobs then wait for another
    /// process, or for [`add_consumer`](Self::add_consumer). If the server cannot be reached, the report
    /// lists jobs that could not be released as abandoned; other consumers claim them when their lease
    /// ends.
    ///
    /// A handler that waits for the removal of its own consumer delays it until the grace is over.
    ///
    /// # Errors
    ///
    /// When no consumer of this runtime has the name, or the shutdown has begun.
    ///
    /// # Cancel safety
    ///
    /// The removal continues if the future is dropped. Another call waits for the same removal.
    pub async fn remove_consumer(
        &self,
        name: &ConsumerName,
    ) -> Result<ShutdownReport, ControlError> {
        self.set.remove(name).await
    }

    /// Changes how many jobs of a group each of its consumers may have in flight at once, on each
    /// stream. The change applies at once, and also to consumers that are added later.
    ///
    /// Additional slots are free at once. Removing slots cancels no job: each is removed when a job
    /// ends. The maximum is 100,000; a larger number counts as the maximum. Of a group with
    /// [shared slots](crate::RuntimeBuilder::shared_slots) it is the most that it may have of them, and at most all.
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

    /// Pauses a group in this process. Returns true unless the group was already paused.
    ///
    /// Nothing is read, claimed or promoted during a pause. Jobs in flight continue: handlers run to their end,
    /// leases are renewed, and verdicts are carried out. This includes entries of a read that had been sent before
    /// the pause. Other processes continue with the group's work. The queue stays healthy.
    ///
    /// A group that is also paused in every process works again only when both pauses are over.
    ///
    /// # Errors
    ///
    /// When this runtime has no handlers for the group, or the shutdown has begun.
    pub fn pause(&self, group: &str) -> Result<bool, ControlError> {
        self.set.set_paused(group, true)
    }

    /// Resumes a group that was paused in this process. Returns true if the group was paused.
    ///
    /// # Errors
    ///
    /// When this runtime has no handlers for the group, or the shutdown has begun.
    pub fn resume(&self, group: &str) -> Result<bool, ControlError> {
        self.set.set_paused(group, false)
    }

    /// Makes this process scan for idle entries of a group now instead of at its next interval, a third
    /// of a lease. Does not wait for the scan. For a paused group, the scan takes place when the pause
    /// is over.
    ///
    /// # Errors
    ///
    /// When this runtime has no handlers for the group, or the shutdown has begun.
    pub fn reap_now(&self, group: &str) -> Result<(), ControlError> {
        self.set.reap_now(group)
    }

    /// Like [`reap_now`](Self::reap_now), for one consumer of this process: it claims as many idle
    /// entries as it has free slots.
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
        concurrency: consumer.queues.iter().map(|queue| queue.slots.size()).sum(),
        paused: consumer.queues.iter().all(|queue| queue.pause.gate.is_shut()),
        in_flight: consumer.in_flight(),
        leaving: consumer.is_leaving(),
    }
}
