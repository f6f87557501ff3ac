//! Notes of jobs that are done, beside the stream.

use async_trait::async_trait;

use super::types::{Queue, Result};
pub use crate::model::done::{DoneNote, KeepDone};

/// The step that notes jobs which are done. The notes are a stream, which is read as any other.
#[async_trait]
pub trait DoneJobs: Send + Sync {
    /// Notes jobs, in this order, and removes notes that are older than `keep` says, or beyond its number. With
    /// all of them the key expires. A repetition notes them twice.
    async fn note_done(&self, queue: &Queue, keep: KeepDone, notes: &[DoneNote]) -> Result<()>;
}
