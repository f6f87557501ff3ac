//! A set of slots that several queues of a process share by weights.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::slot_turns::{QueueNumber, SlotTurns};
use crate::insight::metrics::SharedSlotsMetrics;
use crate::insight::view::SlotSet;
use crate::model::heartbeat::SharedHere;
use crate::runtime::state::lock;

/// The slots of a set. Free ones go to the queues that wait, in the order of their turns, at the moment in
/// which they become free: also to one that waits for the answer to a request, for at most [`KEPT_FOR`].
#[derive(Debug)]
pub(crate) struct SharedSlots {
    name: &'static str,
    size: usize,
    metrics: SharedSlotsMetrics,
    state: Mutex<SetState>,
}

#[derive(Debug)]
struct SetState {
    turns: SlotTurns,
    /// Of each queue, the first one first.
    waiting: HashMap<QueueNumber, VecDeque<Arc<Waiter>>>,
}

/// One that waits for slots of a queue.
#[derive(Debug)]
struct Waiter {
    wanted: usize,
    /// Changed under the lock of the set.
    given: AtomicUsize,
    has_some: Notify,
}

impl SharedSlots {
    pub(crate) fn new(name: &'static str, size: usize) -> Arc<Self> {
        let metrics = SharedSlotsMetrics::new(name);
        metrics.move_slots(0, size);
        let state = SetState { turns: SlotTurns::new(size), waiting: HashMap::new() };
        Arc::new(Self { name, size, metrics, state: Mutex::new(state) })
    }

    /// The share of one queue, which may have at most so many slots at once.
    pub(crate) fn share(self: &Arc<Self>, weight: NonZeroU32, most: usize) -> SlotShare {
        let number = lock(&self.state).turns.join(weight, most);
        SlotShare { set: Arc::clone(self), number }
    }

    /// How much of it is in use.
    pub(crate) fn seen(&self) -> SlotSet {
        let in_use = lock(&self.state).turns.in_use();
        SlotSet { name: self.name.to_owned(), slots: self.size as u64, in_use: in_use as u64 }
    }

    /// Changes turns or waiters, and gives what is free then to those who wait.
    fn change<T>(&self, change: impl FnOnce(&mut SetState) -> T) -> T {
        let mut state = lock(&self.state);
        let before = state.turns.in_use();
        let changed = change(&mut state);
        state.give();
        let after = state.turns.in_use();
        drop(state);
        self.metrics.move_in_use(before, after);
        changed
    }
}

impl Drop for SharedSlots {
    fn drop(&mut self) {
        self.metrics.move_slots(self.size, 0);
    }
}

impl SetState {
    fn give(&mut self) {
        while let Some(number) = self.turns.next() {
            let queue = self.waiting.entry(number).or_default();
            let Some(first) = queue.front() else {
                // The turns say what all waiters want together, so there is one.
                self.turns.give_back(number, false);
                continue;
            };
            let before = first.given.fetch_add(1, Ordering::Relaxed);
            if before == 0 {
                first.has_some.notify_one();
            }
            if before + 1 == first.wanted {
                queue.pop_front();
            }
        }
    }
}

/// What one queue has of a set, until it is dropped.
#[derive(Debug)]
pub(crate) struct SlotShare {
    set: Arc<SharedSlots>,
    number: QueueNumber,
}

impl SlotShare {
    /// How many slots the queue may have at once.
    pub(super) fn most(&self) -> usize {
        lock(&self.set.state).turns.most(self.number)
    }

    pub(super) fn owed(&self) -> usize {
        lock(&self.set.state).turns.owed(self.number)
    }

    pub(super) fn are_free(&self) -> bool {
        lock(&self.set.state).turns.free_for(self.number) > 0
    }

    pub(super) fn resize(&self, most: usize) {
        self.set.change(|state| state.turns.resize(self.number, most));
    }

    /// The set, for a heartbeat of the queue.
    pub(super) fn seen(&self) -> SharedHere {
        let SlotSet { name, slots, in_use } = self.set.seen();
        let weight = lock(&self.set.state).turns.weight(self.number);
        SharedHere { set: name, weight, slots, in_use }
    }

