//! Learns which jobs are cancelled, and stops those that run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::model::event::Envelope;
use crate::runtime::observe::{JobEvent, QueueContext};
use crate::runtime::state::{CancelledJobs, InFlight};
use crate::store::{CancelMarks, StoreError};

/// Follows the marks of a stream for one of its queues.
#[derive(Debug)]
pub(crate) struct CancelWatch {
    context: Arc<QueueContext>,
    in_flight: Arc<InFlight>,
    jobs: Arc<CancelledJobs>,
    /// The change of the marks up to which the jobs in flight have been compared with them.
    applied: AtomicU64,
}

impl CancelWatch {
    pub(crate) fn new(
        context: Arc<QueueContext>,
        in_flight: Arc<InFlight>,
        jobs: Arc<CancelledJobs>,
    ) -> Self {
        Self { context, in_flight, jobs, applied: AtomicU64::new(0) }
    }

    /// Called with the number of the stream's last mark, from the answer to a request that was sent at this time.
    /// Reads the marks that are not known yet, and cancels their jobs that are in flight here. After an error, this
    /// happens at the next answer with the number.
    pub(crate) async fn heard(&self, last: u64, sent: Instant) -> Result<(), StoreError> {
        if self.jobs.is_news(last, sent) {
            let _turn = self.jobs.learning.lock().await;
            // Another queue of the stream may have learned it meanwhile.
            if self.jobs.is_news(last, sent) {
                self.learn(last).await?;
            }
        }
        let changes = self.jobs.changes();
        if self.applied.swap(changes, Ordering::AcqRel) != changes {
            self.apply();
        }
        Ok(())
    }

    /// Reads the marks after the last known mark. Reads all marks if some were removed since, or if the last number
    /// is lower than before, because the marks were lost.
    async fn learn(&self, last: u64) -> Result<(), StoreError> {
        let (known, mut heard) = (self.jobs.known(), last);
        let mut from = if last < known { 0 } else { known };
        loop {
            let begun = Instant::now();
            let CancelMarks { marks, removed, .. } = self.read(from).await?;
            let highest = marks.last().map_or(0, |mark| mark.number).max(removed.unwrap_or(0));
            // The marks that were read before the removal may include the removed ones.
            match removed.filter(|removed| from > 0 || *removed > heard) {
                Some(removed) => (from, heard) = (0, heard.max(removed)),
                None => {
                    self.jobs.learn(marks, highest.max(heard), from == 0, begun);
                    return Ok(());
                }
            }
        }
    }

    /// All marks with higher numbers, page by page.
    async fn read(&self, mut after: u64) -> Result<CancelMarks, StoreError> {
        let (stream, mut all) = (&self.context.queue().stream, CancelMarks::default());
        loop {
            let page = self.context.store.cancel_marks(stream, after, PAGE_MAX).await?;
            after = page.last().unwrap_or(after);
            all.removed = all.removed.max(page.removed);
            all.marks.extend(page.marks);
            if !page.has_more {
                return Ok(all);
            }
        }
    }

    fn apply(&self) {
        let queue = self.context.queue();
        let cancelled = self
            .in_flight
            .cancel(|entry| self.jobs.contain(queue, &Envelope::of(&queue.stream, entry), entry));
        for hold in cancelled {
            self.context.report.job(hold, JobEvent::Cancelled);
        }
    }
}

const PAGE_MAX: usize = 500;
