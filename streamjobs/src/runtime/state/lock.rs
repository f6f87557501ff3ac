//! Locks of state that loops share.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, even after a panic of another holder: each holder leaves the state consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
