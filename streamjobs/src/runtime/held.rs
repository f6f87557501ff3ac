//! What this process holds: every entry between its delivery and its verdict's end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::handler::Lease;
use crate::insight::metrics::QueueMetrics;
use crate::model::entry::{EntryId, Hold, Inlet};
use crate::runtime::given_up::GivenUp;
use crate::store::FenceResult;

/// The registry of held entries. Its lock is never held across an await.
#[derive(Debug)]
pub(crate) struct Held {
    inner: Mutex<Inner>,
    metrics: Arc<QueueMetrics>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeMap<(Inlet, EntryId), HeldEntry>,
    /// Entries whose job was acknowledged while their renewal was on its way. The server may have
    /// found their payload gone first, and then its answer names a dead letter that has to go.
    acknowledged: BTreeSet<(Inlet, EntryId)>,
    given_up: GivenUp,
}

#[derive(Debug)]
struct HeldEntry {
    delivery_count: u64,
    lease: Arc<Lease>,
    /// When the request was sent that last proved the lease.
    sign: Instant,
    /// How often the group had been lost and made again when the entry was delivered.
    epoch: u64,
    /// The handler has ended, and its verdict is on the way.
    settling: bool,
    /// The server knows nothing of the entry any more; it is neither renewed nor fenced.
    adrift: bool,
    /// The dead letter that says that the payload was trimmed.
    letter: Option<EntryId>,
    /// A renewal is on its way: the server may have found the payload gone already.
    renewing: bool,
}

impl HeldEntry {
    fn set_adrift(&mut self) {
        self.adrift = true;
        self.lease.set_untracked();
    }
}

/// What registering a delivery found. Closed on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    /// Nothing here was working on the entry.
    New,
    /// The entry is in flight here, under this delivery count from now on.
    InFlight,
}

/// What an answer to a renewal means for the entry. Closed on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    Fine,
    Lost,
    Trimmed(EntryId),
    /// The job is done, so the dead letter that says its payload was trimmed has to go.
    Needless(EntryId),
}

impl Held {
    pub(crate) fn new(metrics: Arc<QueueMetrics>) -> Self {
        Self { inner: Mutex::default(), metrics }
    }

    pub(crate) fn register(
        &self,
        hold: Hold,
        lease: &Arc<Lease>,
        sign: Instant,
        epoch: u64,
    ) -> Registered {
        let inner = &mut *self.lock();
        inner.given_up.remove(key(hold));
        let entries = &mut inner.entries;
        if let Some(entry) = entries.get_mut(&key(hold)) {
            // The same consumer has the entry again: the attempt that runs goes on under the new
            // count, unless it was told to stop, in which case a later sweep finds the entry.
            if !entry.lease.is_lost() {
                let delivery_count = hold.delivery_count;
                entry.lease.prove(sign);
                *entry = HeldEntry { delivery_count, sign, epoch, adrift: false, ..take(entry) };
            }
            return Registered::InFlight;
        }
        let lease = Arc::clone(lease);
        lease.prove(sign);
        let delivery_count = hold.delivery_count;
        let entry = HeldEntry {
            delivery_count,
            lease,
            sign,
            epoch,
            settling: false,
            adrift: false,
            letter: None,
            renewing: false,
        };
        entries.insert(key(hold), entry);
        self.metrics.add_in_flight();
        Registered::New
    }

    /// Marks that the handler has ended: the hold under its present delivery count, or none when
    /// the lease was lost.
    pub(crate) fn begin_settling(&self, hold: Hold) -> Option<Hold> {
        let mut inner = self.lock();
        let entry = inner.entries.get_mut(&key(hold))?;
        entry.settling = true;
        (!entry.lease.is_lost()).then_some(Hold { delivery_count: entry.delivery_count, ..hold })
    }

    /// The dead letter that stands for an entry whose payload was found gone.
    pub(crate) fn letter(&self, hold: Hold) -> Option<EntryId> {
        self.lock().entries.get(&key(hold)).and_then(|entry| entry.letter)
    }

    /// Whether a renewal of the entry is on its way.
    pub(crate) fn is_renewing(&self, hold: Hold) -> bool {
        self.lock().entries.get(&key(hold)).is_some_and(|entry| entry.renewing)
    }

    /// The payload was found gone, which a dead letter says.
    pub(crate) fn note_trimmed(&self, hold: Hold, letter: EntryId) {
        if let Some(entry) = self.lock().entries.get_mut(&key(hold)) {
            entry.set_adrift();
            entry.letter = Some(letter);
        }
    }

