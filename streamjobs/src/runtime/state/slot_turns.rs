//! Whose turn it is to take a slot that several queues share: start-time fair queueing over starts. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::num::NonZeroU32;

/// The turns of the queues that share a set of slots.
///
/// A start costs a queue of weight w one w-th of a round. The next free slot goes to the queue that has paid
/// least, so that of two queues with work one of weight 5 has five starts for one of the other's. A queue that
/// had no work pays on from where the others are, less one share of the set: it gets its share of the slots
/// back as they become free, and no more for the time in which it lent it.
///
/// Invariant: while a slot is free, no queue waits that may have one.
#[derive(Debug)]
pub(super) struct SlotTurns {
    size: usize,
    free: usize,
    /// What the queue that had the last start had paid before it.
    now: u128,
    weights: u128,
    queues: BTreeMap<QueueNumber, Account>,
    /// The queues that wait and may have another slot, the next one first.
    ready: BTreeSet<Turn>,
    next_number: QueueNumber,
}

/// Which of the queues of a set.
pub(super) type QueueNumber = u64;

/// The order of turns: what was paid, then the heavier one, then the older one.
type Turn = (u128, Reverse<NonZeroU32>, QueueNumber);

#[derive(Debug)]
struct Account {
    weight: NonZeroU32,
    paid: u128,
    /// Its own concurrency.
    most: usize,
    taken: usize,
    /// For how many slots it waits.
    wanted: usize,
}

impl Account {
    /// What a start costs.
    fn price(&self) -> u128 {
        ROUND / u128::from(self.weight.get())
    }

    fn room(&self) -> usize {
        self.most.saturating_sub(self.taken)
    }
}

impl SlotTurns {
    pub(super) fn new(size: usize) -> Self {
        Self {
            size,
            free: size,
            now: 0,
            weights: 0,
            queues: BTreeMap::new(),
            ready: BTreeSet::new(),
            next_number: 0,
        }
    }

    /// Adds a queue that may have at most so many slots.
    pub(super) fn join(&mut self, weight: NonZeroU32, most: usize) -> QueueNumber {
        let number = self.next_number;
        self.next_number += 1;
        self.weights += u128::from(weight.get());
        self.queues.insert(number, Account { weight, paid: 0, most, taken: 0, wanted: 0 });
        number
    }

    /// Removes a queue, whose slots are free from now on.
    pub(super) fn leave(&mut self, number: QueueNumber) {
        self.change(number, |account| account.wanted = 0);
        if let Some(account) = self.queues.remove(&number) {
            self.weights -= u128::from(account.weight.get());
            self.free += account.taken;
        }
    }

    pub(super) fn weight(&self, number: QueueNumber) -> u32 {
        self.queues.get(&number).map_or(0, |account| account.weight.get())
    }

    pub(super) fn in_use(&self) -> usize {
        self.size.saturating_sub(self.free)
    }

    /// How many slots a queue may have.
    pub(super) fn most(&self, number: QueueNumber) -> usize {
        self.queues.get(&number).map_or(0, |account| account.most)
    }

    /// How many slots a queue has beyond those that it may have.
    pub(super) fn owed(&self, number: QueueNumber) -> usize {
        let account = self.queues.get(&number);
        account.map_or(0, |account| account.taken.saturating_sub(account.most))
    }

    /// How many slots a queue could take now.
    pub(super) fn free_for(&self, number: QueueNumber) -> usize {
        self.queues.get(&number).map_or(0, |account| account.room().min(self.free))
    }

    /// Changes how many slots a queue may have. [`Self::next`] is due.
    pub(super) fn resize(&mut self, number: QueueNumber, most: usize) {
        let most = most.min(self.size);
        self.change(number, |account| account.most = most);
    }

    /// Takes free slots without waiting, at most `count`: how many. None while others wait.
    pub(super) fn take(&mut self, number: QueueNumber, count: usize) -> usize {
        let count = self.free_for(number).min(count);
        self.pay(number, count);
        self.free -= count;
        self.change(number, |account| account.taken += count);
        count
    }

    /// A queue waits for so many more slots. [`Self::next`] is due.
    pub(super) fn want(&mut self, number: QueueNumber, count: usize) {
        self.pay(number, 0);
        self.change(number, |account| account.wanted += count);
    }

    /// A queue does not wait any more for so many of them.
    pub(super) fn want_less(&mut self, number: QueueNumber, count: usize) {
        self.change(number, |account| account.wanted = account.wanted.saturating_sub(count));
    }

    /// Gives a free slot to the queue whose turn it is: to which.
    pub(super) fn next(&mut self) -> Option<QueueNumber> {
        self.free.checked_sub(1)?;
        let (.., number) = *self.ready.first()?;
        self.free -= 1;
        self.pay(number, 1);
        self.change(number, |account| {
            account.taken += 1;
            account.wanted -= 1;
        });
        Some(number)
    }

