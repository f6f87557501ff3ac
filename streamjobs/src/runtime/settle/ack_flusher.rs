//! Acknowledges jobs whose acknowledgement the reader does not send with its next read.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::runtime::observe::QueueContext;
use crate::runtime::state::{Acks, LoopBackoff, SettlingOver, entries_of};
use crate::store::{StoreError, UniqueAck};

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
        while !self.over.is_cancelled() || !self.acks.is_empty() {
            tokio::select! {
                biased;
                () = abort.cancelled() => return,
                () = self.acks.filled(1) => {}
                () = self.acks.locked() => {}
                () = self.over.cancelled() => continue,
            }
            if !self.over.is_cancelled() {
                // The reader may be about to send them.
                sleep(LINGER).await;
            }
            let (plain, locked) = (self.flush().await, self.flush_locked().await);
            match plain.and(locked) {
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

    /// Acknowledges what waits with a lock, each together with the end of its lock. What fails waits on.
    async fn flush_locked(&self) -> Result<(), StoreError> {
        let acks = self.acks.take_locked();
        if acks.is_empty() {
            return Ok(());
        }
        let asked = acks.iter().filter_map(|ack| {
            let lock = ack.lock.as_deref()?.clone();
            Some(UniqueAck { inlet: ack.inlet, id: ack.id, lock })
        });
        let answers = self.context.acknowledge_unique(&asked.collect::<Vec<_>>()).await;
        let lacking = || Err(StoreError::Protocol { command: "acknowledge_unique" });
        let mut answers = answers.into_iter();
        let (mut done, mut open, mut failed) = (Vec::new(), Vec::new(), Ok(()));
        for ack in acks {
            match answers.next().unwrap_or_else(lacking) {
                Ok(_) => done.push(ack),
                Err(error) => {
                    open.push(ack);
                    failed = Err(error);
                }
            }
        }
        if !open.is_empty() {
            self.acks.put_back(open);
        }
        let (slots, obsolete) = self.acks.finish(done);
        drop(slots);
        self.context.delete_obsolete(&obsolete).await;
        failed
    }
}

const LINGER: Duration = Duration::from_millis(1);
