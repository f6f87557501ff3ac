//! The progress of the running jobs of one queue, on its way to the server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::model::entry::{EntryId, Hold, Inlet};
use crate::model::progress::Reported;
use crate::store::progress::NewProgress;

/// From jobs to the writer: the progress that handlers have reported and that is not written yet. Jobs that report
/// nothing are not included.
#[derive(Debug, Default)]
pub(crate) struct ProgressBoard {
    jobs: Mutex<HashMap<(Inlet, EntryId), Reporting>>,
    /// How many jobs there are, so that the end of a job that reported nothing needs no lock.
    count: AtomicUsize,
    changed: Notify,
}

/// A job that has reported progress.
#[derive(Debug)]
struct Reporting {
    hold: Hold,
    /// The last report.
    last: Reported,
    /// Whether the last report is not written yet.
    is_new: bool,
    has_ended: bool,
    /// The earliest time of the next write.
    next: Instant,
}

impl ProgressBoard {
    /// Takes a handler's report of its progress, unless the attempt `is_over`: a clone of the job may outlive its
    /// attempt.
    pub(crate) fn report(&self, hold: Hold, last: Reported, is_over: impl Fn() -> bool) {
        let mut jobs = self.lock();
        if is_over() {
            return;
        }
        let new = || Reporting {
            hold,
            last: last.clone(),
            is_new: false,
            has_ended: false,
            next: Instant::now(),
        };
        let job = jobs.entry((hold.inlet, hold.id)).or_insert_with(new);
        // An earlier attempt at the same entry may still be here.
        let next = job.next;
        if job.hold != hold {
            *job = Reporting { next, ..new() };
        }
        (job.last, job.is_new) = (last, true);
        let count = jobs.len();
        self.count.store(count, Ordering::SeqCst);
        // The attempt may have ended since, without seeing this count.
        if let Some(job) = jobs.get_mut(&(hold.inlet, hold.id)).filter(|_| is_over()) {
            (job.has_ended, job.is_new) = (true, false);
        }
        drop(jobs);
        self.changed.notify_one();
    }

    /// Ends an attempt: the progress that it has written is removed.
    pub(crate) fn end(&self, hold: Hold) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        if let Some(job) = self.lock().get_mut(&(hold.inlet, hold.id)) {
            (job.has_ended, job.is_new) = (true, false);
            self.changed.notify_one();
        }
    }

    /// Waits for a report or the end of a job that has reported.
    ///
    /// Cancel safe: the next call misses no report and no end.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What may be written now, at most `limit`, and when the next write is due after that.
    pub(crate) fn due(&self, now: Instant, limit: usize) -> (Vec<NewProgress>, Option<Instant>) {
        let jobs = self.lock();
        let waiting = || jobs.values().filter(|job| job.is_new || job.has_ended);
        let due = waiting().filter(|job| job.has_ended || job.next <= now).take(limit);
        let due = due.map(|job| (job.hold, (!job.has_ended).then(|| job.last.clone())));
        let later = waiting().filter(|job| !job.has_ended && job.next > now);
        (due.collect(), later.map(|job| job.next).min())
    }

    /// Records when these reports were sent. Reports that were not written are tried again, after a
    /// longer pause.
    pub(crate) fn sent(&self, sent: &[NewProgress], at: Instant, is_written: bool) {
        let mut jobs = self.lock();
        for (hold, reported) in sent {
            let key = (hold.inlet, hold.id);
            let Some(job) = jobs.get_mut(&key).filter(|job| job.hold == *hold) else { continue };
            match reported {
                // Progress that could not be removed is not shown for long: its entry is about to
                // end.
                None => drop(jobs.remove(&key)),
                Some(reported) => {
                    job.next = at + if is_written { INTERVAL } else { INTERVAL_REFUSED };
                    job.is_new &= !is_written || job.last != *reported;
                }
            }
        }
        self.count.store(jobs.len(), Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Inlet, EntryId), Reporting>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time between two writes of one job.
const INTERVAL: Duration = Duration::from_secs(1);
/// The time until the next write of a job whose last write failed.
const INTERVAL_REFUSED: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn said(done: u64) -> Reported {
        Reported::new(done, Some(10), "pages")
    }

    fn hold(delivery_count: u64) -> Hold {
        Hold { inlet: Inlet::STREAM, id: EntryId::new(1, 0), delivery_count }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_report_is_due_a_second_after_the_one_before() {
        let (board, now) = (ProgressBoard::default(), Instant::now());
        let report = |done| board.report(hold(1), said(done), || false);
        report(1);
        let (due, next) = board.due(now, 9);
        assert_eq!((due.as_slice(), next), (&[(hold(1), Some(said(1)))][..], None));
        report(2);
        board.sent(&due, now, true);
        report(3);
        assert_eq!(board.due(now, 9), (Vec::new(), Some(now + INTERVAL)));
        let (due, _) = board.due(now + INTERVAL, 9);
        assert_eq!(due, [(hold(1), Some(said(3)))]);
        board.sent(&due, now + INTERVAL, false);
        assert_eq!(board.due(now + INTERVAL, 9).1, Some(now + INTERVAL + INTERVAL_REFUSED));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_removes_what_was_written_and_nothing_is_written_after_it() {
        let (board, now) = (ProgressBoard::default(), Instant::now());
        board.report(hold(1), said(1), || false);
        board.sent(&[(hold(1), Some(said(1)))], now, true);
        board.report(hold(1), said(2), || false);
        board.end(hold(1));
        board.report(hold(1), said(3), || true);
        let (due, next) = board.due(now, 9);
        assert_eq!((due.as_slice(), next), (&[(hold(1), None)][..], None));
        board.sent(&due, now, false);
        assert_eq!(board.due(now, 9), (Vec::new(), None));
        assert_eq!(board.count.load(Ordering::SeqCst), 0);
        board.report(hold(2), said(1), || true);
        assert_eq!(board.due(now, 9), (Vec::new(), None));
        // The job's end comes between the check and the report.
        let asked = AtomicUsize::new(0);
        board.report(hold(2), said(1), || asked.fetch_add(1, Ordering::SeqCst) > 0);
        assert_eq!(board.due(now, 9).0, [(hold(2), None)]);
    }

    #[tokio::test(start_paused = true)]
    async fn another_attempt_at_the_same_entry_has_a_progress_of_its_own() {
        let (board, now) = (ProgressBoard::default(), Instant::now());
        board.report(hold(1), said(1), || false);
        board.end(hold(1));
        board.report(hold(2), said(2), || false);
        let (due, _) = board.due(now, 9);
        assert_eq!(due, [(hold(2), Some(said(2)))]);
        board.sent(&[(hold(1), None)], now, true);
        assert_eq!(board.due(now, 9).0, due);
    }
}
