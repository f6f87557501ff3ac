//! The demo's own count, which uses nothing that the framework counts: pure.

use std::collections::{HashMap, HashSet, VecDeque};

use serde::Serialize;
use streamjobs::EntryId;

use crate::live::desk::{Became, Told};

/// What was published and what became of it, by event id, as far as this demo run knows.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// In the order of their answers.
    published: Vec<Event>,
    groups: HashMap<String, Book>,
    consumers: HashMap<String, Recent>,
}

/// An event that was accepted.
#[derive(Debug)]
struct Event {
    id: String,
    /// Its entry; the largest id if nobody knows.
    entry: EntryId,
}

/// One group's part of it.
#[derive(Debug, Default)]
struct Book {
    /// What went out of the stream before this is not the group's, which did not exist then.
    begins: EntryId,
    /// How often each event was done.
    done: HashMap<String, u32>,
    /// Events that were dead letters at some time.
    dead: HashSet<String>,
}

/// What one consumer told lately, newest first, and how often.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Recent {
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) dropped: u64,
    pub(crate) told: VecDeque<Told>,
}

/// What stands in the ledger of one group, beside what the server says is still to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Figures {
    pub(crate) published: usize,
    pub(crate) done: usize,
    /// Events of this run that were dead letters at some time and are not done.
    pub(crate) dead: usize,
    /// Not delivered, pending or set aside, as the server says.
    pub(crate) waiting: u64,
    /// Neither done, nor dead, nor waiting. Less than the truth while much is under way, never more.
    pub(crate) lost: u64,
    /// Events that were done more than once: after a crash between the deed and its
    /// acknowledgement.
    pub(crate) doubled: usize,
}

/// How many events were published up to a moment before the server was asked what waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published(usize);

/// What the server says that a group has still to do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waiting {
    /// Pending or set aside.
    pub(crate) taken: u64,
    /// Not delivered.
    pub(crate) backlog: u64,
    /// Where the server counts the backlog only in part: from here on nothing is delivered.
    pub(crate) undelivered: Option<EntryId>,
}

impl Ledger {
    pub(crate) fn publish(&mut self, id: &str, entry: Option<EntryId>) {
        let entry = entry.unwrap_or(EntryId::MAX);
        self.published.push(Event { id: id.to_owned(), entry });
    }

    pub(crate) fn tell(&mut self, told: Told) {
        let recent = self.consumers.entry(told.consumer.clone()).or_default();
        match told.became {
            Became::Done => {
                recent.done += 1;
                let book = self.groups.entry(told.group.clone()).or_default();
                *book.done.entry(told.event_id.clone()).or_default() += 1;
            }
            Became::Failed => recent.failed += 1,
            Became::Dropped => recent.dropped += 1,
        }
        recent.told.truncate(TOLD_MAX - 1);
        recent.told.push_front(told);
    }

    pub(crate) fn dead_letter(&mut self, group: &str, event_id: &str) {
        self.groups.entry(group.to_owned()).or_default().dead.insert(event_id.to_owned());
    }

    /// A group that was made after events had been published: the stream begins with `first` for it.
    pub(crate) fn begin(&mut self, group: &str, first: EntryId) {
        self.groups.entry(group.to_owned()).or_default().begins = first;
    }

    /// A group that is gone. Should it be made again, it does all of history again.
    pub(crate) fn forget(&mut self, group: &str) {
        self.groups.remove(group);
    }

    pub(crate) fn recent(&self, consumer: &str) -> Recent {
        self.consumers.get(consumer).cloned().unwrap_or_default()
    }

    pub(crate) fn total(&self) -> usize {
        self.published.len()
    }

    /// Taken before the server is asked what waits for a group; [`figures`](Self::figures) come
    /// after. A job that is done in between is counted on neither side as lost.
    pub(crate) fn published(&self) -> Published {
        Published(self.published.len())
    }

