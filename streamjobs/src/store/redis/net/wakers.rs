//! Ends the waits of readers, here and on the server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::links::Link;

/// The readers of a store that can be woken, by their numbers.
#[derive(Default)]
pub(crate) struct Wakers {
    next: AtomicU64,
    present: Mutex<HashMap<u64, Arc<Waker>>>,
}

/// What a reader waits for besides entries.
#[derive(Default)]
pub(crate) struct Waker {
    pub(crate) woken: Notify,
    /// The reader's own connection: the link to its server, over which a wait on the connection can be ended, and the
    /// connection's id there.
    connection: Mutex<Option<(Link, u64)>>,
}

/// The place of a reader among those that can be woken, until this is dropped.
pub(crate) struct WakerSeat {
    pub(crate) number: u64,
    pub(crate) waker: Arc<Waker>,
    wakers: Arc<Wakers>,
}

impl Waker {
    /// Records that the reader waits on this connection from now on, or on no connection.
    pub(crate) fn waits_on(&self, connection: Option<(Link, u64)>) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = connection;
    }
}

impl Wakers {
    pub(crate) fn add(self: &Arc<Self>) -> WakerSeat {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let waker = Arc::<Waker>::default();
        self.lock().insert(number, Arc::clone(&waker));
        WakerSeat { number, waker, wakers: Arc::clone(self) }
    }

    /// Ends a reader's wait in this process. Returns the connection on which it may wait on the server.
    pub(crate) fn wake(&self, number: u64) -> Option<(Link, u64)> {
        let waker = self.lock().get(&number).cloned()?;
        // A reader that is about to wait then returns at once.
        waker.woken.notify_one();
        waker.connection.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Waker>>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WakerSeat {
    fn drop(&mut self) {
        self.wakers.lock().remove(&self.number);
    }
}
