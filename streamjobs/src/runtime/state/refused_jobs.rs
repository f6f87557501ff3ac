//! How many jobs of a queue wait without a slot, because the server refuses their retry or dead letter.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of these jobs, which are still in flight. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct RefusedJobs(Arc<AtomicUsize>);

impl RefusedJobs {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
