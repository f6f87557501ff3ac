//! Writes how far running jobs are.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::handler::ProgressBoard;
use crate::runtime::observe::QueueContext;

/// The loop that writes the progress of the jobs of one queue. It waits while no job reports any.
#[derive(Debug)]
pub(crate) struct ProgressWriter {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) board: Arc<ProgressBoard>,
}

impl ProgressWriter {
    /// Writes progress until the stop, which comes after the last verdict.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut next = None;
        while !stop.is_cancelled() {
            let due = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.board.changed() => {}
                () = due => {}
            }
            next = self.write_due().await;
        }
    }

    /// Writes the progress that is due. Returns when the next write is due.
    async fn write_due(&self) -> Option<Instant> {
        let (context, consumer) = (&self.context, self.context.consumer());
        loop {
            let sent = Instant::now();
            let (due, next) = self.board.due(sent, BATCH_MAX);
            if due.is_empty() {
                return next;
            }
            let written = context.store.write_progress(context.queue(), consumer, &due).await;
            let written = context.report.ok_or_report("write the progress of jobs", written);
            self.board.sent(&due, sent, written.is_some());
        }
    }
}

/// How many jobs have their progress written in one request.
const BATCH_MAX: usize = 100;
