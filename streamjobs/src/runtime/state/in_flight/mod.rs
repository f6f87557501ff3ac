//! Entries in flight in this process: each from its delivery until its verdict is carried out.

mod moves;
mod renewal;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::handler::Lease;
use crate::insight::metrics::QueueMetrics;
use crate::model::entry::{Delivery, Entry, EntryId, Hold, Inlet};
use crate::runtime::state::{AbandonedAttempts, lock};
use crate::store::StandIn;

use self::moves::Moves;
pub(crate) use self::renewal::Renewal;

/// The table of entries in flight. Its lock is never held across an await.
#[derive(Debug)]
pub(crate) struct InFlight {
    inner: Mutex<Inner>,
    metrics: Arc<QueueMetrics>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeMap<(Inlet, EntryId), InFlightEntry>,
    /// Entries whose job was acknowledged during their renewal. If the server found a payload
    /// trimmed first, its answer names a dead letter that has to be deleted.
    acknowledged: BTreeSet<(Inlet, EntryId)>,
    abandoned: AbandonedAttempts,
    moves: Moves,
}

#[derive(Debug)]
struct InFlightEntry {
    delivery_count: u64,
    /// What was delivered, for as long as the attempt has it.
    delivery: Weak<Delivery>,
    lease: Arc<Lease>,
    /// When the last request was sent that delivered the entry or renewed it.
    renewed_at: Instant,
    /// How often the group had been lost and recreated when the entry was delivered.
    epoch: u64,
    /// The handler has ended, and its verdict is being carried out.
    settling: bool,
    /// The entry is not pending on the server any more; it is neither renewed nor fenced.
    untracked: bool,
    /// Why the job may be settled although its entry is not pending.
    stand_in: Option<StandIn>,
    /// A renewal was sent: the server may have found the payload trimmed already.
    renewing: bool,
    /// The answer to such a renewal was lost.
    unanswered: bool,
}

impl InFlightEntry {
    fn set_untracked(&mut self) {
        self.untracked = true;
        self.lease.set_untracked();
    }

    fn stand_for(&mut self, stand_in: StandIn) {
        self.set_untracked();
        self.stand_in = Some(stand_in);
    }

    /// Whether the entry, which is not pending any more, was removed while its job was ours: no other
    /// attempt can have had it, and no renewal can have stored a dead letter for it.
    fn was_removed(&self, epoch: u64, moves: &Moves) -> bool {
        let tracked = !self.untracked && !self.unanswered && self.epoch == epoch;
        tracked && !self.lease.is_over() && moves.none_since(self.renewed_at)
    }
}

/// What registering a delivery found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    /// The entry was not in flight here.
    New,
    /// The entry is in flight here, with this delivery count from now on.
    InFlight,
}

impl InFlight {
    pub(crate) fn new(metrics: Arc<QueueMetrics>) -> Self {
        Self { inner: Mutex::default(), metrics }
    }

    pub(crate) fn register(
        &self,
        hold: Hold,
        delivery: Weak<Delivery>,
        lease: &Arc<Lease>,
        renewed_at: Instant,
        epoch: u64,
    ) -> Registered {
        let inner = &mut *lock(&self.inner);
        inner.abandoned.remove(key(hold));
        let entries = &mut inner.entries;
        if let Some(entry) = entries.get_mut(&key(hold)) {
            // The same consumer has the entry again. The running attempt goes on under the new
            // count, unless its lease is lost: then the reaper claims the entry later.
            if !entry.lease.is_lost() {
                entry.lease.prove(renewed_at);
                entry.delivery_count = hold.delivery_count;
                entry.renewed_at = renewed_at;
                entry.epoch = epoch;
                entry.untracked = false;
                entry.unanswered = false;
                entry.stand_in = None;
            }
            return Registered::InFlight;
        }
        lease.prove(renewed_at);
        let entry = InFlightEntry {
            delivery_count: hold.delivery_count,
            delivery,
            lease: Arc::clone(lease),
            renewed_at,
            epoch,
            settling: false,
            untracked: false,
            stand_in: None,
            renewing: false,
            unanswered: false,
        };
        entries.insert(key(hold), entry);
        self.metrics.add_in_flight();
        Registered::New
    }

    /// The handler has ended: the hold under its present delivery count, or none when the lease was
    /// lost.
    pub(crate) fn begin_settling(&self, hold: Hold) -> Option<Hold> {
        let mut inner = lock(&self.inner);
        let entry = inner.entries.get_mut(&key(hold))?;
        entry.settling = true;
        (!entry.lease.is_lost()).then_some(Hold { delivery_count: entry.delivery_count, ..hold })
    }

