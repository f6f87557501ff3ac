//! Admits deliveries: registers them as in flight and passes them on to the dispatcher.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::handler::Lease;
use crate::model::block::InBlock;
use crate::model::entry::{Delivery, Inlet};
use crate::runtime::observe::{JobEvent, QueueContext, QueueEvent};
use crate::runtime::state::{
    Acks, Activity, Assignment, GroupEpoch, InFlight, NextDue, Registered, RenewSignal, Slot,
    StartGate, TakenStarts,
};
use crate::store::StoreError;

/// Where every delivery enters this process, whether it was read, recovered or claimed.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) context: Arc<QueueContext>,
    /// Asked before entries are read, recovered or claimed, because each delivery starts a job.
    pub(crate) starts: Arc<StartGate>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) next_due: Arc<NextDue>,
    pub(crate) epoch: Arc<GroupEpoch>,
    pub(crate) renew: Arc<RenewSignal>,
    pub(crate) acks: Arc<Acks>,
    pub(crate) assignments: mpsc::Sender<Vec<Assignment>>,
}

impl Admission {
    /// Admits deliveries and frees the slots that are left. `sent` is when the request that brought them was sent, so
    /// no delivery is older.
    pub(crate) async fn admit(&self, deliveries: Vec<Delivery>, slots: Vec<Slot>, sent: Instant) {
        if deliveries.is_empty() {
            return;
        }
        self.report(deliveries.len());
        let assignments = self.register(deliveries, slots, sent);
        if sent.elapsed() >= self.context.config.renewal_age() {
            self.renew.request();
        }
        // The dispatcher outlives every sender. If it is gone, so is the whole runtime.
        let _gone = self.assignments.send(assignments).await.is_err();
    }

    /// Gives starts back that were taken for a step that failed, unless it may have brought entries all the same.
    pub(crate) async fn give_back_after(
        &self,
        error: &StoreError,
        taken: Option<TakenStarts>,
        inlet: Inlet,
    ) {
        if let Some(taken) = taken.filter(|_| !error.is_unconfirmed()) {
            self.give_back(taken, taken.count, inlet).await;
        }
    }

    /// Gives starts back that were not used: those for the lane to this process, which looks into the stream
    /// next, and those for the stream to all. If the answer to that is lost, they may be lost.
    pub(crate) async fn give_back(&self, taken: TakenStarts, unused: usize, inlet: Inlet) {
        if unused == 0 || !self.starts.put_back(taken, unused) || inlet.is_lane() {
            return;
        }
        if let Err(error) = self.starts.give_all_back().await {
            self.context.report.store_failed("give starts back", &error);
        }
    }

    fn report(&self, entries: usize) {
        self.context.report.queue(QueueEvent::Delivered(entries));
        if self.activity.mark_active(Instant::now()) {
            // An idle group is promoted less often; now it is not idle any more.
            self.next_due.note(Duration::ZERO);
        }
    }

    /// Registers deliveries. An entry that is in flight here already, or was done since it was claimed,
    /// is not run a second time.
    fn register(
        &self,
        deliveries: Vec<Delivery>,
        mut slots: Vec<Slot>,
        sent: Instant,
    ) -> Vec<Assignment> {
        let config = &self.context.config;
        let (window, fence) = (config.window(), config.fence());
        let (mut assignments, mut again) = (Vec::with_capacity(deliveries.len()), Vec::new());
        let mut registration = self.in_flight.registration(sent, self.epoch.current());
        let blocks = InBlock::in_blocks(deliveries, |delivery: &Delivery| delivery.entry.bytes());
        let with_leases = blocks.flat_map(|block| {
            let leases = InBlock::block(block.len(), || Lease::since(sent, window, fence));
            block.into_iter().zip(leases)
        });
        for (delivery, lease) in with_leases {
            let hold = delivery.hold();
            // A job that is done is noted before it leaves the table, which is locked here.
            if self.acks.during_claim.contains(hold) {
                continue;
            }
            match registration.add(hold, delivery.downgrade(), &lease) {
                Registered::InFlight => again.push(hold),
                Registered::New => match slots.pop() {
                    Some(mut slot) => {
                        slot.start();
                        assignments.push(Assignment { delivery, lease, slot });
                    }
                    // More came than was requested. The entry stays pending, is not renewed, and is
                    // claimed when its lease ends.
                    None => registration.take_back(hold),
                },
            }
        }
        drop(registration);
        for hold in again {
            self.context.report.job(hold, JobEvent::DeliveredAgain);
        }
        assignments
    }
}
