//! What handlers, publishers and levers share: the counter.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cluster::ledger::Ledger;

/// The counter of this run. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book(Arc<Mutex<Ledger>>);

impl Book {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
