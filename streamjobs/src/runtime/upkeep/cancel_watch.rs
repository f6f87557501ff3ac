//! Learns which jobs are cancelled, and stops those that run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::event::Envelope;
use crate::runtime::observe::{JobEvent, QueueContext};
use crate::runtime::state::{CancelledJobs, InFlight};
use crate::store::StoreError;

/// Follows the marks of a stream for one of its queues.
#[derive(Debug)]
pub(crate) struct CancelWatch {
    context: Arc<QueueContext>,
    in_flight: Arc<InFlight>,
    jobs: Arc<CancelledJobs>,
    /// Which change of the marks the jobs in flight were last compared with.
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

    /// The last mark of the stream has this number: reads the marks that are not known yet, and cancels
    /// the jobs that are in flight here. After an error, the next answer with the number does it.
    pub(crate) async fn heard(&self, last: u64) -> Result<(), StoreError> {
        if last != self.jobs.known() {
            let _turn = self.jobs.learning.lock().await;
            // Another queue of the stream may have learnt it meanwhile.
            if last != self.jobs.known() {
                self.learn(last).await?;
            }
        }
        let changes = self.jobs.changes();
        if self.applied.swap(changes, Ordering::AcqRel) != changes {
            self.apply();
        }
        Ok(())
    }

    async fn learn(&self, last: u64) -> Result<(), StoreError> {
        let (stream, mut after) = (&self.context.queue().stream, self.jobs.known());
        // A number that is lower than before comes after the marks were lost, or of a late answer.
        let mut reads_all = after == 0 || last < after;
        if reads_all {
            after = 0;
        }
        let (mut marks, mut highest) = (Vec::new(), last);
        loop {
            let page = self.context.store.cancel_marks(stream, after, PAGE_MAX).await?;
            if page.removed.is_some() && !reads_all {
                (reads_all, after) = (true, 0);
                marks.clear();
                continue;
            }
            after = page.last().unwrap_or(after);
            highest = highest.max(after);
            marks.extend(page.marks);
            if !page.has_more {
                break;
            }
        }
        self.jobs.learn(marks, highest, reads_all);
        Ok(())
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
