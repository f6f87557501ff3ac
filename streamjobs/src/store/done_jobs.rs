//! Notes of finished jobs, beside the stream.

use async_trait::async_trait;

use super::types::{Queue, Result};
pub use crate::model::done::{DoneNote, KeepDone};

/// The step that notes finished jobs. The notes are a stream, and are read like any other stream.
#[async_trait]
pub trait DoneJobs: Send + Sync {
    /// Notes jobs, in this order, and removes notes that are older than `keep` allows, and the oldest notes if there
    /// are more than it allows. The key expires together with the last notes. A repetition notes the jobs twice.
    async fn note_done(&self, queue: &Queue, keep: KeepDone, notes: &[DoneNote]) -> Result<()>;
}
