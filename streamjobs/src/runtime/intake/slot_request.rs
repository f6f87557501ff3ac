//! How the reaper gets slots from a busy reader.

use std::sync::Arc;

use tokio::time::sleep;

use crate::runtime::observe::queue_context::QueueContext;
use crate::runtime::state::reader_unblock::ReaderUnblock;
use crate::runtime::state::signals::SlotDemand;
use crate::runtime::state::slots::{Slot, Slots};

/// Takes slots for claims.
#[derive(Debug)]
pub(crate) struct SlotRequest {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) demand: Arc<SlotDemand>,
    pub(crate) unblock: Arc<ReaderUnblock>,
}

impl SlotRequest {
    /// Takes free slots; none if the reader has released none within a third of the lease.
    ///
    /// A reader that waits on the server has all free slots, so its wait is ended. A caller that
    /// queues for a slot before the reader asks again gets it first.
    pub(crate) async fn take(&self) -> Vec<Slot> {
        let config = &self.context.config;
        let limit = config.lease / 3;
        let unblocked = async {
            self.unblock.unblock(self.context.store.as_ref(), limit).await;
            // The reader has released its slots by now, or is busy with what it read.
            sleep(config.block.min(limit)).await;
        };
        self.demand.set(self.slots.size().div_ceil(DEMAND_SHARE));
        let first = tokio::select! {
            biased;
            slot = self.slots.take() => slot,
            () = unblocked => None,
        };
        self.demand.set(0);
        let mut slots = Vec::from_iter(first);
        if !slots.is_empty() {
            slots.extend(self.slots.take_free(CLAIMS_MAX - 1));
        }
        slots
    }
}

/// One step claims at most this many entries, payloads included: a short pause for the server.
const CLAIMS_MAX: usize = 100;
/// Under load the reaper demands this part of all slots.
const DEMAND_SHARE: usize = 8;
