//! Which jobs of a stream are cancelled, as this process has learnt it from the server.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::entry::Entry;
use crate::model::event::Envelope;
use crate::model::record::redriven_after;
use crate::runtime::state::lock;
use crate::store::{CancelMark, Queue};

/// The marks of one stream, shared by its queues in this process.
#[derive(Debug, Default)]
pub(crate) struct CancelledJobs {
    marks: Mutex<HashMap<String, Vec<Mark>>>,
    /// The number of the last mark; zero without marks.
    known: AtomicU64,
    /// How often marks were learnt.
    changes: AtomicU64,
    /// One queue learns at a time.
    pub(crate) learning: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Mark {
    group: Option<String>,
    number: u64,
}

impl CancelledJobs {
    /// The number of the last mark that this process knows.
    pub(crate) fn known(&self) -> u64 {
        self.known.load(Ordering::Acquire)
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Adds marks, or replaces all of them. The last one there is has the number `last`.
    pub(crate) fn learn(&self, marks: Vec<CancelMark>, last: u64, replaces_all: bool) {
        let mut known = lock(&self.marks);
        if replaces_all {
            known.clear();
        }
        for CancelMark { event_id, group, number } in marks {
            let of_event = known.entry(event_id).or_default();
            of_event.retain(|mark| mark.group != group);
            of_event.push(Mark { group, number });
        }
        drop(known);
        self.known.store(last, Ordering::Release);
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the job of an entry is cancelled in a group. A redrive since then lets it run.
    pub(crate) fn contain(&self, queue: &Queue, envelope: &Envelope, entry: &Entry) -> bool {
        if self.known() == 0 {
            return false;
        }
        let marks = lock(&self.marks);
        let Some(of_event) = marks.get(envelope.event_id.as_str()) else { return false };
        let redriven = redriven_after(entry);
        of_event.iter().any(|mark| {
            let is_of_group =
                mark.group.as_deref().is_none_or(|group| group == queue.group.as_str());
            is_of_group && mark.number > redriven
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::entry::EntryId;
    use crate::model::name::{EventId, GroupName, StreamName};

    fn mark(event_id: &str, group: Option<&str>, number: u64) -> CancelMark {
        CancelMark { event_id: event_id.to_owned(), group: group.map(str::to_owned), number }
    }

    fn is_cancelled(jobs: &CancelledJobs, group: &str, id: &str, redriven: Option<&str>) -> bool {
        let (stream, group) = (StreamName::new("orders"), GroupName::new(group));
        let queue = Queue { stream: stream.unwrap(), group: group.unwrap() };
        let event_id = EventId::new(id).unwrap();
        let envelope = Envelope { event_id, failures: 0, origin: None };
        let fields = redriven.map(|number| ("sj-redriven".into(), number.to_owned().into()));
        let entry = Entry::new(EntryId::new(1, 0), fields.into_iter().collect());
        jobs.contain(&queue, &envelope, &entry)
    }

    #[test]
    fn a_mark_is_for_one_group_or_for_all_and_a_redrive_outdates_it() {
        let jobs = CancelledJobs::default();
        assert!(!is_cancelled(&jobs, "mail", "e-1", None));
        jobs.learn(vec![mark("e-1", Some("mail"), 5), mark("e-2", None, 6)], 6, false);
        assert!(is_cancelled(&jobs, "mail", "e-1", None));
        assert!(!is_cancelled(&jobs, "stock", "e-1", None), "of another group");
        assert!(is_cancelled(&jobs, "stock", "e-2", None));
        assert!(!is_cancelled(&jobs, "mail", "e-1", Some("5")), "redriven since");
        jobs.learn(vec![mark("e-1", Some("mail"), 7)], 7, false);
        assert!(is_cancelled(&jobs, "mail", "e-1", Some("5")), "cancelled again");
        jobs.learn(vec![mark("e-1", Some("mail"), 7)], 8, true);
        assert!(!is_cancelled(&jobs, "stock", "e-2", None), "its mark was removed");
        assert_eq!((jobs.known(), jobs.changes()), (8, 3));
    }
}
