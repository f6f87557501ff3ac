//! Acknowledgements on their way: filled by executors, emptied by the reader or the ack flusher.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::model::entry::{EntryId, Inlet};
use crate::model::unique::UniqueLock;
use crate::runtime::state::{DoneDuringClaim, InFlight, Slot, lock};

/// A job that is done, with the slot that it occupies until the server has acknowledged it.
#[derive(Debug)]
pub(crate) struct Ack {
    pub(crate) inlet: Inlet,
    pub(crate) id: EntryId,
    /// `None` once the slot has gone to other partitions, because their server answers and the server of this
    /// partition does not.
    pub(crate) slot: Option<Slot>,
    /// The lock of its event, which ends with the acknowledgement.
    pub(crate) lock: Option<Box<UniqueLock>>,
    /// Its lease was lost, so that another consumer may own the entry.
    pub(crate) is_late: bool,
    /// What learns that the server has confirmed it, if anything does.
    pub(crate) told: Option<Box<dyn OnConfirmed>>,
}

/// What happens once the server has confirmed an acknowledgement.
pub(crate) trait OnConfirmed: fmt::Debug + Send {
    /// The acknowledgement is confirmed. Called once, on the thread that renews leases.
    fn confirmed(self: Box<Self>);
}

/// Finished jobs that are not acknowledged yet. Their number is limited by the slots of the queue:
/// while acknowledgements fail, nothing is read.
#[derive(Debug)]
pub(crate) struct Acks {
    waiting: Mutex<Vec<Ack>>,
    /// Acknowledgements that are late, or with which a lock or a place in the group's limit ends. They take a script,
    /// so only the ack flusher sends them.
    locked: Mutex<Vec<Ack>>,
    /// Whether some acknowledgements have waited while requests failed, so that they may be late by
    /// now.
    have_failed: AtomicBool,
    /// The number of acknowledgements at which a loop that waits for several is notified. The first
    /// acknowledgement always notifies.
    wanted: AtomicUsize,
    filled: Notify,
    locked_filled: Notify,
    in_flight: Arc<InFlight>,
    /// Whether each acknowledgement ends a place in the group's limit.
    pub(crate) are_limited: bool,
    /// Whether other partitions share the slots.
    pub(crate) shares_slots: bool,
    /// The jobs that were acknowledged while a claim was on its way.
    pub(crate) during_claim: DoneDuringClaim,
}

impl Acks {
    pub(crate) fn new(in_flight: Arc<InFlight>, shares_slots: bool, are_limited: bool) -> Self {
        Self {
            waiting: Mutex::default(),
            locked: Mutex::default(),
            have_failed: AtomicBool::new(false),
            wanted: AtomicUsize::new(0),
            filled: Notify::new(),
            locked_filled: Notify::new(),
            in_flight,
            are_limited,
            shares_slots,
            during_claim: DoneDuringClaim::default(),
        }
    }

    pub(crate) fn push(&self, ack: Ack) {
        if self.takes_script(&ack) {
            lock(&self.locked).push(ack);
            self.locked_filled.notify_waiters();
            return;
        }
        let length = {
            let mut waiting = lock(&self.waiting);
            waiting.push(ack);
            waiting.len()
        };
        if length == 1 || length == self.wanted.load(Ordering::Relaxed) {
            self.filled.notify_waiters();
        }
    }

    fn takes_script(&self, ack: &Ack) -> bool {
        self.are_limited || ack.is_late || ack.lock.is_some()
    }

    /// Takes all acknowledgements that need no script.
    pub(crate) fn take(&self) -> Vec<Ack> {
        let mut taken = std::mem::take(&mut *lock(&self.waiting));
        if self.have_failed.swap(false, Ordering::Relaxed) {
            self.note_late(&mut taken);
            let late = taken.extract_if(.., |ack| ack.is_late).collect::<Vec<_>>();
            if !late.is_empty() {
                lock(&self.locked).extend(late);
                self.locked_filled.notify_waiters();
            }
        }
        taken
    }

    /// Marks the acknowledgements whose entries other consumers may own by now.
    fn note_late(&self, acks: &mut [Ack]) {
        for ack in acks {
            ack.is_late |= self.in_flight.may_be_others(ack.inlet, ack.id);
        }
    }

    /// Takes all acknowledgements that need a script.
    pub(crate) fn take_locked(&self) -> Vec<Ack> {
        let mut taken = std::mem::take(&mut *lock(&self.locked));
        self.note_late(&mut taken);
        taken
    }

    /// Puts back acknowledgements whose request failed. They give up slots that another partition could
    /// use.
    pub(crate) fn put_back(&self, mut acks: Vec<Ack>) {
        if self.shares_slots {
            acks.iter_mut().for_each(|ack| ack.slot = None);
        }
        self.have_failed.store(true, Ordering::Relaxed);
        let (locked, plain): (Vec<_>, Vec<_>) =
            acks.into_iter().partition(|ack| self.takes_script(ack));
        lock(&self.locked).extend(locked);
        lock(&self.waiting).extend(plain);
        self.filled.notify_waiters();
        self.locked_filled.notify_waiters();
    }

