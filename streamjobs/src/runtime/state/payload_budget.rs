//! How many bytes of payloads are on their way to the server at once.

use tokio::sync::{Semaphore, SemaphorePermit};

/// All queues of a runtime share this budget, because their settlements share one connection. Without a limit,
/// requests behind many large payloads would miss their deadlines and be sent again.
#[derive(Debug)]
pub(crate) struct PayloadBudget {
    free: Semaphore,
}

impl Default for PayloadBudget {
    fn default() -> Self {
        Self { free: Semaphore::new(BYTES_MAX as usize) }
    }
}

impl PayloadBudget {
    /// Waits, in turn, until this many bytes may be sent. A payload that is larger than the budget
    /// waits for all of it. The semaphore is never closed, so the answer is always `Some`.
    ///
    /// Cancel safe.
    pub(crate) async fn take(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(BYTES_MAX);
        self.free.acquire_many(bytes).await.ok()
    }
}

/// The whole budget. This much is sent within half a second on a link of 20 Mbit/s.
const BYTES_MAX: u32 = 1024 * 1024;
