//! Notes finished jobs.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::runtime::observe::QueueContext;
use crate::runtime::state::DoneNotes;
use crate::store::StoreError;
use crate::store::done_jobs::KeepDone;

/// The loop that notes the finished jobs of one queue. It waits while no job has finished.
#[derive(Debug)]
pub(crate) struct DoneWriter {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) notes: Arc<DoneNotes>,
    pub(crate) keep: KeepDone,
}

impl DoneWriter {
    /// Writes notes until the stop, which comes after the last acknowledgement, and then writes once what is left.
    pub(crate) async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.notes.added() => {}
            }
            while let Some(pause) = self.write().await {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    () = sleep(pause) => {}
                }
            }
        }
        let _left = self.write().await;
    }

    /// Writes the notes that wait. Returns how long until the next try, or `None` if nothing was left to write.
    async fn write(&self) -> Option<Duration> {
        let mut pause = None;
        loop {
            let notes = self.notes.take(BATCH_MAX);
            if notes.is_empty() {
                return pause;
            }
            pause = Some(INTERVAL);
            let (store, queue) = (&self.context.payload_store, self.context.queue());
            let Err(error) = store.note_done(queue, self.keep, &notes).await else { continue };
            self.context.report.store_failed("note jobs that are done", &error);
            // Notes that the server may have taken are not sent again: each would be there twice. Notes that it
            // refuses are lost, unless they were not sent at all.
            if matches!(error, StoreError::Unreachable(_) | StoreError::NotSent(_)) {
                self.notes.put_back(notes);
            }
            return Some(INTERVAL_REFUSED);
        }
    }
}

/// How many jobs are noted in one request.
const BATCH_MAX: usize = 200;
/// Jobs that end within this time are noted together.
const INTERVAL: Duration = Duration::from_millis(200);
/// The pause after a failed request.
const INTERVAL_REFUSED: Duration = Duration::from_secs(5);
