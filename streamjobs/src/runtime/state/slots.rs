//! Slots: how many jobs of a queue may be in flight at once. The number can change at any time.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::model::heartbeat::SharedHere;
use crate::runtime::state::{SlotShare, lock};

/// The slots of one queue of one consumer, or of all partitions of its stream.
#[derive(Debug)]
pub(crate) struct Slots {
    /// What it has of a set of slots, if other queues share them; then none is its own.
    share: Option<SlotShare>,
    /// Whether readers of several partitions take them.
    are_of_partitions: bool,
    free: Semaphore,
    /// How many slots must still be removed because they were not free yet. Each is removed when
    /// its job ends.
    debt: AtomicUsize,
    /// The configured number. Its lock serialises changes.
    size: Mutex<usize>,
    /// How many callers wait for a slot.
    waiting: AtomicUsize,
    /// Held by the reader whose turn it is to take slots that several readers share.
    turn: tokio::sync::Mutex<()>,
    /// When a reader last took slots in its turn.
    last_turn: Mutex<Option<Instant>>,
    /// Whether the last read in a turn left entries behind.
    has_backlog: AtomicBool,
}

/// The right to have one job in flight, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    /// A job has started in it.
    has_started: bool,
}

impl Slots {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            share: None,
            are_of_partitions: false,
            free: Semaphore::new(size),
            debt: AtomicUsize::new(0),
            size: Mutex::new(size),
            waiting: AtomicUsize::new(0),
            turn: tokio::sync::Mutex::default(),
            last_turn: Mutex::default(),
            has_backlog: AtomicBool::new(false),
        }
    }

    /// Those of a queue that shares them with other queues.
    pub(crate) fn of_set(share: SlotShare) -> Self {
        Self { share: Some(share), ..Self::new(0) }
    }

    /// The same slots, for the readers of all partitions of a stream.
    pub(crate) fn of_partitions(self) -> Self {
        Self { are_of_partitions: true, ..self }
    }

    /// The configured number, whatever is still in flight.
    pub(crate) fn size(&self) -> usize {
        self.share.as_ref().map_or_else(|| *lock(&self.size), SlotShare::most)
    }

    /// How many slots must be removed and are not free yet.
    pub(crate) fn owed(&self) -> usize {
        let own = || self.debt.load(Ordering::SeqCst);
        self.share.as_ref().map_or_else(own, SlotShare::owed)
    }

    /// Whether a slot is free now.
    pub(crate) fn are_free(&self) -> bool {
        let own = || self.free.available_permits() > 0;
        self.share.as_ref().map_or_else(own, SlotShare::are_free)
    }

    /// The set that the queue shares, if it shares one.
    pub(crate) fn shared_here(&self) -> Option<SharedHere> {
        self.share.as_ref().map(SlotShare::seen)
    }

    /// Whether other queues share them.
    pub(crate) fn are_of_set(&self) -> bool {
        self.share.is_some()
    }

    /// How many of these slots, which jobs are about to free, the same reader may use at once for others. The rest
    /// is for those whose turn it is: readers of other partitions, or other queues of the set.
    pub(crate) fn reuse<'s>(&self, freed: impl Iterator<Item = &'s mut Slot>) -> usize {
        if self.are_of_partitions && self.are_due() {
            return 0;
        }
        let Some(share) = &self.share else { return freed.count() };
        let mut reused = freed.collect::<Vec<_>>();
        reused.truncate(share.entitled(reused.len()));
        // Each is paid for from now on, and paid back if no job starts in it.
        let again =
            reused.iter_mut().filter_map(|slot| slot.has_started.then_some(&mut slot.has_started));
        share.start_again(again.map(|has_started| *has_started = false).count());
        reused.len()
    }

    /// Waits for the answer to a request. If there is a backlog to read next, the reader takes part in the turns of its
    /// set meanwhile: the slots that it got, at most `count`. Slots of its own
    /// are not waited for.
    ///
    /// Cancel safe if the request is.
    pub(crate) async fn take_during<F: Future>(
        self: &Arc<Self>,
        request: Pin<&mut F>,
        count: usize,
        has_backlog: bool,
    ) -> (F::Output, Vec<Slot>) {
        match self.share.as_ref().filter(|_| has_backlog) {
            Some(share) => {
                let (answer, taken) = share.take_during(request, count).await;
                (answer, self.slots(taken))
            }
            None => (request.await, Vec::new()),
        }
    }

    /// Waits for slots to read into, at most `count`: in turn with readers of other partitions, and with other
    /// queues of the set.
    ///
    /// Cancel safe: nothing is taken.
    pub(crate) async fn take_for_reading(self: &Arc<Self>, count: usize) -> Vec<Slot> {
        let Some(share) = &self.share else {
            return match self.are_of_partitions {
                true => self.take_in_turn(count).await,
                false => Vec::from_iter(self.take().await),
            };
        };
        // Partitions wait in one line, and have no need to leave slots to each other.
        let _waits = Waits::new(self);
        let slots = self.slots(share.take(count).await);
        *lock(&self.last_turn) = Some(Instant::now());
        slots
    }

    /// Whether readers that share the slots have to leave free slots to a reader that waits.
    ///
    /// Passing slots on costs a request of its own, for the acknowledgements that free them. So the reader
    /// that has them keeps them for a while.
    fn are_due(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0 && self.is_turn_over()
    }

    fn is_turn_over(&self) -> bool {
        lock(&self.last_turn).is_none_or(|turn| turn.elapsed() >= TURN)
    }

    /// Records that a reader that shares the slots has read, and whether it left entries behind.
    pub(crate) fn note_read(&self, has_backlog: bool) {
        self.has_backlog.store(has_backlog, Ordering::Relaxed);
    }

    /// Waits for the turn of one of several readers, and then takes free slots, at most `count` and at
    /// least one. During the turn of another reader with a backlog, free slots are left to that reader. If
    /// no slot is free, it waits for the first, and then a moment for more: reading one entry costs the
    /// server nearly as much as reading a hundred.
    ///
    /// Cancel safe: nothing is taken, and the turn goes to the next one.
    async fn take_in_turn(self: &Arc<Self>, count: usize) -> Vec<Slot> {
        let _turn = self.turn.lock().await;
        while self.has_backlog.load(Ordering::Relaxed) && !self.is_turn_over() {
            sleep(LINGER).await;
        }
        let mut slots = self.take_free(count);
        if slots.is_empty() {
            slots.extend(self.take().await);
            // Jobs that were acknowledged together have freed their slots together.
            slots.extend(self.take_free(count.saturating_sub(slots.len())));
            if slots.len() < count.min(self.size() / 2) {
                sleep(LINGER).await;
                slots.extend(self.take_free(count.saturating_sub(slots.len())));
            }
        }
        *lock(&self.last_turn) = Some(Instant::now());
        slots
    }

    /// Waits for a slot, in turn.
    ///
    /// Cancel safe: nothing is taken.
    pub(crate) async fn take(self: &Arc<Self>) -> Option<Slot> {
        if let Some(slot) = self.try_take() {
            return Some(slot);
        }
        let _waits = Waits::new(self);
        if let Some(share) = &self.share {
            return self.slots(share.take(1).await).pop();
        }
        // The semaphore is never closed.
        self.free.acquire().await.ok()?.forget();
        Some(self.slot())
    }

    /// A slot that is free now.
    pub(crate) fn try_take(self: &Arc<Self>) -> Option<Slot> {
        if let Some(share) = &self.share {
            return (share.take_free(1) > 0).then(|| self.slot());
        }
        self.free.try_acquire().ok()?.forget();
        Some(self.slot())
    }

    /// Slots that were taken.
    fn slots(self: &Arc<Self>, count: usize) -> Vec<Slot> {
        (0..count).map(|_| self.slot()).collect()
    }

    fn slot(self: &Arc<Self>) -> Slot {
        Slot { slots: Arc::clone(self), has_started: false }
    }

    /// Takes free slots without waiting, at most `count`.
    pub(crate) fn take_free(self: &Arc<Self>, count: usize) -> Vec<Slot> {
        if let Some(share) = &self.share {
            return self.slots(share.take_free(count));
        }
        let mut taken = Vec::new();
        while taken.len() < count {
            match self.try_take() {
                Some(slot) => taken.push(slot),
                None => break,
            }
        }
        taken
    }

    /// Changes the number: additional slots are free at once, surplus slots are removed as they become free.
    pub(crate) fn resize(&self, size: usize) {
        if let Some(share) = &self.share {
            share.resize(size);
            return;
        }
        let mut present = lock(&self.size);
        let more = size.saturating_sub(*present);
        // Slots that were about to be removed stay instead.
        let kept = (0..more).take_while(|_| self.pay()).count();
        self.free.add_permits(more - kept);
        self.debt.fetch_add(present.saturating_sub(size), Ordering::SeqCst);
        self.remove_free();
        *present = size;
    }

    /// Lowers the debt by one slot, which the caller then removes.
    fn pay(&self) -> bool {
        let lower = |debt: usize| debt.checked_sub(1);
        self.debt.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lower).is_ok()
    }

    /// Removes free slots while there is a debt.
    fn remove_free(&self) {
        while self.owed() > 0 {
            let Ok(free) = self.free.try_acquire() else { return };
            if self.pay() {
                free.forget();
            }
        }
    }
}