    /// Takes what is free, at most `count`: how many. What others wait for is never free.
    pub(super) fn take_free(&self, count: usize) -> usize {
        self.set.change(|state| state.turns.take(self.number, count))
    }

    /// Waits for the queue's turn: how many slots it has got by then, at least one and at most `count`.
    ///
    /// Cancel safe: what was given meanwhile goes to the next queue.
    pub(super) async fn take(&self, count: usize) -> usize {
        let waits = Waits::new(self, count.max(1));
        waits.waiter.has_some.notified().await;
        waits.end()
    }

    /// Waits for the answer to a request, and takes part in the turns until then: the answer, and how many slots the
    /// queue has got, at most `count`. Nothing can start in them before, so an answer that takes longer than
    /// [`KEPT_FOR`] brings none.
    ///
    /// Cancel safe if the request is.
    pub(super) async fn take_during<F: Future>(
        &self,
        mut request: Pin<&mut F>,
        count: usize,
    ) -> (F::Output, usize) {
        let waits = Waits::new(self, count);
        match timeout(KEPT_FOR, request.as_mut()).await {
            Ok(answer) => (answer, waits.end()),
            Err(_) => {
                drop(waits);
                (request.await, 0)
            }
        }
    }

    /// How many of the slots that `count` jobs of the queue are about to free are its own turn: the others
    /// are for queues that wait.
    pub(super) fn entitled(&self, count: usize) -> usize {
        lock(&self.set.state).turns.entitled(self.number, count)
    }

    /// As many jobs are about to start in slots of the queue that are not free in between.
    pub(super) fn start_again(&self, count: usize) {
        self.set.change(|state| state.turns.start_again(self.number, count));
    }

    /// A slot is free again. One whose job did not start costs the queue nothing.
    pub(super) fn give_back(&self, has_started: bool) {
        self.set.change(|state| state.turns.give_back(self.number, has_started));
    }
}

impl Drop for SlotShare {
    fn drop(&mut self) {
        self.set.change(|state| {
            state.turns.leave(self.number);
            state.waiting.remove(&self.number);
        });
    }
}

/// A caller waits for slots of a queue, until it is dropped.
struct Waits<'s> {
    share: &'s SlotShare,
    waiter: Arc<Waiter>,
}

impl<'s> Waits<'s> {
    fn new(share: &'s SlotShare, wanted: usize) -> Self {
        let waiter =
            Arc::new(Waiter { wanted, given: AtomicUsize::new(0), has_some: Notify::new() });
        share.set.change(|state| {
            state.waiting.entry(share.number).or_default().push_back(Arc::clone(&waiter));
            state.turns.want(share.number, wanted);
        });
        Self { share, waiter }
    }

    /// Ends the wait: how many slots it has brought.
    fn end(self) -> usize {
        self.withdraw()
    }

    /// Waits no more: how many slots were given since the last call.
    fn withdraw(&self) -> usize {
        let SlotShare { set, number } = self.share;
        let mut state = lock(&set.state);
        let mut waits = false;
        if let Some(queue) = state.waiting.get_mut(number) {
            let before = queue.len();
            queue.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
            waits = queue.len() < before;
        }
        let given = self.waiter.given.swap(0, Ordering::Relaxed);
        if waits {
            state.turns.want_less(*number, self.waiter.wanted.saturating_sub(given));
        }
        given
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        // None after the end.
        for _ in 0..self.withdraw() {
            self.share.give_back(false);
        }
    }
}

