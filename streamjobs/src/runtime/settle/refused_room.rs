//! Room for jobs whose last step the server refuses, so that they do not keep the slots of others.

use tokio::sync::{Semaphore, SemaphorePermit};

/// How many jobs of a queue may wait without a slot for a server that refuses their retry or dead
/// letter, as at its memory limit. It is bounded because each of them holds its payload: jobs beyond
/// it keep their slots.
#[derive(Debug)]
pub(crate) struct RefusedRoom {
    /// In KiB.
    free: Semaphore,
}

impl Default for RefusedRoom {
    fn default() -> Self {
        Self { free: Semaphore::new(KIB_MAX) }
    }
}

impl RefusedRoom {
    /// Room for a job with a payload of so many bytes, until the permit is dropped; none if there is too
    /// little.
    pub(crate) fn take(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let kib = u32::try_from(bytes / 1024).ok()?.saturating_add(JOB_KIB);
        self.free.try_acquire_many(kib).ok()
    }
}

/// 16 MiB: about a thousand jobs with small payloads.
const KIB_MAX: usize = 16 * 1024;
/// What a job takes beside its payload, generously.
const JOB_KIB: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_jobs_are_bounded_in_number_and_large_ones_in_bytes() {
        let room = RefusedRoom::default();
        let small = std::iter::from_fn(|| room.take(10)).collect::<Vec<_>>();
        assert_eq!(small.len(), 1024);
        drop(small);
        let large = std::iter::from_fn(|| room.take(5 * 1024 * 1024)).collect::<Vec<_>>();
        assert_eq!(large.len(), 3);
        assert!(room.take(usize::MAX).is_none());
    }
}