    /// Forgets an entry.
    pub(crate) fn remove(&self, inlet: Inlet, id: EntryId) {
        if self.lock().entries.remove(&(inlet, id)).is_some() {
            self.metrics.remove_in_flight(1);
        }
    }

    /// Gives an attempt up that lost its lease, or that nobody here can carry out.
    pub(crate) fn leave(&self, delivered: Hold) {
        let mut inner = self.lock();
        if let Some(entry) = inner.entries.remove(&key(delivered)) {
            inner.given_up.insert(key(delivered), entry.delivery_count);
            self.metrics.remove_in_flight(1);
        }
    }

    /// Forgets an entry that was handed back. Until somebody claims it, it is pending for this
    /// consumer with one delivery less.
    pub(crate) fn release(&self, hold: Hold) {
        let mut inner = self.lock();
        if inner.entries.remove(&key(hold)).is_some() {
            inner.given_up.insert(key(hold), hold.delivery_count.saturating_sub(1));
            self.metrics.remove_in_flight(1);
        }
    }

    /// Of entries that are pending for this consumer, those whose delivery never arrived.
    pub(crate) fn lost(&self, pending: Vec<Hold>) -> Vec<Hold> {
        let inner = self.lock();
        let arrived = |hold: &Hold| {
            inner.entries.contains_key(&key(*hold))
                || inner.given_up.contains(key(*hold), hold.delivery_count)
        };
        pending.into_iter().filter(|hold| !arrived(hold)).collect()
    }

    /// Forgets attempts of an inlet that were given up, unless their entries are pending still.
    pub(crate) fn forget_left(&self, inlet: Inlet, pending: &BTreeSet<EntryId>) {
        self.lock().given_up.retain(|(of, id)| of != inlet || pending.contains(&id));
    }

    /// Whether so many attempts have been given up that it is time to see which to forget: most
    /// entries have gone to others since.
    pub(crate) fn is_crowded(&self) -> bool {
        self.lock().given_up.is_crowded()
    }

