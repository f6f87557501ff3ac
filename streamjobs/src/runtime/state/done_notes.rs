//! Finished jobs that will be noted, on their way to the server.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::runtime::state::{OnConfirmed, lock};
use crate::store::done_jobs::DoneNote;

/// Acks to done writer: finished jobs that are not noted yet. Each arrives once its acknowledgement is confirmed.
/// While the server does not take notes, the oldest are dropped.
#[derive(Debug, Default)]
pub(crate) struct DoneNotes {
    waiting: Mutex<VecDeque<DoneNote>>,
    added: Notify,
}

impl DoneNotes {
    /// Notes a job once its acknowledgement is confirmed, and then tells `next`.
    pub(crate) fn once_confirmed(
        self: &Arc<Self>,
        note: DoneNote,
        next: Option<Box<dyn OnConfirmed>>,
    ) -> Box<dyn OnConfirmed> {
        Box::new(NotedOnceDone { notes: Arc::clone(self), note, next })
    }

    /// Waits for a note. Cancel safe: the next call does not miss a note.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }

    /// The oldest notes, at most `limit`.
    pub(crate) fn take(&self, limit: usize) -> Vec<DoneNote> {
        let mut waiting = lock(&self.waiting);
        let count = waiting.len().min(limit);
        waiting.drain(..count).collect()
    }

    /// Puts back notes that were certainly not written.
    pub(crate) fn put_back(&self, notes: Vec<DoneNote>) {
        let mut waiting = lock(&self.waiting);
        for note in notes.into_iter().rev() {
            if waiting.len() < WAITING_MAX {
                waiting.push_front(note);
            }
        }
    }

    fn push(&self, note: DoneNote) {
        let is_first = {
            let mut waiting = lock(&self.waiting);
            if waiting.len() >= WAITING_MAX {
                waiting.pop_front();
            }
            waiting.push_back(note);
            waiting.len() == 1
        };
        if is_first {
            self.added.notify_one();
        }
    }
}

/// What the acknowledgement of a job tells if the job will be noted.
#[derive(Debug)]
struct NotedOnceDone {
    notes: Arc<DoneNotes>,
    note: DoneNote,
    next: Option<Box<dyn OnConfirmed>>,
}

impl OnConfirmed for NotedOnceDone {
    fn confirmed(self: Box<Self>) {
        let Self { notes, note, next } = *self;
        notes.push(note);
        if let Some(next) = next {
            next.confirmed();
        }
    }
}

/// The most notes that wait: about 3 MiB.
const WAITING_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::entry::EntryId;

    fn note(began: u64) -> DoneNote {
        DoneNote {
            event_id: "e".to_owned(),
            event_type: None,
            key: None,
            origin: EntryId::ZERO,
            began,
            took: Duration::ZERO,
            attempt: 1,
            process: String::new(),
        }
    }

    #[test]
    fn the_oldest_are_dropped_and_what_is_put_back_comes_first() {
        let notes = Arc::new(DoneNotes::default());
        for began in 0..10_003 {
            notes.once_confirmed(note(began), None).confirmed();
        }
        let began = |notes: &[DoneNote]| notes.iter().map(|note| note.began).collect::<Vec<_>>();
        let taken = notes.take(2);
        assert_eq!(began(&taken), [3, 4]);
        notes.once_confirmed(note(10_003), None).confirmed();
        notes.put_back(taken);
        assert_eq!(began(&notes.take(2)), [4, 5], "there was room for one");
        assert_eq!(notes.take(usize::MAX).len(), 9_998);
    }
}