    pub(crate) fn figures(&self, group: &str, published: Published, waiting: Waiting) -> Figures {
        let nothing = Book::default();
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
        figures.doubled = book.done.values().filter(|times| **times > 1).count();
        figures
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

const TOLD_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn told(event_id: &str, became: Became) -> Told {
        Told {
            group: "g".into(),
            consumer: "worker-a".into(),
            event_id: event_id.into(),
            entry_id: "1-1".into(),
            event_type: "order.placed".into(),
            order_id: "o-1".into(),
            customer: "alice".into(),
            amount: "1.00".into(),
            delivery_count: 1,
            became,
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
    fn what_is_neither_done_nor_dead_nor_waiting_is_lost() {
        let mut ledger = Ledger::default();
        for id in ["a", "b", "c", "d"] {
            ledger.publish(id, None);
        }
        ledger.tell(told("a", Became::Done));
        ledger.dead_letter("g", "b");
        let one = figures(&ledger, 1);
        assert_eq!((one.published, one.done, one.dead, one.waiting, one.lost), (4, 1, 1, 1, 1));
        assert_eq!(figures(&ledger, 2).lost, 0);
        assert_eq!(ledger.figures("other", ledger.published(), waiting(0)).lost, 4);
    }

    #[test]
    fn what_is_published_or_done_meanwhile_is_never_a_loss() {
        let mut ledger = Ledger::default();
        ledger.publish("a", None);
        let before = ledger.published();
        ledger.publish("b", None);
        assert_eq!(ledger.figures("g", before, waiting(2)).lost, 0);
        ledger.tell(told("a", Became::Done));
        assert_eq!(
            ledger.figures("g", before, waiting(1)).lost,
            0,
            "done, and not yet acknowledged"
        );
    }

    #[test]
    fn what_is_done_twice_is_doubled_and_a_redriven_letter_is_done() {
        let mut ledger = Ledger::default();
        ledger.publish("a", None);
        ledger.dead_letter("g", "a");
        ledger.tell(told("a", Became::Failed));
        ledger.tell(told("a", Became::Done));
        assert_eq!((figures(&ledger, 0).done, figures(&ledger, 0).dead), (1, 0));
        assert_eq!(figures(&ledger, 0).doubled, 0);
        ledger.tell(told("a", Became::Done));
        assert_eq!(figures(&ledger, 0).doubled, 1);
    }

    #[test]
    fn events_of_earlier_runs_count_neither_as_done_nor_as_lost() {
        let mut ledger = Ledger::default();
        ledger.tell(told("old", Became::Done));
        assert_eq!(figures(&ledger, 0), Figures::default());
    }

    #[test]
    fn what_was_gone_before_a_group_was_made_is_no_loss_of_its() {
        let mut ledger = Ledger::default();
        for (id, entry) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
            ledger.publish(id, Some(at(entry)));
        }
        ledger.begin("g", at(3));
        ledger.tell(told("b", Became::Done));
        ledger.tell(told("c", Became::Done));
        let found = figures(&ledger, 0);
        assert_eq!(
            (found.published, found.done, found.lost),
            (3, 2, 1),
            "b was done before it went"
        );
        ledger.forget("g");
        assert_eq!(figures(&ledger, 4), Figures { published: 4, waiting: 4, ..Figures::default() });
    }

    #[test]
    fn what_a_server_cannot_count_is_no_loss() {
        let mut ledger = Ledger::default();
        for entry in 1..=10 {
            ledger.publish(&entry.to_string(), Some(at(entry)));
        }
        ledger.tell(told("1", Became::Done));
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
        assert_eq!(
            ledger.figures("g", ledger.published(), all).lost,
            4,
            "a full count is believed"
        );
    }

    #[test]
    fn each_consumer_keeps_its_latest_and_counts_all() {
        let mut ledger = Ledger::default();
        for number in 0..30 {
            ledger.tell(told(&number.to_string(), Became::Done));
        }
        ledger.tell(told("x", Became::Dropped));
        let recent = ledger.recent("worker-a");
        assert_eq!((recent.done, recent.dropped, recent.told.len()), (30, 1, TOLD_MAX));
        assert_eq!(recent.told.front().map(|told| told.became), Some(Became::Dropped));
    }
}
