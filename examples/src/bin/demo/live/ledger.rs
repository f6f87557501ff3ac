//! The demo's own counter, independent of the framework's counters. Pure.

use std::collections::{HashMap, HashSet, VecDeque};

use serde::Serialize;
use streamjobs::EntryId;

use crate::live::simulation::{Delivery, DeliveryResult};

/// Published events and their results by event id, for this run of the demo.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// In the order in which they were accepted.
    published: Vec<Event>,
    groups: HashMap<String, GroupLedger>,
    consumers: HashMap<String, Recent>,
}

/// An event that was accepted.
#[derive(Debug)]
struct Event {
    id: String,
    /// Its entry; the largest id if unknown.
    entry: EntryId,
}

/// The results of one group.
#[derive(Debug, Default)]
struct GroupLedger {
    /// Events before this id were trimmed before the group existed, and do not count for it.
    begins: EntryId,
    /// How often each event was done.
    done: HashMap<String, u32>,
    /// Events that have been dead letters.
    dead: HashSet<String>,
}

/// The latest deliveries of one consumer, newest first, and its totals.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Recent {
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) dropped: u64,
    pub(crate) deliveries: VecDeque<Delivery>,
}

/// The figures of one group, from the ledger and from the server's unfinished jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Figures {
    pub(crate) published: usize,
    pub(crate) done: usize,
    /// Events of this run that have been dead letters and are not done.
    pub(crate) dead: usize,
    /// Undelivered, pending, or waiting for a retry, as reported by the server.
    pub(crate) waiting: u64,
    /// Neither done, nor dead, nor waiting. Can be too low while jobs run, never too high.
    pub(crate) lost: u64,
    /// Events that were done more than once, after a crash between the effect and the acknowledgement.
    pub(crate) duplicates: usize,
}

/// The number of events that were published before the server was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published(usize);

/// The unfinished jobs of a group, as reported by the server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waiting {
    /// Pending, or waiting for a retry.
    pub(crate) taken: u64,
    /// Not delivered.
    pub(crate) backlog: u64,
    /// If the backlog is only a lower bound: the first undelivered id.
    pub(crate) undelivered: Option<EntryId>,
}

impl Ledger {
    pub(crate) fn publish(&mut self, id: &str, entry: Option<EntryId>) {
        let entry = entry.unwrap_or(EntryId::MAX);
        self.published.push(Event { id: id.to_owned(), entry });
    }

    pub(crate) fn tell(&mut self, delivery: Delivery) {
        let recent = self.consumers.entry(delivery.consumer.clone()).or_default();
        match delivery.result {
            DeliveryResult::Done => {
                recent.done += 1;
                let book = self.groups.entry(delivery.group.clone()).or_default();
                *book.done.entry(delivery.event_id.clone()).or_default() += 1;
            }
            DeliveryResult::Failed => recent.failed += 1,
            DeliveryResult::Dropped => recent.dropped += 1,
        }
        recent.deliveries.truncate(DELIVERIES_MAX - 1);
        recent.deliveries.push_front(delivery);
    }

    pub(crate) fn dead_letter(&mut self, group: &str, event_id: &str) {
        self.groups.entry(group.to_owned()).or_default().dead.insert(event_id.to_owned());
    }

    /// Records a group that was created after events had been published: its first entry is `first`.
    pub(crate) fn begin(&mut self, group: &str, first: EntryId) {
        self.groups.entry(group.to_owned()).or_default().begins = first;
    }

    /// Forgets a destroyed group. If it is created again, it processes the whole history again.
    pub(crate) fn forget(&mut self, group: &str) {
        self.groups.remove(group);
    }

    pub(crate) fn recent(&self, consumer: &str) -> Recent {
        self.consumers.get(consumer).cloned().unwrap_or_default()
    }

    pub(crate) fn total(&self) -> usize {
        self.published.len()
    }

    /// Call before reading the group from the server, and [`figures`](Self::figures) afterwards, so that
    /// a job that is done in between does not count as lost.
    pub(crate) fn published(&self) -> Published {
        Published(self.published.len())
    }