/// For how long slots are kept for a queue whose request is on its way: some round trips. They are free meanwhile, so a server
/// that does not answer must not make other queues wait.
const KEPT_FOR: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Poll;

    use futures_util::poll;
    use tokio::sync::oneshot;
    use tokio::time::Instant;

    use super::*;

    fn pair(size: usize) -> (Arc<SharedSlots>, SlotShare, SlotShare) {
        let set = SharedSlots::new("mail", size);
        let (one, other) = (set.share(NonZeroU32::MIN, size), set.share(NonZeroU32::MIN, size));
        (set, one, other)
    }

    #[tokio::test]
    async fn what_a_dropped_caller_was_given_goes_to_the_next() {
        let (set, one, other) = pair(2);
        assert_eq!(one.take_free(9), 2);
        let (mut first, mut second) = (Box::pin(other.take(5)), Box::pin(other.take(5)));
        assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
        one.give_back(true);
        drop(first);
        assert_eq!((second.await, set.seen().in_use), (1, 2));
        other.give_back(true);
        one.give_back(true);
        assert_eq!((set.seen().in_use, other.take(9).await), (0, 2), "none waits any more");
    }

    #[tokio::test]
    async fn a_caller_gets_all_that_became_free_until_it_goes_on_and_no_more_than_it_wants() {
        let (set, one, other) = pair(5);
        assert_eq!(one.take_free(9), 5);
        let mut waits = Box::pin(other.take(2));
        assert!(poll!(&mut waits).is_pending());
        (0..3).for_each(|_| one.give_back(true));
        assert_eq!((waits.await, set.seen().in_use, one.take_free(9)), (2, 4, 1));
    }

    /// All slots become free at once while the urgent queue is on its way to the server and back.
    #[tokio::test(start_paused = true)]
    async fn a_queue_takes_part_in_the_turns_while_its_request_is_on_its_way() {
        let set = SharedSlots::new("mail", 12);
        let weights = [5, 1].map(|weight| NonZeroU32::new(weight).unwrap());
        let [urgent, bulk] = weights.map(|weight| set.share(weight, 12));
        assert_eq!(bulk.take_free(12), 12);
        let (mut in_use, mut had) = ([0, 12], [0, 0]);
        for round in 0..60 {
            let (answer, answered) = oneshot::channel();
            let mut answered = pin!(answered);
            let mut read = pin!(urgent.take_during(answered.as_mut(), 500));
            let mut waits = pin!(bulk.take(500));
            assert!(poll!(&mut read).is_pending() && poll!(&mut waits).is_pending());
            (0..in_use[0]).for_each(|_| urgent.give_back(true));
            (0..in_use[1]).for_each(|_| bulk.give_back(true));
            answer.send(()).unwrap();
            let to_bulk = match poll!(&mut waits) {
                Poll::Ready(taken) => taken,
                Poll::Pending => 0,
            };
            in_use = [read.await.1, to_bulk];
            assert_eq!((in_use[0] + in_use[1], set.seen().in_use), (12, 12));
            // In the first ones it gets the share back that it had lent.
            if round >= 10 {
                had = [had[0] + in_use[0], had[1] + in_use[1]];
            }
        }
        assert_eq!(had, [500, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn slots_are_not_kept_for_a_request_that_takes_long() {
        let (set, slow, other) = pair(2);
        assert_eq!(other.take_free(2), 2);
        let (answer, answered) = oneshot::channel();
        let mut answered = pin!(answered);
        let mut read = pin!(slow.take_during(answered.as_mut(), 9));
        assert!(poll!(&mut read).is_pending());
        other.give_back(true);
        let (mut waits, begun) = (pin!(other.take(9)), Instant::now());
        assert!(poll!(&mut waits).is_pending());
        tokio::select! {
            taken = &mut waits => assert_eq!((taken, begun.elapsed()), (1, KEPT_FOR)),
            _ = &mut read => panic!("there is no answer"),
        }
        answer.send(()).unwrap();
        assert_eq!((read.await.1, set.seen().in_use), (0, 2));
    }

    #[tokio::test]
    async fn a_request_that_is_dropped_leaves_what_it_got_to_the_others() {
        let (set, gone, other) = pair(2);
        assert_eq!(other.take_free(2), 2);
        let mut request = Box::pin(std::future::pending::<()>());
        let mut read = Box::pin(gone.take_during(request.as_mut(), 9));
        assert!(poll!(&mut read).is_pending());
        (0..2).for_each(|_| other.give_back(true));
        assert_eq!((set.seen().in_use, other.take_free(9)), (2, 0));
        drop(read);
        assert_eq!((set.seen().in_use, other.take_free(9)), (0, 2));
    }
}
