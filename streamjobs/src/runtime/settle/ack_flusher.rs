//! Acknowledges jobs whose acknowledgement the reader does not send with its next read.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::runtime::observe::QueueContext;
use crate::runtime::state::{Acks, LoopBackoff, SettlingOver, entries_of};
use crate::store::StoreError;

/// The acknowledging loop of one queue.
#[derive(Debug)]
pub(crate) struct AckFlusher {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) acks: Arc<Acks>,
    pub(crate) over: SettlingOver,
}

impl AckFlusher {
    /// Acknowledges until no job can end any more and none waits, or until the abort.
    pub(crate) async fn run(self, abort: CancellationToken) {
        let mut backoff = LoopBackoff::new();
        while !self.over.is_cancelled() || self.acks.len() > 0 {
            tokio::select! {
                biased;
                () = abort.cancelled() => return,
                () = self.acks.filled(1) => {}
                () = self.over.cancelled() => continue,
            }
            if !self.over.is_cancelled() {
                // The reader may be about to send them.
                sleep(LINGER).await;
            }
            match self.flush().await {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    self.context.report.store_failed("acknowledge", &error);
                    backoff.wait(&abort).await;
                }
            }
        }
    }

    /// Acknowledges what waits. After an error it waits on.
    async fn flush(&self) -> Result<(), StoreError> {
        let acks = self.acks.take();
        if acks.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.context.acknowledge(&entries_of(&acks)).await {
            self.acks.put_back(acks);
            return Err(error);
        }
        let (slots, obsolete) = self.acks.finish(acks);
        drop(slots);
        self.context.delete_obsolete(&obsolete).await;
        Ok(())
    }
}

const LINGER: Duration = Duration::from_millis(1);