    /// A slot is free again, whose job has started or not: what was paid for one that did not start is paid
    /// back. [`Self::next`] is due.
    pub(super) fn give_back(&mut self, number: QueueNumber, has_started: bool) {
        self.free += 1;
        self.change(number, |account| {
            account.taken = account.taken.saturating_sub(1);
            if !has_started {
                account.paid = account.paid.saturating_sub(account.price());
            }
        });
    }

    /// As many jobs are about to start in slots that are not free in between.
    pub(super) fn start_again(&mut self, number: QueueNumber, count: usize) {
        self.pay(number, count);
    }

    /// How many of the next `count` slots would be this queue's, if it waited for all of them.
    pub(super) fn entitled(&self, number: QueueNumber, count: usize) -> usize {
        let Some(account) = self.queues.get(&number) else { return count };
        let others = self.ready.iter().filter(|(.., other)| *other != number);
        let mut turns = others.copied().map(Reverse).collect::<BinaryHeap<_>>();
        if turns.is_empty() {
            return count;
        }
        let mut left = BTreeMap::new();
        turns.push(Reverse((self.paid_at_least(account), Reverse(account.weight), number)));
        let mut own = 0;
        for _ in 0..count {
            let Some(Reverse((paid, weight, first))) = turns.pop() else { break };
            let Some(account) = self.queues.get(&first) else { continue };
            if first == number {
                own += 1;
            } else {
                let room = account.room().min(account.wanted);
                let left = left.entry(first).or_insert(room);
                *left = left.saturating_sub(1);
                if *left == 0 {
                    continue;
                }
            }
            turns.push(Reverse((paid + account.price(), weight, first)));
        }
        own
    }

    /// A queue pays for so many starts.
    fn pay(&mut self, number: QueueNumber, starts: usize) {
        let Some(account) = self.queues.get(&number) else { return };
        let before = self.paid_at_least(account);
        let cost = |starts: usize| account.price().saturating_mul(starts as u128);
        if let Some(others) = starts.checked_sub(1) {
            self.now = self.now.max(before.saturating_add(cost(others)));
        }
        let after = before.saturating_add(cost(starts));
        self.change(number, |account| account.paid = after);
    }

    /// What a queue has paid, raised to where the others are, less one share of the set.
    fn paid_at_least(&self, account: &Account) -> u128 {
        let share = ROUND.saturating_mul(self.size as u128) / self.weights.max(1);
        account.paid.max(self.now.saturating_sub(share))
    }

    /// Changes an account, and its turn with it.
    fn change(&mut self, number: QueueNumber, change: impl FnOnce(&mut Account)) {
        let Some(account) = self.queues.get_mut(&number) else { return };
        self.ready.remove(&(account.paid, Reverse(account.weight), number));
        change(account);
        if account.wanted > 0 && account.room() > 0 {
            self.ready.insert((account.paid, Reverse(account.weight), number));
        }
    }
}

