//! The demo's own count, which uses nothing that the framework counts: pure.

use std::collections::{HashMap, HashSet, VecDeque};

use serde::Serialize;

use crate::live::desk::{Became, Told};

/// What was published and what became of it, by event id, as far as this demo run knows.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    published: HashSet<String>,
    groups: HashMap<String, Book>,
    consumers: HashMap<String, Recent>,
}

/// One group's part of it.
#[derive(Debug, Default)]
struct Book {
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

/// Events published up to a moment before the server was asked what waits.
#[derive(Clone, Debug)]
pub(crate) struct Published(Vec<String>);

impl Ledger {
    pub(crate) fn publish(&mut self, event_id: &str) {
        self.published.insert(event_id.to_owned());
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

    pub(crate) fn bury(&mut self, group: &str, event_id: &str) {
        self.groups.entry(group.to_owned()).or_default().dead.insert(event_id.to_owned());
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
        Published(self.published.iter().cloned().collect())
    }

    pub(crate) fn figures(&self, group: &str, published: &Published, waiting: u64) -> Figures {
        let nothing = Book::default();
        let book = self.groups.get(group).unwrap_or(&nothing);
        let of_this_run = |id: &&String| self.published.contains(*id);
        let ended = |id: &&String| !book.done.contains_key(*id) && !book.dead.contains(*id);
        let open = published.0.iter().filter(ended).count();
        Figures {
            published: published.0.len(),
            done: book.done.keys().filter(of_this_run).count(),
            dead: book
                .dead
                .iter()
                .filter(of_this_run)
                .filter(|id| !book.done.contains_key(*id))
                .count(),
            waiting,
            lost: (open as u64).saturating_sub(waiting),
            doubled: book.done.values().filter(|times| **times > 1).count(),
        }
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

    fn figures(ledger: &Ledger, waiting: u64) -> Figures {
        ledger.figures("g", &ledger.published(), waiting)
    }

    #[test]
    fn what_is_neither_done_nor_dead_nor_waiting_is_lost() {
        let mut ledger = Ledger::default();
        for id in ["a", "b", "c", "d"] {
            ledger.publish(id);
        }
        ledger.tell(told("a", Became::Done));
        ledger.bury("g", "b");
        let one = figures(&ledger, 1);
        assert_eq!((one.published, one.done, one.dead, one.waiting, one.lost), (4, 1, 1, 1, 1));
        assert_eq!(figures(&ledger, 2).lost, 0);
        assert_eq!(ledger.figures("other", &ledger.published(), 0).lost, 4);
    }

    #[test]
    fn what_is_published_or_done_meanwhile_is_never_a_loss() {
        let mut ledger = Ledger::default();
        ledger.publish("a");
        let before = ledger.published();
        ledger.publish("b");
        assert_eq!(ledger.figures("g", &before, 2).lost, 0);
        ledger.tell(told("a", Became::Done));
        assert_eq!(ledger.figures("g", &before, 1).lost, 0, "done, and not yet acknowledged");
    }

    #[test]
    fn what_is_done_twice_is_doubled_and_a_redriven_letter_is_done() {
        let mut ledger = Ledger::default();
        ledger.publish("a");
        ledger.bury("g", "a");
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
