//! Acknowledgements on their way: filled by executors, emptied by the reader or the acker.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::model::entry::{EntryId, Inlet};
use crate::runtime::state::slots::Slot;

/// A job that is done, with the slot that it still takes up.
#[derive(Debug)]
pub(crate) struct Ack {
    pub(crate) inlet: Inlet,
    pub(crate) id: EntryId,
    pub(crate) slot: Slot,
}

/// Done jobs that the server does not know of yet. Bounded by the slots of the queue.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    waiting: Mutex<Vec<Ack>>,
    /// The length at which somebody wants to be told.
    wanted: AtomicUsize,
    filled: Notify,
}

impl Acks {
    pub(crate) fn push(&self, ack: Ack) {
        let length = {
            let mut waiting = self.lock();
            waiting.push(ack);
            waiting.len()
        };
        if length == 1 || length == self.wanted.load(Ordering::Relaxed) {
            self.filled.notify_waiters();
        }
    }

    pub(crate) fn take(&self) -> Vec<Ack> {
        std::mem::take(&mut *self.lock())
    }

    /// Takes acknowledgements back that could not be sent.
    pub(crate) fn put_back(&self, acks: Vec<Ack>) {
        self.lock().extend(acks);
        self.filled.notify_waiters();
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Waits until at least this many acknowledgements wait.
    ///
    /// Cancel safe: nothing is taken.
    pub(crate) async fn filled(&self, length: usize) {
        loop {
            let filled = self.filled.notified();
            self.wanted.store(length, Ordering::Relaxed);
            if self.len() >= length {
                return;
            }
            filled.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Ack>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::runtime::state::slots::Slots;

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_told_at_the_wanted_length() {
        let (acks, slots) = (Acks::default(), Arc::new(Slots::new(9)));
        let push = || {
            let slot = slots.try_take().unwrap();
            acks.push(Ack { inlet: Inlet::STREAM, id: EntryId::ZERO, slot });
        };
        push();
        acks.filled(1).await;
        let second = timeout(Duration::from_secs(1), acks.filled(3));
        let (told, ()) = tokio::join!(second, async {
            push();
            push();
        });
        assert!(told.is_ok());
        let taken = acks.take();
        let free = std::iter::from_fn(|| slots.try_take()).collect::<Vec<_>>().len();
        assert_eq!((taken.len(), acks.len(), free), (3, 0, 6));
        acks.put_back(taken);
        assert_eq!(acks.len(), 3);
    }
}