    /// Why the job may be settled although its entry is not pending.
    pub(crate) fn stand_in(&self, hold: Hold) -> Option<StandIn> {
        lock(&self.inner).entries.get(&key(hold)).and_then(|entry| entry.stand_in)
    }

    /// Whether a renewal of the entry was sent and is not answered.
    pub(crate) fn is_renewing(&self, hold: Hold) -> bool {
        lock(&self.inner).entries.get(&key(hold)).is_some_and(|entry| entry.renewing)
    }

    /// The entry is not pending, and this is why its job may be settled.
    pub(crate) fn stand_for(&self, hold: Hold, stand_in: StandIn) {
        if let Some(entry) = lock(&self.inner).entries.get_mut(&key(hold)) {
            entry.stand_for(stand_in);
        }
    }

    /// Removes an entry whose verdict was carried out.
    pub(crate) fn remove(&self, inlet: Inlet, id: EntryId) {
        if lock(&self.inner).entries.remove(&(inlet, id)).is_some() {
            self.metrics.remove_in_flight(1);
        }
    }

    /// Removes an attempt that ends without a verdict: its lease was lost, or it cannot run here.
    pub(crate) fn abandon(&self, delivered: Hold) {
        let mut inner = lock(&self.inner);
        if let Some(entry) = inner.entries.remove(&key(delivered)) {
            inner.abandoned.insert(key(delivered), entry.delivery_count);
            self.metrics.remove_in_flight(1);
        }
    }

    /// Removes an entry that was released. Until a consumer claims it, it is pending for this one
    /// with one delivery less.
    pub(crate) fn release(&self, hold: Hold) {
        let mut inner = lock(&self.inner);
        if inner.entries.remove(&key(hold)).is_some() {
            inner.abandoned.insert(key(hold), hold.delivery_count.saturating_sub(1));
            self.metrics.remove_in_flight(1);
        }
    }

    /// Of entries that are pending for this consumer, those whose delivery did not arrive.
    pub(crate) fn lost_deliveries(&self, pending: Vec<Hold>) -> Vec<Hold> {
        let inner = lock(&self.inner);
        let arrived = |hold: &Hold| {
            inner.entries.contains_key(&key(*hold))
                || inner.abandoned.contains(key(*hold), hold.delivery_count)
        };
        pending.into_iter().filter(|hold| !arrived(hold)).collect()
    }

    /// Forgets abandoned attempts of an inlet whose entries are not pending any more.
    pub(crate) fn forget_abandoned(&self, inlet: Inlet, pending: &BTreeSet<EntryId>) {
        lock(&self.inner).abandoned.retain(|(of, id)| of != inlet || pending.contains(&id));
    }

    /// Whether there are so many abandoned attempts that it is time to
    /// [forget](Self::forget_abandoned) those whose entries have gone to other consumers.
    pub(crate) fn is_crowded(&self) -> bool {
        lock(&self.inner).abandoned.is_crowded()
    }

    /// Removes an entry whose job was acknowledged: the dead letter of its trimmed payload, if any.
    pub(crate) fn remove_acknowledged(&self, inlet: Inlet, id: EntryId) -> Option<EntryId> {
        let mut inner = lock(&self.inner);
        let entry = inner.entries.remove(&(inlet, id))?;
        self.metrics.remove_in_flight(1);
        if entry.renewing {
            inner.acknowledged.insert((inlet, id));
        }
        match entry.stand_in {
            Some(StandIn::DeadLetter(dead_letter)) => Some(dead_letter),
            Some(StandIn::Removed) | None => None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.inner).entries.len()
    }

    /// Entries that were last renewed at least this long ago.
    pub(crate) fn due_for_renewal(&self, now: Instant, age: Duration) -> Vec<Hold> {
        let inner = lock(&self.inner);
        let due = inner.entries.iter().filter(|(_, entry)| {
            !entry.untracked
                && !entry.lease.is_lost()
                && now.saturating_duration_since(entry.renewed_at) >= age
        });
        due.map(hold_of).collect()
    }

    /// Entries of an inlet that are in flight here although others may claim them by now.
    pub(crate) fn overdue(&self, inlet: Inlet, now: Instant, lease: Duration) -> Vec<EntryId> {
        let inner = lock(&self.inner);
        let overdue = inner.entries.iter().filter(|((of, _), entry)| {
            *of == inlet && now.saturating_duration_since(entry.renewed_at) >= lease
        });
        overdue.map(|((_, id), _)| *id).collect()
    }

