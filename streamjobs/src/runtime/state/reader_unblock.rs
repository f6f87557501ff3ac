//! Ends a reader's wait for entries, on the server or in this process.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::runtime::state::lock;
use crate::store::Store;

/// Promoter, reaper and control to reader: stop waiting. It knows whether the reader may be waiting, and
/// the store's number for the reader.
#[derive(Debug, Default)]
pub(crate) struct ReaderUnblock {
    waiting: Mutex<Option<u64>>,
    returned: Notify,
}

impl ReaderUnblock {
    /// Records that the reader is about to wait, until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>, reader: u64) -> ReaderWaits {
        *lock(&self.waiting) = Some(reader);
        ReaderWaits { unblock: Arc::clone(self) }
    }

    /// Ends the reader's present wait. Returns when the wait has ended, and after `limit` at the latest.
    ///
    /// The request can reach the server before the reader's own request, and then finds no blocked
    /// connection. So it is repeated until the reader has returned.
    pub(crate) async fn unblock(&self, store: &dyn Store, limit: Duration) {
        let repeat = async {
            loop {
                let returned = self.returned.notified();
                let waiting = *lock(&self.waiting);
                let Some(reader) = waiting else { return };
                // A request that fails is repeated as well.
                let _failed = store.wake(reader).await.is_err();
                // A reader that returned has seen what changed, even if it waits again by now.
                if timeout(REPEAT, returned).await.is_ok() {
                    return;
                }
            }
        };
        let _late = timeout(limit, repeat).await.is_err();
    }
}

/// Marks that the reader may be waiting on the server.
#[derive(Debug)]
#[must_use = "the wait ends when it is dropped"]
pub(crate) struct ReaderWaits {
    unblock: Arc<ReaderUnblock>,
}

impl Drop for ReaderWaits {
    fn drop(&mut self) {
        *lock(&self.unblock.waiting) = None;
        self.unblock.returned.notify_waiters();
    }
}

const REPEAT: Duration = Duration::from_millis(10);
