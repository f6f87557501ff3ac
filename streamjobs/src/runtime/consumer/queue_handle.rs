//! What a running consumer keeps of one of its queues: enough to steer the loops and to ask for
//! their state.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::runtime::observe::{HealthProbe, JobEvent, QueueContext};
use crate::runtime::state::{InFlight, ReaderUnblock, ReapSignal, Slots, StoppedConsumers};
use crate::runtime::upkeep::{CancelWatch, PauseSwitch};

/// One queue of a consumer, from outside its loops.
#[derive(Debug)]
pub(crate) struct QueueHandle {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) pause: Arc<PauseSwitch>,
    pub(crate) cancels: Arc<CancelWatch>,
    pub(crate) health: Arc<HealthProbe>,
    pub(crate) reap: Arc<ReapSignal>,
    pub(crate) unblock: Arc<ReaderUnblock>,
    pub(crate) stopped: Arc<StoppedConsumers>,
}

impl QueueHandle {
    /// Ends the reader's present wait on the server, so that the reader sees what has changed.
    pub(crate) async fn unblock_reader(&self) {
        self.unblock.unblock(self.context.store.as_ref(), self.context.config.block).await;
    }

    /// Changes how many jobs may be in flight.
    pub(crate) fn resize(&self, slots: usize) {
        self.slots.resize(slots);
        self.context.report.metrics.set_slots(slots);
    }

    /// Ends every lease at once. Other consumers claim the entries when their leases end.
    pub(crate) fn abandon_leases(&self, why: &'static str) {
        for hold in self.in_flight.fence(Instant::now(), Duration::ZERO) {
            self.context.report.job(hold, JobEvent::LeaseLost { why });
        }
    }

    /// Tells the server if a job has asked the whole group to wait.
    pub(crate) async fn tell_limit(&self) {
        let told = self.pause.starts.tell_limit().await.map(drop);
        let _logged = self.context.report.ok_or_report("let the group wait", told);
    }

    /// Removes the consumer from the group, if nothing is pending for it. Otherwise a heartbeat loop
    /// of this process removes it later.
    pub(crate) async fn remove_consumer(&self) {
        let (queue, consumer) = (self.context.queue(), self.context.consumer());
        match self.context.store.retire(queue, consumer).await {
            Ok(true) => self.stopped.remove(queue, consumer),
            Ok(false) => {}
            Err(error) => self.context.report.store_failed("remove this consumer", &error),
        }
    }
}
