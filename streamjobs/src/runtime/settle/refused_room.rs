//! Room for jobs whose last step the server refuses, so that they do not occupy slots that other jobs could use.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::runtime::state::RefusedJobs;
use crate::store::StoreError;

/// Limits how many jobs of a queue may wait without a slot while the server refuses their retry or dead
/// letter, for example at its memory limit. The limit is needed because each of these jobs keeps its
/// payload in memory: jobs beyond it keep their slots.
#[derive(Debug)]
pub(crate) struct RefusedRoom {
    /// The room that is free, in KiB.
    free: Semaphore,
    jobs: RefusedJobs,
    /// Whether other partitions could use the slots: their servers may answer while the server of this partition does
    /// not.
    shares_slots: bool,
}

/// The room of one job.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    jobs: &'a RefusedJobs,
    _permit: SemaphorePermit<'a>,
}

impl RefusedRoom {
    /// Room without jobs, and the counter of the jobs in it.
    pub(crate) fn new(jobs: RefusedJobs, shares_slots: bool) -> Self {
        Self { free: Semaphore::new(KIB_MAX), jobs, shares_slots }
    }

    /// Whether a job whose last step failed with this error should wait here.
    pub(crate) fn is_for(&self, error: &StoreError) -> bool {
        matches!(error, StoreError::Refused { .. }) || self.shares_slots
    }

    /// Room for a job with a payload of this many bytes, until it is dropped; `None` if there is too
    /// little.
    pub(crate) fn take(&self, bytes: usize) -> Option<Room<'_>> {
        let kib = u32::try_from(bytes / 1024).ok()?.saturating_add(JOB_KIB);
        let permit = self.free.try_acquire_many(kib).ok()?;
        self.jobs.add();
        Some(Room { jobs: &self.jobs, _permit: permit })
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.jobs.remove();
    }
}

/// All of the room, in KiB: 16 MiB is enough for about a thousand jobs with small payloads.
const KIB_MAX: usize = 16 * 1024;
/// What a job takes besides its payload, generously estimated.
const JOB_KIB: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_jobs_are_bounded_in_number_and_large_ones_in_bytes() {
        let jobs = RefusedJobs::default();
        let room = RefusedRoom::new(jobs.clone(), false);
        let small = std::iter::from_fn(|| room.take(10)).collect::<Vec<_>>();
        assert_eq!((small.len(), jobs.count()), (1024, 1024));
        drop(small);
        assert_eq!(jobs.count(), 0);
        let large = std::iter::from_fn(|| room.take(5 * 1024 * 1024)).collect::<Vec<_>>();
        assert_eq!(large.len(), 3);
        assert!(room.take(usize::MAX).is_none());
    }
}
