//! Recovers deliveries that were lost on their way: pending for this consumer, unknown here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::model::entry::{EntryId, Hold, Inlet};
use crate::runtime::intake::{Admission, BATCH_MAX, BatchSizer};
use crate::runtime::observe::QueueContext;
use crate::runtime::state::{InFlight, LostReplies, Slot, Slots, StartsFor, TransferLock};
use crate::store::StoreError;

/// Compares the consumer's pending list with what is in flight here.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) lost_replies: Arc<LostReplies>,
    pub(crate) transfer: Arc<TransferLock>,
}

impl Recovery {
    /// Whether an answer was lost since the last call, or so many attempts were abandoned that
    /// those whose entries went to other consumers have to be forgotten.
    pub(crate) fn is_due(&self) -> bool {
        self.lost_replies.are_suspected() || self.in_flight.is_crowded()
    }

    /// Delivers again, uncounted, what is pending for this consumer and not in flight here. When
    /// the recovery fails, it is due again.
    pub(crate) async fn run(&self, batch: &mut BatchSizer) -> Result<(), StoreError> {
        self.lost_replies.take();
        let recovered = self.recover(batch).await;
        recovered.inspect_err(|_| self.lost_replies.suspect())
    }

    async fn recover(&self, batch: &mut BatchSizer) -> Result<(), StoreError> {
        let (queue, consumer) = (self.context.queue(), self.context.consumer());
        // Before claims are locked out: they may have all free slots, and wait for the lock with them.
        let mut slots = self.turn().await;
        let _transfer = self.transfer.lock().await;
        for inlet in [Inlet::STREAM, Inlet::LANE] {
            let mut cursor = EntryId::ZERO;
            let mut pending = BTreeSet::new();
            loop {
                let store = &self.context.store;
                let own = store.own_pending(queue, consumer, inlet, cursor, BATCH_MAX).await?;
                let Some(last) = own.last() else { break };
                cursor = last.id;
                pending.extend(own.iter().map(|hold| hold.id));
                let lost = self.in_flight.lost_deliveries(own);
                self.deliver(&lost, &mut slots, batch).await?;
            }
            self.in_flight.forget_abandoned(inlet, &pending);
        }
        Ok(())
    }

    /// Of a set there may never be free slots while others wait, so this queue waits for its turn as well.
    async fn turn(&self) -> Vec<Slot> {
        if !self.slots.are_of_set() {
            return Vec::new();
        }
        let turn = timeout(TURN_WAIT, self.slots.take_for_reading(BATCH_MAX)).await;
        turn.unwrap_or_default()
    }

    /// Delivers as many of them as there are slots. If the slots are those of a set, the others are recovered after
    /// the next read. Otherwise they are claimed when their lease ends.
    async fn deliver(
        &self,
        lost: &[Hold],
        reserved: &mut Vec<Slot>,
        batch: &mut BatchSizer,
    ) -> Result<(), StoreError> {
        let mut rest = lost;
        while !rest.is_empty() {
            let wanted = batch.ask(rest.len());
            let mut slots = reserved.drain(..wanted.min(reserved.len())).collect::<Vec<_>>();
            slots.append(&mut self.slots.take_free(wanted - slots.len()));
            if slots.is_empty() && self.slots.are_of_set() {
                self.lost_replies.suspect();
            }
            let (starts, mut started) = (&self.admission.starts, None);
            if starts.applies() && !slots.is_empty() {
                // What is left is recovered with the next start, or claimed when its lease ends.
                let taken = starts.take(slots.len(), StartsFor::Claim).await?;
                if taken.count < slots.len() {
                    self.lost_replies.suspect();
                    slots.truncate(taken.count);
                }
                started = Some(taken).filter(|taken| taken.count > 0);
            }
            let Some((page, others)) = rest.split_at_checked(slots.len()) else { break };
            let Some(inlet) = page.first().map(|hold| hold.inlet) else { break };
            rest = others;
            let sent = Instant::now();
            let recovered = self.context.recover(page).await;
            if let Err(error) = &recovered {
                self.admission.give_back_after(error, started, inlet).await;
            }
            let deliveries = recovered?;
            let came = deliveries.len();
            batch.arrived(&deliveries);
            self.admission.admit(deliveries, slots, sent).await;
            if let Some(taken) = started {
                self.admission.give_back(taken, taken.count.saturating_sub(came), inlet).await;
            }
        }
        Ok(())
    }
}

/// The queue does not read meanwhile.
const TURN_WAIT: Duration = Duration::from_millis(500);