    /// Ends jobs that the server has acknowledged. Returns their slots, and the dead letters to delete.
    ///
    /// If a payload was trimmed while its job ran, a dead letter was stored for it. Such a job is done
    /// and not lost.
    pub(crate) fn finish(&self, acks: Vec<Ack>) -> (Vec<Slot>, Vec<EntryId>) {
        // Finished jobs are noted first, so that an entry is always either in flight or known to be
        // done.
        self.during_claim.note(acks.iter().map(|ack| (ack.inlet, ack.id)));
        let done = acks.iter().map(|ack| (ack.inlet, ack.id));
        let dead_letters = self.in_flight.remove_acknowledged(done);
        let mut slots = Vec::with_capacity(acks.len());
        for Ack { slot, told, .. } in acks {
            if let Some(told) = told {
                told.confirmed();
            }
            slots.extend(slot);
        }
        (slots, dead_letters)
    }

    /// How many acknowledgements wait that need no script.
    pub(crate) fn len(&self) -> usize {
        lock(&self.waiting).len()
    }

    /// Whether no acknowledgement waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0 && lock(&self.locked).is_empty()
    }

    /// Waits until there is an acknowledgement that takes a script.
    ///
    /// Cancel safe: nothing is taken.
    pub(crate) async fn locked(&self) {
        loop {
            let filled = self.locked_filled.notified();
            if !lock(&self.locked).is_empty() {
                return;
            }
            filled.await;
        }
    }

    /// Waits until at least this many acknowledgements wait.
    ///
    /// Cancel safe: nothing is taken.
    pub(crate) async fn filled(&self, length: usize) {
        loop {
            let filled = self.filled.notified();
            if length > 1 {
                self.wanted.store(length, Ordering::Relaxed);
            }
            if self.len() >= length {
                return;
            }
            filled.await;
        }
    }
}

/// The entries, in the form that the store's acknowledgement takes.
pub(crate) fn entries_of(acks: &[Ack]) -> Vec<(Inlet, EntryId)> {
    acks.iter().map(|ack| (ack.inlet, ack.id)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::insight::metrics::QueueMetrics;
    use crate::model::entry::Hold;
    use crate::model::name::{GroupName, StreamName};
    use crate::runtime::state::Slots;

    #[tokio::test(start_paused = true)]
    async fn a_waiting_loop_is_notified_at_the_wanted_length() {
        let (stream, group) = (StreamName::new("orders"), GroupName::new("work"));
        let metrics = QueueMetrics::new(&stream.unwrap(), &group.unwrap(), None);
        let acks = Acks::new(Arc::new(InFlight::new(Arc::new(metrics))), false, false);
        let slots = Arc::new(Slots::new(9));
        let push = || {
            let slot = slots.try_take();
            acks.push(Ack {
                inlet: Inlet::STREAM,
                id: EntryId::ZERO,
                slot,
                lock: None,
                is_late: false,
                told: None,
            });
        };
        push();
        acks.filled(1).await;
        let second = timeout(Duration::from_secs(1), acks.filled(3));
        let (notified, ()) = tokio::join!(second, async {
            push();
            push();
        });
        assert!(notified.is_ok());
        let taken = acks.take();
        let free = std::iter::from_fn(|| slots.try_take()).collect::<Vec<_>>().len();
        assert_eq!((taken.len(), acks.len(), free), (3, 0, 6));
        acks.put_back(taken);
        assert_eq!(acks.len(), 3);
    }

    #[test]
    fn what_is_acknowledged_while_a_claim_is_on_its_way_is_known_until_it_is_over() {
        let (stream, group) = (StreamName::new("orders"), GroupName::new("work"));
        let metrics = QueueMetrics::new(&stream.unwrap(), &group.unwrap(), None);
        let acks = Acks::new(Arc::new(InFlight::new(Arc::new(metrics))), false, false);
        let slots = Arc::new(Slots::new(9));
        let (inlet, before, during) = (Inlet::STREAM, EntryId::new(1, 0), EntryId::new(2, 0));
        let finish = |id| {
            let (slot, lock, is_late, told) = (slots.try_take(), None, false, None);
            acks.finish(vec![Ack { inlet, id, slot, lock, is_late, told }])
        };
        let is_done = |id| acks.during_claim.contains(Hold { inlet, id, delivery_count: 2 });
        finish(before);
        let open = acks.during_claim.open();
        finish(during);
        assert!(is_done(during) && !is_done(before));
        drop(open);
        assert!(!is_done(during));
    }
}
