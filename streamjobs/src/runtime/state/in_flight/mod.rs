//! Entries in flight in this process: each from its delivery until its verdict is carried out.

mod moves;
mod renewal;

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use foldhash::fast::FixedState;
use tokio::time::Instant;

use crate::handler::Lease;
use crate::insight::metrics::QueueMetrics;
use crate::model::block::{InBlock, WeakInBlock};
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
    /// Hashed without a random seed, so that a simulation runs the same way each time.
    entries: HashMap<(Inlet, EntryId), InFlightEntry, FixedState>,
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
    delivery: WeakInBlock<Delivery>,
    lease: InBlock<Lease>,
    /// When the last request that delivered or renewed the entry was sent.
    renewed_at: Instant,
    /// How often the group had been lost and recreated when the entry was delivered.
    epoch: u64,
    /// Whether the handler has ended and its verdict is being carried out.
    settling: bool,
    /// Whether the entry is not pending on the server any more, so that it is neither renewed nor fenced.
    untracked: bool,
    /// Why the job may be settled although its entry is not pending.
    stand_in: Option<StandIn>,
    /// Whether a renewal was sent: the server may have found the payload trimmed already.
    renewing: bool,
    /// Whether the answer to such a renewal was lost.
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

    /// The same consumer has the entry again. The running attempt continues with the new count, unless its lease is
    /// lost; in that case, the reaper claims the entry later.
    fn deliver_again(&mut self, hold: Hold, renewed_at: Instant, epoch: u64) {
        if self.lease.is_lost() {
            return;
        }
        self.lease.prove(renewed_at);
        self.delivery_count = hold.delivery_count;
        self.renewed_at = renewed_at;
        self.epoch = epoch;
        self.untracked = false;
        self.unanswered = false;
        self.stand_in = None;
    }

    fn was_trimmed(&self) -> bool {
        matches!(self.stand_in, Some(StandIn::DeadLetter(_)))
    }

    /// Whether the entry, which is not pending any more, was removed while this attempt had its job: no
    /// other attempt can have had it, and no renewal can have stored a dead letter for it.
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

    /// Begins to register the deliveries of requests that were sent at `renewed_at`.
    pub(crate) fn registration(&self, renewed_at: Instant, epoch: u64) -> Registration<'_> {
        Registration { inner: lock(&self.inner), of: self, renewed_at, epoch, added: 0 }
    }

    /// Records that the handler has ended. Returns the hold with its present delivery count, or `None` if
    /// the lease was lost.
    pub(crate) fn begin_settling(&self, hold: Hold) -> Option<Hold> {
        let mut inner = lock(&self.inner);
        let entry = inner.entries.get_mut(&key(hold))?;
        entry.settling = true;
        (!entry.lease.is_lost()).then_some(Hold { delivery_count: entry.delivery_count, ..hold })
    }

    /// Whether another consumer may have the entry: its lease is over, or the server does not know any more that it
    /// was delivered to this consumer.
    pub(crate) fn may_be_others(&self, inlet: Inlet, id: EntryId) -> bool {
        let inner = lock(&self.inner);
        let entry = inner.entries.get(&(inlet, id));
        entry.is_none_or(|entry| entry.untracked || entry.lease.is_over())
    }

    /// Why the job may be settled although its entry is not pending.
    pub(crate) fn stand_in(&self, hold: Hold) -> Option<StandIn> {
        lock(&self.inner).entries.get(&key(hold)).and_then(|entry| entry.stand_in)
    }

    /// Whether a renewal of the entry was sent and has not been answered.
    pub(crate) fn is_renewing(&self, hold: Hold) -> bool {
        lock(&self.inner).entries.get(&key(hold)).is_some_and(|entry| entry.renewing)
    }

    /// Records that the entry is not pending, and why its job may be settled all the same.
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

    /// Removes an attempt that ends without a verdict: its lease was lost, or its job cannot run here.
    pub(crate) fn abandon(&self, delivered: Hold) {
        let mut inner = lock(&self.inner);
        if let Some(entry) = inner.entries.remove(&key(delivered)) {
            inner.abandoned.insert(key(delivered), entry.delivery_count);
            self.metrics.remove_in_flight(1);
        }
    }

    /// Removes an entry that was released. Until a consumer claims the entry, it is pending for this consumer, with a
    /// delivery count that is lower by one.
    pub(crate) fn release(&self, hold: Hold) {
        let mut inner = lock(&self.inner);
        if inner.entries.remove(&key(hold)).is_some() {
            inner.abandoned.insert(key(hold), hold.delivery_count.saturating_sub(1));
            self.metrics.remove_in_flight(1);
        }
    }

    /// Of the entries that are pending for this consumer, returns those whose delivery did not arrive.
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

    /// Removes entries whose jobs were acknowledged. Returns the dead letters of their trimmed payloads.
    pub(crate) fn remove_acknowledged(
        &self,
        done: impl Iterator<Item = (Inlet, EntryId)>,
    ) -> Vec<EntryId> {
        let (mut removed, mut dead_letters) = (0, Vec::new());
        let mut inner = lock(&self.inner);
        for (inlet, id) in done {
            let Some(entry) = inner.entries.remove(&(inlet, id)) else { continue };
            removed += 1;
            if entry.renewing {
                inner.acknowledged.insert((inlet, id));
            }
            if let Some(StandIn::DeadLetter(dead_letter)) = entry.stand_in {
                dead_letters.push(dead_letter);
            }
        }
        drop(inner);
        self.metrics.remove_in_flight(removed);
        dead_letters
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.inner).entries.len()
    }

    /// Entries that were last renewed at least this long ago. With a limit over all processes, those whose payload was
    /// trimmed are among them: their renewal keeps the place of the job.
    pub(crate) fn due_for_renewal(
        &self,
        now: Instant,
        age: Duration,
        keeps_places: bool,
    ) -> Vec<Hold> {
        let inner = lock(&self.inner);
        let due = inner.entries.iter().filter(|(_, entry)| {
            (!entry.untracked || keeps_places && entry.was_trimmed())
                && !entry.lease.is_lost()
                && now.saturating_duration_since(entry.renewed_at) >= age
        });
        in_order(due.map(hold_of))
    }

    /// Entries of an inlet that are in flight here although other consumers may claim them by now.
    pub(crate) fn overdue(&self, inlet: Inlet, now: Instant, lease: Duration) -> Vec<EntryId> {
        let inner = lock(&self.inner);
        let overdue = inner.entries.iter().filter(|((of, _), entry)| {
            *of == inlet && now.saturating_duration_since(entry.renewed_at) >= lease
        });
        let mut overdue = overdue.map(|((_, id), _)| *id).collect::<Vec<_>>();
        overdue.sort_unstable();
        overdue
    }

    /// Ends the lease of every attempt that was not renewed for this long. Returns their holds.
    pub(crate) fn fence(&self, now: Instant, fence: Duration) -> Vec<Hold> {
        let mut fenced = Vec::new();
        for (key, entry) in &lock(&self.inner).entries {
            let overdue = now.saturating_duration_since(entry.renewed_at) >= fence;
            if overdue && !entry.untracked && !entry.settling && !entry.lease.is_lost() {
                entry.lease.lose();
                fenced.push(hold_of((key, entry)));
            }
        }
        in_order(fenced.into_iter())
    }

    /// Cancels the attempts at these entries that run or are about to run. Returns their holds.
    pub(crate) fn cancel(&self, is_cancelled: impl Fn(&Entry) -> bool) -> Vec<Hold> {
        let inner = lock(&self.inner);
        let running = inner.entries.iter().filter(|(_, entry)| {
            let delivery = entry.delivery.upgrade().filter(|_| !entry.settling);
            delivery.is_some_and(|delivery| is_cancelled(&delivery.entry)) && entry.lease.cancel()
        });
        in_order(running.map(hold_of))
    }

    /// Cancels every attempt.
    pub(crate) fn cut_off(&self) {
        for entry in lock(&self.inner).entries.values() {
            entry.lease.cut_off();
        }
    }

    /// Every entry in flight now.
    pub(crate) fn holds(&self) -> Vec<Hold> {
        in_order(lock(&self.inner).entries.iter().map(hold_of))
    }
}

