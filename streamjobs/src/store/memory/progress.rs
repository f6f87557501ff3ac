//! The progress of running jobs in memory.

use async_trait::async_trait;

use super::MemoryStore;
use crate::model::entry::Inlet;
use crate::model::name::ConsumerName;
use crate::model::progress::Progress;
use crate::store::inspect::PendingEntry;
use crate::store::progress::{NewProgress, field, of_attempt};
use crate::store::types::Result;
use crate::store::{FenceResult, JobProgress, Queue};

#[async_trait]
impl JobProgress for MemoryStore {
    async fn write_progress(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        progress: &[NewProgress],
    ) -> Result<()> {
        self.step("write_progress", |state| {
            let now = state.now();
            for (hold, reported) in progress {
                let field = field(hold.inlet, hold.id);
                let attempt = format!("{} {consumer}\n", hold.delivery_count);
                let owned = state.check(queue, consumer.as_str(), *hold)? == FenceResult::Owned;
                let stored = state.progress.entry(queue.progress_key()).or_default();
                let is_own = |stored: &String| {
                    stored.split_once(' ').is_some_and(|(_, rest)| rest.starts_with(&attempt))
                };
                match reported {
                    Some(reported) if owned => {
                        let line = format!("{now} {attempt}{}", reported.line());
                        stored.insert(field, line);
                    }
                    None if stored.get(&field).is_some_and(is_own) => drop(stored.remove(&field)),
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }

    async fn read_progress(
        &self,
        queue: &Queue,
        inlet: Inlet,
        rows: &[PendingEntry],
    ) -> Result<Vec<Option<Progress>>> {
        self.step("read_progress", |state| {
            let now = state.now();
            let stored = state.progress.get(&queue.progress_key());
            let of_row =
                |row: &PendingEntry| of_attempt(stored?.get(&field(inlet, row.id))?, now, row);
            Ok(rows.iter().map(of_row).collect())
        })
        .await
    }
}
