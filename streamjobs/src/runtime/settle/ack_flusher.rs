//! Acknowledges jobs whose acknowledgement the reader does not send with its next read.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::runtime::observe::{LimitPlaces, QueueContext};
use crate::runtime::state::{Ack, Acks, LoopBackoff, SettlingOver, entries_of};
use crate::store::{StoreError, UniqueAck};

/// The acknowledging loop of one queue.
#[derive(Debug)]
pub(crate) struct AckFlusher {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) acks: Arc<Acks>,
    pub(crate) over: SettlingOver,
    pub(crate) places: Arc<LimitPlaces>,
}

impl AckFlusher {
    /// Acknowledges until no job can end any more and no acknowledgement waits, or until the abort.
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
            if !self.over.is_cancelled() && !self.acks.are_limited {
                // The reader may be about to send them.
                sleep(LINGER).await;
            }
            let (plain, scripted) = (self.flush().await, self.flush_scripted().await);
            match plain.and(scripted) {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    self.context.report.store_failed("acknowledge", &error);
                    backoff.wait(&abort).await;
                }
            }
        }
    }

    /// Sends the acknowledgements that wait. After an error they continue to wait.
    async fn flush(&self) -> Result<(), StoreError> {
        let acks = self.acks.take();
        if acks.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.context.acknowledge(&entries_of(&acks)).await {
            self.acks.put_back(acks);
            return Err(error);
        }
        self.end(acks).await;
        Ok(())
    }

    /// Sends the acknowledgements that take a script. Those that fail continue to wait.
    async fn flush_scripted(&self) -> Result<(), StoreError> {
        let acks = self.acks.take_locked();
        if acks.is_empty() {
            return Ok(());
        }
        let (late, acks) = acks.into_iter().partition::<Vec<_>, _>(|ack| ack.is_late);
        let (locked, limited) = acks.into_iter().partition::<Vec<_>, _>(|ack| ack.lock.is_some());
        let late = Box::pin(self.flush_late(late)).await;
        let (locked, limited) =
            (self.flush_locked(locked).await, self.flush_limited(limited).await);
        late.and(locked).and(limited)
    }

    /// Acknowledges jobs that other consumers may own by now, in a way that tells the processes of these consumers
    /// that the entries were not removed by hand. Locks and places in the group's limit end after that. If this
    /// process dies in between, the locks expire, and a sweep finds the places.
    async fn flush_late(&self, acks: Vec<Ack>) -> Result<(), StoreError> {
        if acks.is_empty() {
            return Ok(());
        }
        let context = &self.context;
        if let Err(error) = context.acknowledge_late(&entries_of(&acks)).await {
            self.acks.put_back(acks);
            return Err(error);
        }
        let locked = locked_of(&acks);
        for answer in context.store.acknowledge_unique(context.queue(), &locked).await {
            let _logged = context.report.ok_or_report("end a lock", answer);
        }
        self.places.give_back(&entries_of(&acks)).await;
        self.end(acks).await;
        Ok(())
    }

    /// Acknowledges jobs and ends their locks in the same step. If the jobs also have places in the
    /// group's limit, these are freed afterwards; if the process dies in between, a sweep frees them.
    async fn flush_locked(&self, acks: Vec<Ack>) -> Result<(), StoreError> {
        if acks.is_empty() {
            return Ok(());
        }
        let answers = self.context.acknowledge_unique(&locked_of(&acks)).await;
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
        self.places.give_back(&entries_of(&done)).await;
        self.end(done).await;
        failed
    }

    /// Acknowledges jobs and frees their places in the group's limit in the same step.
    async fn flush_limited(&self, acks: Vec<Ack>) -> Result<(), StoreError> {
        let Some(rule) = self.places.rule().filter(|_| !acks.is_empty()) else { return Ok(()) };
        if let Err(error) = self.places.finish(rule, &entries_of(&acks)).await {
            self.acks.put_back(acks);
            return Err(error);
        }
        self.end(acks).await;
        Ok(())
    }

    /// Ends acknowledged jobs here.
    async fn end(&self, acks: Vec<Ack>) {
        let (slots, obsolete) = self.acks.finish(acks);
        drop(slots);
        self.context.delete_obsolete(&obsolete).await;
    }
}

/// The acknowledgements with which a lock ends.
fn locked_of(acks: &[Ack]) -> Vec<UniqueAck> {
    let locked = acks.iter().filter_map(|ack| {
        let lock = ack.lock.as_deref()?.clone();
        Some(UniqueAck { inlet: ack.inlet, id: ack.id, lock })
    });
    locked.collect()
}

const LINGER: Duration = Duration::from_millis(1);