/// Counts a caller that waits for a slot.
struct Waits<'s>(&'s AtomicUsize);

impl<'s> Waits<'s> {
    fn new(slots: &'s Slots) -> Self {
        slots.waiting.fetch_add(1, Ordering::SeqCst);
        Self(&slots.waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Slot {
    /// A job starts in it.
    pub(crate) fn start(&mut self) {
        if std::mem::replace(&mut self.has_started, true)
            && let Some(share) = &self.slots.share
        {
            share.start_again(1);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(share) = &self.slots.share {
            share.give_back(self.has_started);
            return;
        }
        // Before the slot is free: a queued caller would get it at once.
        if self.slots.pay() {
            return;
        }
        self.slots.free.add_permits(1);
        // The number may have been lowered between the two lines, when this slot was neither owed nor free.
        self.slots.remove_free();
    }
}

const LINGER: Duration = Duration::from_millis(1);
/// How long a reader keeps shared slots while others wait: about as long as ten batches of small jobs take. If 48
/// partitions have a backlog, each waits half a second for its turn.
const TURN: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::runtime::state::SharedSlots;

    fn taken(slots: &Arc<Slots>) -> Vec<Slot> {
        std::iter::from_fn(|| slots.try_take()).collect()
    }

    #[test]
    fn more_slots_are_free_at_once() {
        let slots = Arc::new(Slots::new(2));
        let used = taken(&slots);
        slots.resize(5);
        assert_eq!((used.len(), taken(&slots).len(), slots.size()), (2, 3, 5));
    }

    #[test]
    fn fewer_slots_are_removed_as_they_become_free() {
        let slots = Arc::new(Slots::new(4));
        let mut used = taken(&slots);
        slots.resize(1);
        for _ in 0..3 {
            used.pop();
            assert_eq!(taken(&slots).len(), 0);
        }
        used.pop();
        assert_eq!(taken(&slots).len(), 1);
    }

    #[test]
    fn slots_to_be_removed_stay_when_the_number_rises_again() {
        let slots = Arc::new(Slots::new(4));
        let used = taken(&slots);
        slots.resize(1);
        slots.resize(3);
        drop(used);
        assert_eq!(taken(&slots).len(), 3);
    }

    #[tokio::test]
    async fn a_queued_caller_does_not_get_a_slot_that_is_to_be_removed() {
        let slots = Arc::new(Slots::new(2));
        let mut used = taken(&slots);
        slots.resize(1);
        let mut queued = Box::pin(slots.take());
        assert!(futures_util::poll!(&mut queued).is_pending());
        used.pop();
        assert!(futures_util::poll!(&mut queued).is_pending());
        used.pop();
        assert!(queued.await.is_some());
    }

    /// Each reader takes what is free when its turn comes, so that reads are large.
    #[tokio::test(start_paused = true)]
    async fn readers_that_share_slots_take_what_is_free_in_turn() {
        let slots = Arc::new(Slots::new(4));
        assert_eq!(slots.take_in_turn(3).await.len(), 3, "and gives them back at once");
        let mut used = slots.take_in_turn(9).await;
        assert_eq!((used.len(), slots.are_free()), (4, false));
        tokio::time::advance(TURN).await;
        assert!(!slots.are_due(), "none waits");
        let [mut first, mut second] = [(); 2].map(|()| Box::pin(slots.take_in_turn(9)));
        assert!(futures_util::poll!(&mut first).is_pending());
        assert!(futures_util::poll!(&mut second).is_pending());
        assert!(slots.are_due());
        used.truncate(2);
        let taken = first.await;
        assert_eq!(taken.len(), 2);
        assert!(futures_util::poll!(&mut second).is_pending());
        assert!(!slots.are_due(), "they were taken just now");
        tokio::time::advance(TURN).await;
        assert!(slots.are_due());
        drop((taken, used));
        assert_eq!(second.await.len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_with_a_backlog_keeps_what_becomes_free_for_its_turn() {
        let slots = Arc::new(Slots::new(4));
        let taken_after = async || {
            let begun = Instant::now();
            assert_eq!(slots.take_in_turn(4).await.len(), 4);
            begun.elapsed()
        };
        taken_after().await;
        slots.note_read(true);
        assert!(taken_after().await >= TURN);
        slots.note_read(false);
        assert_eq!(taken_after().await, Duration::ZERO, "nothing was left behind");
        slots.note_read(true);
        let read_to_its_end = async {
            sleep(TURN / 2).await;
            slots.note_read(false);
        };
        let (waited, ()) = tokio::join!(taken_after(), read_to_its_end);
        assert!((TURN / 2..TURN).contains(&waited), "{waited:?}");
    }

    #[tokio::test]
    async fn slots_go_back_to_their_set_when_they_are_dropped() {
        let (set, one) = (SharedSlots::new("mail", 3), NonZeroU32::MIN);
        let (one, other) = (set.share(one, 3), set.share(one, 3));
        let slots = Arc::new(Slots::of_set(one));
        let mut taken = slots.take_for_reading(9).await;
        assert_eq!((taken.len(), slots.are_free(), set.seen().in_use), (3, false, 3));
        let mut waits = Box::pin(other.take(9));
        assert!(futures_util::poll!(&mut waits).is_pending());
        taken.iter_mut().for_each(Slot::start);
        taken.pop();
        assert_eq!((waits.await, slots.try_take().is_some()), (1, false));
        assert_eq!(slots.reuse(taken.iter_mut()), 2, "none waits for others");
        assert!(taken.iter().all(|slot| !slot.has_started), "they cost nothing if no job starts");
        slots.resize(1);
        assert_eq!((slots.size(), slots.owed()), (1, 1));
        drop((taken, slots));
        assert_eq!((set.seen().in_use, other.take_free(9)), (1, 2));
    }

    #[test]
    fn changes_while_slots_come_and_go_end_at_the_last_number() {
        let slots = Arc::new(Slots::new(8));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..2_000).for_each(|_| drop(slots.try_take())));
            }
            for size in (1..500).map(|round| round * 7 % 16 + 1).chain([3]) {
                slots.resize(size);
            }
        });
        assert_eq!((taken(&slots).len(), slots.size()), (3, 3));
    }
}
