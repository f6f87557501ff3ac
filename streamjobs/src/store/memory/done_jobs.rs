//! Notes of finished jobs, in memory.

use async_trait::async_trait;

use super::MemoryStore;
use super::state::{MemoryState, milliseconds};
use crate::model::entry::EntryId;
use crate::store::done_jobs::{DoneNote, KeepDone};
use crate::store::types::Result;
use crate::store::{DoneJobs, Queue};

impl MemoryState {
    /// Removes notes whose time is over.
    pub(super) fn expire_notes(&mut self) {
        let now = self.now();
        let MemoryState { streams, notes_expire, .. } = self;
        notes_expire.retain(|key, expires| {
            let stays = *expires > now;
            if !stays {
                streams.remove(key);
            }
            stays
        });
    }
}

#[async_trait]
impl DoneJobs for MemoryStore {
    async fn note_done(&self, queue: &Queue, keep: KeepDone, notes: &[DoneNote]) -> Result<()> {
        if notes.is_empty() {
            return Ok(());
        }
        self.step("note_done", |state| {
            state.expire_notes();
            let (now, key) = (state.now(), queue.done_key());
            let most = usize::try_from(keep.most.get()).unwrap_or(usize::MAX);
            let stream = state.stream(&key);
            for note in notes {
                stream.append(now, note.fields());
            }
            let first = EntryId::new(now.saturating_sub(milliseconds(keep.time)), 0);
            stream.entries = stream.entries.split_off(&first);
            while stream.entries.len() > most {
                stream.entries.pop_first();
            }
            state.notes_expire.insert(key, now.saturating_add(milliseconds(keep.time)));
            Ok(())
        })
        .await
    }
}
