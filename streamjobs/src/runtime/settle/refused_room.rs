//! Room for jobs whose last step the server refuses, so that they do not keep the slots of others.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::runtime::state::RefusedJobs;
use crate::store::StoreError;

/// How many jobs of a queue may wait without a slot for a server that refuses their retry or dead
/// letter, as at its memory limit. It is bounded because each of them holds its payload: jobs beyond
/// it keep their slots.
#[derive(Debug)]
pub(crate) struct RefusedRoom {
    /// In KiB.
    free: Semaphore,
    jobs: RefusedJobs,
    /// Whether other partitions could use the slots, whose servers may answer while this one's does not.
    shares_slots: bool,
}

/// The room of one job.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    jobs: &'a RefusedJobs,
    _permit: SemaphorePermit<'a>,
}

impl RefusedRoom {
    /// All room, and where its jobs are counted.
    pub(crate) fn new(jobs: RefusedJobs, shares_slots: bool) -> Self {
        Self { free: Semaphore::new(KIB_MAX), jobs, shares_slots }
    }

    /// Whether a job whose last step failed so is to wait here.
    pub(crate) fn is_for(&self, error: &StoreError) -> bool {
        matches!(error, StoreError::Refused { .. }) || self.shares_slots
    }

    /// Room for a job with a payload of so many bytes, until it is dropped; none if there is too little.
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

/// 16 MiB: about a thousand jobs with small payloads.
const KIB_MAX: usize = 16 * 1024;
/// What a job takes beside its payload, generously.
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
