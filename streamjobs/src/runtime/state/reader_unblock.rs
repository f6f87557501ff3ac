//! Ending a reader's wait on the server.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::store::Store;

/// Knows whether the reader waits on the server, and under which name the server knows it.
#[derive(Debug, Default)]
pub(crate) struct ReaderUnblock {
    waiting: Mutex<Option<u64>>,
    left: Notify,
}

impl ReaderUnblock {
    /// The reader is about to wait.
    pub(crate) fn enter(&self, reader: u64) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader);
    }

    /// The reader has its answer.
    pub(crate) fn leave(&self) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.left.notify_waiters();
    }

    /// Ends the reader's present wait. Returns when it has ended, or at the latest after `patience`.
    ///
    /// The request can overtake the reader's own on the way to the server and find nobody waiting,
    /// so it is repeated until the reader says that it is back.
    pub(crate) async fn wake(&self, store: &dyn Store, patience: Duration) {
        let repeat = async {
            loop {
                let left = self.left.notified();
                let waiting = *self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(reader) = waiting else { return };
                // A failed request is repeated like one that found nobody.
                let _failed = store.wake(reader).await.is_err();
                // Once back, the reader sees what it was woken for, even if it waits again by now.
                if timeout(REPEAT, left).await.is_ok() {
                    return;
                }
            }
        };
        let _late = timeout(patience, repeat).await.is_err();
    }
}

const REPEAT: Duration = Duration::from_millis(10);