    /// Ends the lease of every attempt that was not renewed for this long: their holds.
    pub(crate) fn fence(&self, now: Instant, fence: Duration) -> Vec<Hold> {
        let mut fenced = Vec::new();
        for (key, entry) in &lock(&self.inner).entries {
            let overdue = now.saturating_duration_since(entry.renewed_at) >= fence;
            if overdue && !entry.untracked && !entry.settling && !entry.lease.is_lost() {
                entry.lease.lose();
                fenced.push(hold_of((key, entry)));
            }
        }
        fenced
    }

    /// Cancels the attempts at these entries that run, or are about to: their holds.
    pub(crate) fn cancel(&self, is_cancelled: impl Fn(&Entry) -> bool) -> Vec<Hold> {
        let inner = lock(&self.inner);
        let running = inner.entries.iter().filter(|(_, entry)| {
            let delivery = entry.delivery.upgrade().filter(|_| !entry.settling);
            delivery.is_some_and(|delivery| is_cancelled(&delivery.entry)) && entry.lease.cancel()
        });
        running.map(hold_of).collect()
    }

    /// Cancels every attempt.
    pub(crate) fn cut_off(&self) {
        for entry in lock(&self.inner).entries.values() {
            entry.lease.cut_off();
        }
    }

    /// Every entry in flight now.
    pub(crate) fn holds(&self) -> Vec<Hold> {
        lock(&self.inner).entries.iter().map(hold_of).collect()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.metrics.remove_in_flight(self.len());
    }
}

fn key(hold: Hold) -> (Inlet, EntryId) {
    (hold.inlet, hold.id)
}

fn hold_of((&(inlet, id), entry): (&(Inlet, EntryId), &InFlightEntry)) -> Hold {
    Hold { inlet, id, delivery_count: entry.delivery_count }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::{GroupName, StreamName};

    pub(super) const LEASE: Duration = Duration::from_secs(10);

    pub(super) fn hold(count: u64) -> Hold {
        Hold { inlet: Inlet::STREAM, id: EntryId::new(1, 0), delivery_count: count }
    }

    pub(super) fn table() -> (InFlight, Arc<Lease>, Instant) {
        let (stream, group) = (StreamName::new("orders"), GroupName::new("work"));
        let in_flight =
            InFlight::new(Arc::new(QueueMetrics::new(&stream.unwrap(), &group.unwrap(), None)));
        let (lease, now) = (Arc::new(Lease::new(LEASE, LEASE)), Instant::now());
        assert_eq!(in_flight.register(hold(1), Weak::new(), &lease, now, 0), Registered::New);
        (in_flight, lease, now)
    }

    #[test]
    fn an_abandoned_attempt_is_no_lost_delivery() {
        let (in_flight, lease, now) = table();
        lease.lose();
        in_flight.abandon(hold(1));
        assert!(in_flight.lost_deliveries(vec![hold(1)]).is_empty(), "it ran under this token");
        assert_eq!(in_flight.lost_deliveries(vec![hold(2)]), [hold(2)], "it did not arrive");
        in_flight.forget_abandoned(Inlet::STREAM, &BTreeSet::from([hold(1).id]));
        assert!(in_flight.lost_deliveries(vec![hold(1)]).is_empty(), "while it is pending");
        let lease = Arc::new(Lease::new(LEASE, LEASE));
        assert_eq!(in_flight.register(hold(2), Weak::new(), &lease, now, 0), Registered::New);
        in_flight.remove(Inlet::STREAM, hold(2).id);
        assert_eq!(in_flight.lost_deliveries(vec![hold(2)]), [hold(2)]);
    }

    #[test]
    fn an_entry_that_was_released_is_no_lost_delivery() {
        let (in_flight, _lease, _now) = table();
        in_flight.release(hold(1));
        assert!(in_flight.lost_deliveries(vec![hold(0)]).is_empty(), "other consumers claim it");
        assert_eq!(in_flight.len(), 0);
    }

    #[test]
    fn an_entry_in_flight_is_adopted_under_its_new_count_and_not_run_twice() {
        let (in_flight, _lease, now) = table();
        let other = Arc::new(Lease::new(LEASE, LEASE));
        assert_eq!(in_flight.register(hold(2), Weak::new(), &other, now, 0), Registered::InFlight);
        assert_eq!(in_flight.begin_settling(hold(1)), Some(hold(2)));
    }
}