/// The registration of deliveries. It has the table locked until it is dropped.
pub(crate) struct Registration<'a> {
    inner: MutexGuard<'a, Inner>,
    of: &'a InFlight,
    renewed_at: Instant,
    epoch: u64,
    added: usize,
}

impl Registration<'_> {
    pub(crate) fn add(
        &mut self,
        hold: Hold,
        delivery: WeakInBlock<Delivery>,
        lease: &InBlock<Lease>,
    ) -> Registered {
        let Self { renewed_at, epoch, .. } = *self;
        self.inner.abandoned.remove(key(hold));
        let vacant = match self.inner.entries.entry(key(hold)) {
            Slot::Vacant(vacant) => vacant,
            Slot::Occupied(present) => {
                present.into_mut().deliver_again(hold, renewed_at, epoch);
                return Registered::InFlight;
            }
        };
        vacant.insert(InFlightEntry {
            delivery_count: hold.delivery_count,
            delivery,
            lease: lease.clone(),
            renewed_at,
            epoch,
            settling: false,
            untracked: false,
            stand_in: None,
            renewing: false,
            unanswered: false,
        });
        self.added += 1;
        Registered::New
    }

    /// Removes an entry that was just added.
    pub(crate) fn take_back(&mut self, hold: Hold) {
        if self.inner.entries.remove(&key(hold)).is_some() {
            self.added -= 1;
        }
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.of.metrics.add_in_flight(self.added);
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

/// Holds in the order of inlets and entries, whatever the order of the table.
fn in_order(holds: impl Iterator<Item = Hold>) -> Vec<Hold> {
    let mut holds = holds.collect::<Vec<_>>();
    holds.sort_unstable_by_key(|hold| key(*hold));
    holds
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

    pub(super) fn table() -> (InFlight, InBlock<Lease>, Instant) {
        let (stream, group) = (StreamName::new("orders"), GroupName::new("work"));
        let in_flight =
            InFlight::new(Arc::new(QueueMetrics::new(&stream.unwrap(), &group.unwrap(), None)));
        let now = Instant::now();
        let lease = InBlock::alone(Lease::since(now, LEASE, LEASE));
        assert_eq!(
            in_flight.registration(now, 0).add(hold(1), WeakInBlock::gone(), &lease),
            Registered::New
        );
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
        let lease = InBlock::alone(Lease::since(now, LEASE, LEASE));
        assert_eq!(
            in_flight.registration(now, 0).add(hold(2), WeakInBlock::gone(), &lease),
            Registered::New
        );
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
        let other = InBlock::alone(Lease::since(now, LEASE, LEASE));
        assert_eq!(
            in_flight.registration(now, 0).add(hold(2), WeakInBlock::gone(), &other),
            Registered::InFlight
        );
        assert_eq!(in_flight.begin_settling(hold(1)), Some(hold(2)));
    }
}