/// A round in which a queue of weight w has w starts. Divided by the largest weight, it is exact to far
/// below one start in the lifetime of a process.
const ROUND: u128 = 1 << 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn weighted<const N: usize>(size: usize, weights: [u32; N]) -> (SlotTurns, [QueueNumber; N]) {
        let mut turns = SlotTurns::new(size);
        let numbers = weights.map(|weight| turns.join(NonZeroU32::new(weight).unwrap(), size));
        (turns, numbers)
    }

    /// Frees one slot of the queue that has had it for longest, and gives it to the next one, so often: who
    /// had the starts.
    fn starts(turns: &mut SlotTurns, running: &mut Vec<QueueNumber>, count: usize) -> Vec<u64> {
        let start = |_| {
            turns.give_back(running.remove(0), true);
            let next = turns.next().unwrap();
            running.push(next);
            next
        };
        (0..count).map(start).collect()
    }

    fn count(starts: &[QueueNumber], number: QueueNumber) -> usize {
        starts.iter().filter(|start| **start == number).count()
    }

    #[test]
    fn starts_are_in_proportion_to_weights_within_one_start_at_every_moment() {
        let (mut turns, [a, b, c]) = weighted(20, [5, 2, 1]);
        for number in [a, b, c] {
            turns.want(number, 100_000);
        }
        let mut running = Vec::from_iter((0..20).map(|_| turns.next().unwrap()));
        assert_eq!(turns.next(), None);
        let all = [running.clone(), starts(&mut turns, &mut running, 1_580)].concat();
        for had in 1..=all.len() {
            for (number, weight) in [(a, 5), (b, 2), (c, 1)] {
                let (exact, real) =
                    (had as f64 * f64::from(weight) / 8.0, count(&all[..had], number));
                assert!((real as f64 - exact).abs() <= 1.0, "{real} of {had}, not {exact}");
            }
        }
        assert_eq!([a, b, c].map(|number| count(&all, number)), [1_000, 400, 200]);
    }

    #[test]
    fn each_round_has_a_start_of_the_lightest() {
        let (mut turns, [heavy, light]) = weighted(3, [100, 1]);
        turns.want(heavy, 100_000);
        turns.want(light, 100_000);
        let mut running = Vec::from_iter((0..3).map(|_| turns.next().unwrap()));
        let all = starts(&mut turns, &mut running, 5_050);
        for round in all.chunks_exact(101) {
            assert_eq!(count(round, light), 1);
        }
    }

    #[test]
    fn one_that_had_no_work_gets_its_share_back_and_nothing_for_the_time_before() {
        let (mut turns, [urgent, bulk]) = weighted(12, [5, 1]);
        assert_eq!(turns.take(bulk, 100), 12);
        turns.want(bulk, 100_000);
        let mut running = vec![bulk; 12];
        assert!(starts(&mut turns, &mut running, 10_000).iter().all(|start| *start == bulk));
        turns.want(urgent, 100_000);
        let all = starts(&mut turns, &mut running, 120);
        assert_eq!(count(&all[..10], urgent), 10, "its share of the slots first");
        assert_eq!(count(&all[10..], urgent), 110 * 5 / 6 + 1);
        turns.want_less(urgent, 100_000);
        let all = starts(&mut turns, &mut running, 50);
        assert_eq!(count(&all, urgent), 0);
    }

    #[test]
    fn what_did_not_start_is_not_paid_for() {
        let (mut turns, [urgent, normal, bulk]) = weighted(4, [1, 1, 1]);
        // It finds no entry.
        assert_eq!(turns.take(urgent, 100), 4);
        (0..4).for_each(|_| turns.give_back(urgent, false));
        assert_eq!(turns.take(bulk, 100), 4);
        turns.want(normal, 4);
        turns.want(urgent, 4);
        turns.give_back(bulk, true);
        assert_eq!(turns.next(), Some(urgent), "as the older one of two that have had nothing");
    }

    /// One of two ends a job and takes no part in the turns, as it acknowledges, while the other one waits.
    #[test]
    fn slots_that_are_reused_are_paid_for() {
        let (mut turns, [a, b]) = weighted(4, [3, 1]);
        assert_eq!(turns.take(a, 100), 4);
        turns.start_again(a, 1_000);
        let (mut running, mut all) = (vec![a; 4], Vec::new());
        for _ in 0..404 {
            let ended = running.remove(0);
            let other = if ended == a { b } else { a };
            turns.want(other, 1);
            if turns.entitled(ended, 1) == 1 {
                turns.start_again(ended, 1);
                turns.want_less(other, 1);
                running.push(ended);
            } else {
                turns.give_back(ended, true);
                assert_eq!(turns.next(), Some(other));
                running.push(other);
            }
            all.extend(running.last().copied());
        }
        assert_eq!((count(&all[4..], a), count(&all[4..], b)), (300, 100));
    }

    #[test]
    fn entitlement_is_what_would_be_given() {
        let (mut turns, [a, b, c]) = weighted(20, [5, 2, 1]);
        assert_eq!(turns.take(a, 100), 20);
        turns.want(b, 2);
        turns.want(c, 100);
        let entitled = turns.entitled(a, 20);
        turns.want(a, 100);
        let mut running = vec![a; 20];
        let all = starts(&mut turns, &mut running, 20);
        assert_eq!((entitled, count(&all, b)), (count(&all, a), 2));
    }

    #[test]
    fn none_has_more_than_its_own_concurrency_and_the_others_have_the_rest() {
        let mut turns = SlotTurns::new(4);
        let one = NonZeroU32::MIN;
        let (a, b) = (turns.join(one, 1), turns.join(one, 9));
        turns.want(a, 9);
        turns.want(b, 9);
        let given = Vec::from_iter(std::iter::from_fn(|| turns.next()));
        assert_eq!((count(&given, a), count(&given, b)), (1, 3));
        turns.give_back(b, true);
        assert_eq!(turns.next(), Some(b));
        turns.resize(b, 1);
        assert_eq!((turns.owed(b), turns.next()), (2, None));
        turns.give_back(b, true);
        assert_eq!((turns.next(), turns.free_for(b)), (None, 0));
        turns.resize(a, 2);
        assert_eq!((turns.next(), turns.next()), (Some(a), None));
        turns.resize(a, 9);
        assert_eq!(turns.most(a), 4, "no more than there are");
    }

    #[test]
    fn a_queue_that_leaves_leaves_nothing() {
        let (mut turns, [a, b]) = weighted(4, [1, 1]);
        assert_eq!(turns.take(a, 3), 3);
        turns.want(a, 5);
        turns.leave(a);
        assert_eq!((turns.in_use(), turns.next(), turns.take(b, 9)), (0, None, 4));
        turns.give_back(b, true);
        assert_eq!(turns.in_use(), 3);
    }
}