    pub(crate) fn figures(&self, group: &str, published: Published, waiting: Waiting) -> Figures {
        let nothing = GroupLedger::default();
        let book = self.groups.get(group).unwrap_or(&nothing);
        let (mut figures, mut open, mut undelivered) = (Figures::default(), 0, 0);
        for event in self.published.iter().take(published.0) {
            if book.done.contains_key(&event.id) {
                figures.done += 1;
            } else if book.dead.contains(&event.id) {
                figures.dead += 1;
            } else if event.entry >= book.begins {
                open += 1;
                undelivered += u64::from(waiting.undelivered.is_some_and(|id| event.entry >= id));
            } else {
                continue;
            }
            figures.published += 1;
        }
        figures.waiting = waiting.taken + waiting.backlog.max(undelivered);
        figures.lost = u64::saturating_sub(open, figures.waiting);
        figures.duplicates = book.done.values().filter(|times| **times > 1).count();
        figures
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

const DELIVERIES_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(event_id: &str, result: DeliveryResult) -> Delivery {
        Delivery {
            group: "g".into(),
            consumer: "worker-a".into(),
            event_id: event_id.into(),
            entry_id: "1-1".into(),
            event_type: "order.placed".into(),
            order_id: "o-1".into(),
            customer: "alice".into(),
            amount: "1.00".into(),
            delivery_count: 1,
            result,
        }
    }

    fn waiting(taken: u64) -> Waiting {
        Waiting { taken, ..Waiting::default() }
    }

    fn figures(ledger: &Ledger, taken: u64) -> Figures {
        ledger.figures("g", ledger.published(), waiting(taken))
    }

    fn at(milliseconds: u64) -> EntryId {
        EntryId::new(milliseconds, 0)
    }

    #[test]
    fn events_that_are_neither_done_nor_dead_nor_waiting_are_lost() {
        let mut ledger = Ledger::default();
        for id in ["a", "b", "c", "d"] {
            ledger.publish(id, None);
        }
        ledger.tell(delivery("a", DeliveryResult::Done));
        ledger.dead_letter("g", "b");
        let one = figures(&ledger, 1);
        assert_eq!((one.published, one.done, one.dead, one.waiting, one.lost), (4, 1, 1, 1, 1));
        assert_eq!(figures(&ledger, 2).lost, 0);
        assert_eq!(ledger.figures("other", ledger.published(), waiting(0)).lost, 4);
    }

    #[test]
    fn events_published_or_done_meanwhile_are_not_lost() {
        let mut ledger = Ledger::default();
        ledger.publish("a", None);
        let before = ledger.published();
        ledger.publish("b", None);
        assert_eq!(ledger.figures("g", before, waiting(2)).lost, 0);
        ledger.tell(delivery("a", DeliveryResult::Done));
        assert_eq!(
            ledger.figures("g", before, waiting(1)).lost,
            0,
            "done, and not yet acknowledged"
        );
    }

    #[test]
    fn events_done_twice_are_duplicates_and_a_redriven_letter_is_done() {
        let mut ledger = Ledger::default();
        ledger.publish("a", None);
        ledger.dead_letter("g", "a");
        ledger.tell(delivery("a", DeliveryResult::Failed));
        ledger.tell(delivery("a", DeliveryResult::Done));
        assert_eq!((figures(&ledger, 0).done, figures(&ledger, 0).dead), (1, 0));
        assert_eq!(figures(&ledger, 0).duplicates, 0);
        ledger.tell(delivery("a", DeliveryResult::Done));
        assert_eq!(figures(&ledger, 0).duplicates, 1);
    }

    #[test]
    fn events_of_earlier_runs_count_neither_as_done_nor_as_lost() {
        let mut ledger = Ledger::default();
        ledger.tell(delivery("old", DeliveryResult::Done));
        assert_eq!(figures(&ledger, 0), Figures::default());
    }

    #[test]
    fn events_trimmed_before_a_group_was_created_are_not_lost() {
        let mut ledger = Ledger::default();
        for (id, entry) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
            ledger.publish(id, Some(at(entry)));
        }
        ledger.begin("g", at(3));
        ledger.tell(delivery("b", DeliveryResult::Done));
        ledger.tell(delivery("c", DeliveryResult::Done));
        let found = figures(&ledger, 0);
        assert_eq!(
            (found.published, found.done, found.lost),
            (3, 2, 1),
            "b was done before it was trimmed"
        );
        ledger.forget("g");
        assert_eq!(figures(&ledger, 4), Figures { published: 4, waiting: 4, ..Figures::default() });
    }

    #[test]
    fn entries_that_the_server_cannot_count_are_not_lost() {
        let mut ledger = Ledger::default();
        for entry in 1..=10 {
            ledger.publish(&entry.to_string(), Some(at(entry)));
        }
        ledger.tell(delivery("1", DeliveryResult::Done));
        let some = Waiting { taken: 1, backlog: 4, undelivered: Some(at(3)) };
        let found = ledger.figures("g", ledger.published(), some);
        assert_eq!((found.waiting, found.lost), (9, 0));
        let trimmed = Waiting { undelivered: Some(at(6)), ..some };
        assert_eq!(
            ledger.figures("g", ledger.published(), trimmed).lost,
            3,
            "2 is taken, 3 to 5 gone"
        );
        let all = Waiting { undelivered: None, ..some };
        assert_eq!(ledger.figures("g", ledger.published(), all).lost, 4, "an exact count is used");
    }

    #[test]
    fn each_consumer_keeps_its_latest_and_counts_all() {
        let mut ledger = Ledger::default();
        for number in 0..30 {
            ledger.tell(delivery(&number.to_string(), DeliveryResult::Done));
        }
        ledger.tell(delivery("x", DeliveryResult::Dropped));
        let recent = ledger.recent("worker-a");
        assert_eq!((recent.done, recent.dropped, recent.deliveries.len()), (30, 1, DELIVERIES_MAX));
        assert_eq!(
            recent.deliveries.front().map(|delivery| delivery.result),
            Some(DeliveryResult::Dropped)
        );
    }
}
