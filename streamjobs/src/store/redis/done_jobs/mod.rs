//! Notes of finished jobs: a stream of their own beside the stream of events.

use async_trait::async_trait;
use redis::Cmd;

use super::script::scripts;
use super::{RedisStore, milliseconds, packed, reply};
use crate::store::done_jobs::{DoneNote, KeepDone};
use crate::store::types::Result;
use crate::store::{DoneJobs, Queue};

scripts! {
    NOTE_DONE = "note_done";
}

#[async_trait]
impl DoneJobs for RedisStore {
    async fn note_done(&self, queue: &Queue, keep: KeepDone, notes: &[DoneNote]) -> Result<()> {
        if notes.is_empty() {
            return Ok(());
        }
        let add = |command: &mut Cmd| {
            command.arg(milliseconds(keep.time)).arg(keep.most.get());
            for note in notes {
                command.arg(packed::job(&note.fields()));
            }
        };
        let value = self.script(&NOTE_DONE, &[&*queue.done_key()], add).await?;
        reply::number(value, NOTE_DONE.name).map(drop)
    }
}
