//! Notes jobs that are done.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::runtime::observe::QueueContext;
use crate::runtime::state::DoneNotes;
use crate::store::StoreError;
use crate::store::done_jobs::KeepDone;

/// The loop that notes the jobs of one queue which are done. It waits while none is.
#[derive(Debug)]
pub(crate) struct DoneWriter {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) notes: Arc<DoneNotes>,
    pub(crate) keep: KeepDone,
}

impl DoneWriter {
    /// Writes until the stop, which comes after the last acknowledgement, and then what is left once.
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

    /// Writes what waits: how long until the next try, unless nothing was left to write.
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
            // What the server may have taken is not sent again: each would be there twice. What it refuses is lost,
            // unless it was not sent at all.
            if matches!(error, StoreError::Unreachable(_) | StoreError::NotSent(_)) {
                self.notes.put_back(notes);
            }
            return Some(INTERVAL_REFUSED);
        }
    }
}

/// So many are noted in one request.
const BATCH_MAX: usize = 200;
/// Jobs that end within this time are noted together.
const INTERVAL: Duration = Duration::from_millis(200);
/// The pause after a request that failed.
const INTERVAL_REFUSED: Duration = Duration::from_secs(5);
