//! Ends the waits of readers, here and on the server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The readers that can be woken, by number.
#[derive(Default)]
pub(crate) struct Wakers {
    next: AtomicU64,
    present: Mutex<HashMap<u64, Arc<Waker>>>,
}

/// What a reader waits for besides entries.
#[derive(Default)]
pub(crate) struct Waker {
    pub(crate) woken: Notify,
    /// The reader's own connection, as the server knows it; 0 for none.
    pub(crate) connection: AtomicU64,
}

impl Wakers {
    pub(crate) fn add(&self) -> (u64, Arc<Waker>) {
        let (number, waker) = (self.next.fetch_add(1, Ordering::Relaxed), Arc::default());
        self.lock().insert(number, Arc::clone(&waker));
        (number, waker)
    }

    pub(crate) fn remove(&self, number: u64) {
        self.lock().remove(&number);
    }

    /// Ends a reader's wait in this process. Returns the connection on which it may wait on the server.
    pub(crate) fn wake(&self, number: u64) -> Option<u64> {
        let waker = self.lock().get(&number).cloned()?;
        waker.woken.notify_waiters();
        let connection = waker.connection.load(Ordering::Acquire);
        (connection != 0).then_some(connection)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Waker>>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