    /// Forgets an entry whose job was acknowledged: the dead letter that its trimming left, if any.
    pub(crate) fn remove_acknowledged(&self, inlet: Inlet, id: EntryId) -> Option<EntryId> {
        let mut inner = self.lock();
        let entry = inner.entries.remove(&(inlet, id))?;
        self.metrics.remove_in_flight(1);
        if entry.renewing {
            inner.acknowledged.insert((inlet, id));
        }
        entry.letter
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Entries whose last sign is at least this old.
    pub(crate) fn due(&self, now: Instant, age: Duration) -> Vec<Hold> {
        let inner = self.lock();
        let due = inner.entries.iter().filter(|(_, entry)| {
            !entry.adrift
                && !entry.lease.is_lost()
                && now.saturating_duration_since(entry.sign) >= age
        });
        due.map(|((inlet, id), entry)| Hold {
            inlet: *inlet,
            id: *id,
            delivery_count: entry.delivery_count,
        })
        .collect()
    }

    /// Entries of an inlet that others may take for abandoned, although they are in flight here.
    pub(crate) fn silent(&self, inlet: Inlet, now: Instant, lease: Duration) -> Vec<EntryId> {
        let inner = self.lock();
        let silent = inner.entries.iter().filter(|((of, _), entry)| {
            *of == inlet && now.saturating_duration_since(entry.sign) >= lease
        });
        silent.map(|((_, id), _)| *id).collect()
    }

    /// Tells every attempt whose last sign is too old that its lease is lost.
    pub(crate) fn fence(&self, now: Instant, fence: Duration) -> Vec<Hold> {
        let mut fenced = Vec::new();
        for ((inlet, id), entry) in &self.lock().entries {
            let silent = now.saturating_duration_since(entry.sign) >= fence;
            if silent && !entry.adrift && !entry.settling && !entry.lease.is_lost() {
                entry.lease.lose();
                fenced.push(Hold { inlet: *inlet, id: *id, delivery_count: entry.delivery_count });
            }
        }
        fenced
    }

    /// A renewal is about to be sent.
    pub(crate) fn begin_renewing(&self, holds: &[Hold]) {
        let entries = &mut self.lock().entries;
        for hold in holds {
            if let Some(entry) = entries.get_mut(&key(*hold)) {
                entry.renewing = true;
            }
        }
    }

    /// A renewal will not be answered any more.
    pub(crate) fn renewal_failed(&self, holds: &[Hold]) {
        let mut inner = self.lock();
        for hold in holds {
            inner.acknowledged.remove(&key(*hold));
            if let Some(entry) = inner.entries.get_mut(&key(*hold)) {
                entry.renewing = false;
            }
        }
    }

    /// Takes the answer to a renewal that was sent at `sent`.
    pub(crate) fn renewed(
        &self,
        hold: Hold,
        answer: FenceResult,
        sent: Instant,
        epoch: u64,
    ) -> Renewal {
        let mut inner = self.lock();
        let acknowledged = inner.acknowledged.remove(&key(hold));
        let Some(entry) = inner.entries.get_mut(&key(hold)) else {
            return match answer {
                FenceResult::Trimmed(letter) if acknowledged => Renewal::Needless(letter),
                _ => Renewal::Fine,
            };
        };
        entry.renewing = false;
        if entry.delivery_count != hold.delivery_count {
            // Delivered to us again while the renewal was on its way.
            return Renewal::Fine;
        }
        match answer {
            FenceResult::Owned => {
                entry.sign = entry.sign.max(sent);
                entry.lease.prove(entry.sign);
                Renewal::Fine
            }
            FenceResult::Trimmed(letter) => {
                entry.set_adrift();
                entry.letter = Some(letter);
                Renewal::Trimmed(letter)
            }
            // The acknowledgement of an attempt that has ended may have been quicker.
            FenceResult::NotPending | FenceResult::TakenOver if entry.settling => Renewal::Fine,
            // The group was lost under a running handler, which had better finish.
            FenceResult::NotPending if entry.epoch != epoch => {
                entry.set_adrift();
                Renewal::Fine
            }
            FenceResult::NotPending | FenceResult::TakenOver => {
                entry.lease.lose();
                Renewal::Lost
            }
        }
    }

    /// Tells every attempt that its time is over.
    pub(crate) fn cut_off(&self) {
        for entry in self.lock().entries.values() {
            entry.lease.cut_off();
        }
    }

    /// What is held now.
    pub(crate) fn holds(&self) -> Vec<Hold> {
        let inner = self.lock();
        let hold = |(&(inlet, id), entry): (&(Inlet, EntryId), &HeldEntry)| Hold {
            inlet,
            id,
            delivery_count: entry.delivery_count,
        };
        inner.entries.iter().map(hold).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.metrics.remove_in_flight(self.len());
    }
}

fn key(hold: Hold) -> (Inlet, EntryId) {
    (hold.inlet, hold.id)
}

/// The parts of an entry that a new delivery does not change.
fn take(entry: &HeldEntry) -> HeldEntry {
    HeldEntry { lease: Arc::clone(&entry.lease), ..*entry }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::{GroupName, StreamName};

    const LEASE: Duration = Duration::from_secs(10);

    fn hold(count: u64) -> Hold {
        Hold { inlet: Inlet::STREAM, id: EntryId::new(1, 0), delivery_count: count }
    }

    fn held() -> (Held, Arc<Lease>, Instant) {
        let (stream, group) = (StreamName::new("orders"), GroupName::new("work"));
        let held = Held::new(Arc::new(QueueMetrics::new(&stream.unwrap(), &group.unwrap())));
        let (lease, now) = (Arc::new(Lease::new(LEASE, LEASE)), Instant::now());
        assert_eq!(held.register(hold(1), &lease, now, 0), Registered::New);
        (held, lease, now)
    }

    #[test]
    fn an_attempt_that_was_given_up_is_no_lost_delivery() {
        let (held, lease, now) = held();
        lease.lose();
        held.leave(hold(1));
        assert!(held.lost(vec![hold(1)]).is_empty(), "it ran under this token");
        assert_eq!(held.lost(vec![hold(2)]), [hold(2)], "a claim that did not arrive");
        held.forget_left(Inlet::STREAM, &BTreeSet::from([hold(1).id]));
        assert!(held.lost(vec![hold(1)]).is_empty(), "as long as the entry is pending");
        let lease = Arc::new(Lease::new(LEASE, LEASE));
        assert_eq!(held.register(hold(2), &lease, now, 0), Registered::New);
        held.remove(Inlet::STREAM, hold(2).id);
        assert_eq!(held.lost(vec![hold(2)]), [hold(2)]);
    }

    #[test]
    fn an_entry_that_was_released_is_no_lost_delivery() {
        let (held, _lease, _now) = held();
        held.release(hold(1));
        assert!(held.lost(vec![hold(0)]).is_empty(), "others shall have it");
        assert_eq!(held.len(), 0);
    }

    #[test]
    fn an_entry_in_flight_is_adopted_under_its_new_count_and_not_run_twice() {
        let (held, _lease, now) = held();
        let other = Arc::new(Lease::new(LEASE, LEASE));
        assert_eq!(held.register(hold(2), &other, now, 0), Registered::InFlight);
        assert_eq!(held.begin_settling(hold(1)), Some(hold(2)));
    }

    #[test]
    fn a_refused_renewal_loses_the_lease_and_a_stale_answer_does_not() {
        let (held, lease, now) = held();
        assert_eq!(held.renewed(hold(9), FenceResult::TakenOver, now, 0), Renewal::Fine);
        assert_eq!(held.renewed(hold(1), FenceResult::TakenOver, now, 0), Renewal::Lost);
        assert!(lease.is_lost() && held.begin_settling(hold(1)).is_none());
    }

    #[test]
    fn the_fence_falls_by_our_own_clock_and_a_renewal_moves_it() {
        let (held, lease, now) = held();
        assert!(held.fence(now + LEASE / 2, LEASE).is_empty());
        held.renewed(hold(1), FenceResult::Owned, now + LEASE / 2, 0);
        assert!(held.fence(now + LEASE, LEASE).is_empty());
        assert_eq!(held.fence(now + LEASE * 2, LEASE), [hold(1)]);
        assert!(lease.is_lost());
    }

    #[test]
    fn an_attempt_that_has_ended_is_renewed_but_never_told_that_it_lost() {
        let (held, lease, now) = held();
        held.begin_settling(hold(1));
        assert_eq!(held.due(now + LEASE, LEASE), [hold(1)]);
        assert_eq!(held.renewed(hold(1), FenceResult::NotPending, now, 0), Renewal::Fine);
        assert!(held.fence(now + LEASE * 9, LEASE).is_empty() && !lease.is_lost());
    }

    #[test]
    fn a_handler_whose_group_was_lost_finishes_in_peace() {
        let (held, lease, now) = held();
        assert_eq!(held.renewed(hold(1), FenceResult::NotPending, now, 1), Renewal::Fine);
        assert!(held.fence(now + LEASE * 9, LEASE).is_empty() && !lease.is_lost());
        assert!(held.due(now + LEASE * 9, LEASE).is_empty());
    }

    #[test]
    fn an_entry_adrift_is_renewed_again_once_its_group_delivers_it_again() {
        let (held, lease, now) = held();
        held.renewed(hold(1), FenceResult::NotPending, now, 1);
        assert_eq!(held.register(hold(1), &lease, now, 1), Registered::InFlight);
        assert_eq!(held.due(now + LEASE, LEASE), [hold(1)]);
        assert_eq!(held.renewed(hold(1), FenceResult::TakenOver, now, 1), Renewal::Lost);
    }

    #[test]
    fn trimming_leaves_the_handler_running_and_remembers_the_letter() {
        let (held, lease, now) = held();
        let letter = EntryId::new(7, 7);
        assert_eq!(
            held.renewed(hold(1), FenceResult::Trimmed(letter), now, 0),
            Renewal::Trimmed(letter)
        );
        assert!(!lease.is_lost());
        assert_eq!(held.remove_acknowledged(Inlet::STREAM, EntryId::new(1, 0)), Some(letter));
        assert_eq!(held.len(), 0);
    }

    #[test]
    fn the_letter_of_a_job_acknowledged_before_its_renewal_is_heard_is_needless() {
        let (held, _lease, now) = held();
        let letter = EntryId::new(7, 7);
        held.begin_renewing(&[hold(1)]);
        assert!(held.is_renewing(hold(1)));
        assert_eq!(held.remove_acknowledged(Inlet::STREAM, EntryId::new(1, 0)), None);
        let answer = FenceResult::Trimmed(letter);
        assert_eq!(held.renewed(hold(1), answer, now, 0), Renewal::Needless(letter));
        assert_eq!(held.renewed(hold(1), answer, now, 0), Renewal::Fine);
    }

    #[test]
    fn the_letter_of_a_job_given_up_before_its_renewal_is_heard_stays() {
        let (held, _lease, now) = held();
        held.begin_renewing(&[hold(1)]);
        held.remove(Inlet::STREAM, EntryId::new(1, 0));
        let answer = FenceResult::Trimmed(EntryId::new(7, 7));
        assert_eq!(held.renewed(hold(1), answer, now, 0), Renewal::Fine);
    }

    #[test]
    fn a_renewal_is_on_its_way_until_it_is_answered_or_given_up() {
        let (held, _lease, now) = held();
        held.begin_renewing(&[hold(1)]);
        held.renewed(hold(1), FenceResult::Owned, now, 0);
        assert!(!held.is_renewing(hold(1)));
        held.begin_renewing(&[hold(1)]);
        held.renewal_failed(&[hold(1)]);
        assert!(!held.is_renewing(hold(1)));
    }
}
