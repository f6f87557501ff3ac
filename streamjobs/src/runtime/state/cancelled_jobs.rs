//! Which jobs of a stream are cancelled, as this process has learned from the server.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::model::entry::Entry;
use crate::model::event::Envelope;
use crate::model::record::redriven_after;
use crate::runtime::state::lock;
use crate::store::cancels::MARKS_MAX;
use crate::store::{CancelMark, Queue};

/// The marks of one stream, shared by its queues in this process.
#[derive(Debug, Default)]
pub(crate) struct CancelledJobs {
    marks: Mutex<HashMap<String, Vec<Mark>>>,
    /// The number of the last mark; zero without marks.
    known: AtomicU64,
    /// How often marks were learned.
    changes: AtomicU64,
    /// When the server was last asked for marks.
    asked: Mutex<Option<Instant>>,
    /// Held by the queue that is learning marks: only one queue learns at a time.
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

    /// Whether there may be unknown marks, given the number of the last mark in an answer. A lower number
    /// means that the answer belongs to an older request, or that the marks were lost.
    pub(crate) fn is_news(&self, last: u64, sent: Instant) -> bool {
        let known = self.known();
        last > known || (last < known && lock(&self.asked).is_none_or(|asked| sent > asked))
    }

    /// Adds marks, or replaces all of them. `last` is the number of the last mark, by the answers to
    /// requests that were sent since `asked`.
    pub(crate) fn learn(
        &self,
        marks: Vec<CancelMark>,
        last: u64,
        replaces_all: bool,
        asked: Instant,
    ) {
        let mut known = lock(&self.marks);
        if replaces_all {
            known.clear();
        }
        for CancelMark { event_id, group, number } in marks {
            let of_event = known.entry(event_id).or_default();
            of_event.retain(|mark| mark.group != group);
            of_event.push(Mark { group, number });
        }
        forget_oldest(&mut known);
        drop(known);
        *lock(&self.asked) = Some(asked);
        self.known.store(last, Ordering::Release);
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the job of an entry is cancelled in a group. A job that was redriven after the mark is not cancelled.
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

/// Keeps the newest marks, as many as the server keeps.
fn forget_oldest(marks: &mut HashMap<String, Vec<Mark>>) {
    let count = marks.values().map(Vec::len).sum::<usize>();
    if count <= MARKS_MAX + MARKS_MAX / 100 {
        return;
    }
    let mut numbers = marks.values().flatten().map(|mark| mark.number).collect::<Vec<_>>();
    numbers.sort_unstable();
    let oldest = numbers.get(count - MARKS_MAX).copied().unwrap_or(0);
    marks.retain(|_, of_event| {
        of_event.retain(|mark| mark.number >= oldest);
        !of_event.is_empty()
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        jobs.learn(
            vec![mark("e-1", Some("mail"), 5), mark("e-2", None, 6)],
            6,
            false,
            Instant::now(),
        );
        assert!(is_cancelled(&jobs, "mail", "e-1", None));
        assert!(!is_cancelled(&jobs, "stock", "e-1", None), "of another group");
        assert!(is_cancelled(&jobs, "stock", "e-2", None));
        assert!(!is_cancelled(&jobs, "mail", "e-1", Some("5")), "redriven since");
        jobs.learn(vec![mark("e-1", Some("mail"), 7)], 7, false, Instant::now());
        assert!(is_cancelled(&jobs, "mail", "e-1", Some("5")), "cancelled again");
        jobs.learn(vec![mark("e-1", Some("mail"), 7)], 8, true, Instant::now());
        assert!(!is_cancelled(&jobs, "stock", "e-2", None), "its mark was removed");
        assert_eq!((jobs.known(), jobs.changes()), (8, 3));
    }

    #[test]
    fn a_lower_number_is_news_only_in_the_answer_to_a_later_request() {
        let (jobs, before) = (CancelledJobs::default(), Instant::now());
        let (asked, after) = (before + Duration::from_millis(1), before + Duration::from_millis(2));
        assert!(jobs.is_news(9, before) && !jobs.is_news(0, before));
        jobs.learn(vec![mark("e-1", None, 11)], 11, false, asked);
        assert!(!jobs.is_news(10, before), "it was sent before the marks were read");
        assert!(jobs.is_news(10, after) && jobs.is_news(12, before) && !jobs.is_news(11, after));
    }

    #[test]
    fn as_many_marks_are_kept_as_on_the_server() {
        let jobs = CancelledJobs::default();
        let all =
            (1..=MARKS_MAX as u64 + 2_000).map(|number| mark(&number.to_string(), None, number));
        jobs.learn(all.collect(), MARKS_MAX as u64 + 2_000, false, Instant::now());
        assert!(!is_cancelled(&jobs, "mail", "2000", None));
        assert!(is_cancelled(&jobs, "mail", "2001", None));
    }
}
