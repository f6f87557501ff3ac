//! Handlers that run for several jobs at once.

use std::num::NonZeroU32;
use std::time::Duration;

use super::QueueConfig;

/// How the jobs of a handler are grouped into runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    /// The most jobs in a run.
    pub size: NonZeroU32,
    /// How long the first job of a run waits for other jobs.
    pub wait: Duration,
}

impl BatchOptions {
    /// Why a group with these settings cannot fill such batches.
    pub(crate) fn faults(&self, handler: &str, config: &QueueConfig) -> Vec<String> {
        let (size, concurrency, longest) = (self.size.get(), config.concurrency, config.lease / 3);
        let mut faults = Vec::new();
        if usize::try_from(size).is_ok_and(|size| size > concurrency) {
            let shared =
                config.slot_set.map(|set| format!(", and the shared slots {:?},", set.set));
            faults.push(format!(
                "{handler} has batch = {size}, and its group runs {concurrency} jobs at once in a process: a batch \
                 is never full; raise concurrency{} to {size} or more",
                shared.unwrap_or_default()
            ));
        }
        if self.wait > longest {
            faults.push(format!(
                "{handler} waits {:?} for a batch, which is longer than a third of the lease ({longest:?}): \
                 shorten wait or lengthen the lease",
                self.wait
            ));
        }
        faults
    }
}
