//! The demo's own counter of events, independent of the framework and of the servers. Pure.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use serde::Serialize;
use streamjobs::EntryId;

/// Events by their ids, and what became of them.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    events: HashMap<String, Event>,
    /// The partition of each customer, as the customer's first job has shown.
    places: HashMap<String, String>,
    kills: Vec<Kill>,
}

#[derive(Debug, Default)]
struct Event {
    customer: String,
    /// Its entry, and when the server confirmed it; `None` until then.
    confirmed: Option<(EntryId, Instant)>,
    /// How often it was done.
    done: u32,
    /// Whether its partition does not have it any more, although it was not done.
    is_gone: bool,
}

/// A master that was killed.
#[derive(Debug)]
struct Kill {
    at: Instant,
    partitions: HashSet<String>,
}

/// An event that takes long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overdue {
    pub(crate) id: String,
    pub(crate) partition: String,
    pub(crate) entry: EntryId,
}

/// The counts of all events, or of those in one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Figures {
    /// Events that a server has confirmed.
    pub(crate) published: u64,
    pub(crate) done: u64,
    /// Confirmed, not done, and as far as is known still in their partition.
    pub(crate) waiting: u64,
    /// Done more than once.
    pub(crate) duplicates: u64,
    /// Gone with a killed master that had confirmed them in its last moments: its replica did not have them.
    pub(crate) unreplicated: u64,
    /// Gone without such a reason.
    pub(crate) lost: u64,
}

impl Ledger {
    /// A server has confirmed an event.
    pub(crate) fn published(&mut self, id: &str, customer: &str, entry: EntryId, at: Instant) {
        let event = self.events.entry(id.to_owned()).or_default();
        customer.clone_into(&mut event.customer);
        event.confirmed = Some((entry, at));
    }

    /// A handler has done an event, which may not be confirmed yet.
    pub(crate) fn done(&mut self, id: &str, customer: &str, partition: &str) {
        let event = self.events.entry(id.to_owned()).or_default();
        customer.clone_into(&mut event.customer);
        event.done += 1;
        if !self.places.contains_key(customer) {
            self.places.insert(customer.to_owned(), partition.to_owned());
        }
    }

    /// The master of these partitions is about to be killed.
    pub(crate) fn killed(&mut self, partitions: impl IntoIterator<Item = String>, at: Instant) {
        self.kills.push(Kill { at, partitions: partitions.into_iter().collect() });
    }

    /// The partition has not got the event any more. It was not done either, unless a handler is at it.
    pub(crate) fn gone(&mut self, id: &str) {
        if let Some(event) = self.events.get_mut(id) {
            event.is_gone = true;
        }
    }

    /// Some of the events that were confirmed so long ago and are not done.
    pub(crate) fn overdue(&self, now: Instant, after: Duration, limit: usize) -> Vec<Overdue> {
        let overdue = self.events.iter().filter_map(|(id, event)| {
            let (entry, at) = event.confirmed?;
            let is_late = now.saturating_duration_since(at) > after;
            if !is_late || event.done > 0 || event.is_gone {
                return None;
            }
            let partition = self.places.get(&event.customer)?.clone();
            Some(Overdue { id: id.clone(), partition, entry })
        });
        overdue.take(limit).collect()
    }

    pub(crate) fn total(&self) -> Figures {
        self.count(|_| true)
    }

    pub(crate) fn of_partition(&self, partition: &str) -> Figures {
        self.count(|place| place == Some(partition))
    }

    fn count(&self, is_meant: impl Fn(Option<&str>) -> bool) -> Figures {
        let mut figures = Figures::default();
        for event in self.events.values() {
            let partition = self.places.get(&event.customer).map(String::as_str);
            let Some((_, confirmed)) = event.confirmed else { continue };
            if !is_meant(partition) {
                continue;
            }
            figures.published += 1;
            figures.done += u64::from(event.done > 0);
            figures.duplicates += u64::from(event.done > 1);
            match (event.done, event.is_gone) {
                (0, false) => figures.waiting += 1,
                (0, true) if self.was_killed(partition, confirmed) => figures.unreplicated += 1,
                (0, true) => figures.lost += 1,
                _ => {}
            }
        }
        figures
    }

    /// Whether the master that confirmed something then was killed a moment later.
    fn was_killed(&self, partition: Option<&str>, confirmed: Instant) -> bool {
        self.kills.iter().any(|kill| {
            partition.is_some_and(|partition| kill.partitions.contains(partition))
                // The answer may have been read after the kill.
                && confirmed < kill.at + LAST_MOMENTS
                && kill.at < confirmed + LAST_MOMENTS
        })
    }
}

/// A replica on the same machine is behind by much less.
const LAST_MOMENTS: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> EntryId {
        EntryId::new(milliseconds, 0)
    }

    /// Two events of a customer in partition `p1`, of which the first is done.
    fn two(now: Instant) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.done("a", "alice", "p1");
        ledger.published("a", "alice", at(1), now);
        ledger.published("b", "alice", at(2), now);
        ledger
    }

    #[test]
    fn an_event_counts_once_it_is_confirmed_even_if_it_was_done_before() {
        let now = Instant::now();
        let mut ledger = Ledger::default();
        ledger.done("a", "alice", "p1");
        assert_eq!(ledger.total(), Figures::default());
        ledger.published("a", "alice", at(1), now);
        assert_eq!(ledger.total(), Figures { published: 1, done: 1, ..Figures::default() });
        ledger.done("a", "alice", "p1");
        assert_eq!(ledger.total().duplicates, 1);
    }

    #[test]
    fn what_waits_is_overdue_after_a_while_with_its_partition_and_entry() {
        let now = Instant::now();
        let mut ledger = two(now);
        ledger.published("c", "never seen", at(3), now);
        let (soon, late) = (Duration::from_secs(1), Duration::from_secs(11));
        assert_eq!(ledger.overdue(now + soon, Duration::from_secs(10), 9), []);
        let expected = Overdue { id: "b".into(), partition: "p1".into(), entry: at(2) };
        assert_eq!(ledger.overdue(now + late, Duration::from_secs(10), 9), [expected]);
        assert_eq!(ledger.overdue(now + late, Duration::from_secs(10), 0), []);
        ledger.gone("b");
        assert_eq!(ledger.overdue(now + late, Duration::from_secs(10), 9), []);
        assert_eq!(ledger.of_partition("p1").published, 2);
        assert_eq!((ledger.total().published, ledger.of_partition("p2").published), (3, 0));
    }

    #[test]
    fn what_is_gone_is_lost_unless_its_master_was_killed_at_that_moment() {
        let now = Instant::now();
        let figures = |kills: &[(&str, Duration)]| {
            let mut ledger = two(now);
            for (partition, after) in kills {
                ledger.killed([(*partition).to_owned()], now + *after);
            }
            ledger.gone("b");
            let figures = ledger.total();
            (figures.unreplicated, figures.lost, figures.waiting)
        };
        let (soon, later) = (Duration::from_millis(100), Duration::from_secs(3));
        assert_eq!(figures(&[]), (0, 1, 0));
        assert_eq!(figures(&[("p1", soon)]), (1, 0, 0));
        assert_eq!(figures(&[("p1", later)]), (0, 1, 0), "its replica had it long before");
        assert_eq!(figures(&[("p2", soon)]), (0, 1, 0), "another master");
    }

    #[test]
    fn an_event_that_was_done_after_all_is_not_lost() {
        let mut ledger = two(Instant::now());
        ledger.gone("b");
        ledger.done("b", "alice", "p1");
        assert_eq!((ledger.total().lost, ledger.total().done), (0, 2));
    }
}
