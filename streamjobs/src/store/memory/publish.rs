//! Appending to streams in memory.

use async_trait::async_trait;

use super::MemoryStore;
use super::faults::delay;
use super::state::MemoryState;
use crate::model::config::Retention;
use crate::model::entry::EntryId;
use crate::model::name::StreamName;
use crate::store::types::Result;
use crate::store::{Appended, Appender, NewEntry, Publish, StoreError};

#[async_trait]
impl Publish for MemoryStore {
    async fn partitions(&self, stream: &StreamName, wanted: u16) -> Result<u16> {
        self.step("partitions", |state| {
            let count = state.partitions.entry(stream.as_str().to_owned()).or_insert(1);
            *count = wanted.max(*count);
            Ok(*count)
        })
        .await
    }

    fn appender(&self, stream: &StreamName, retention: Retention) -> Box<dyn Appender> {
        let (store, stream, answers) = (self.clone(), stream.clone(), Vec::new());
        Box::new(MemoryAppender { store, stream, retention, answers, is_broken: false })
    }
}

/// Appends to one stream.
struct MemoryAppender {
    store: MemoryStore,
    stream: StreamName,
    retention: Retention,
    answers: Vec<Appended>,
    is_broken: bool,
}

impl MemoryAppender {
    async fn append(&mut self, fields: NewEntry) -> Appended {
        if self.is_broken {
            return Err(StoreError::Unreachable("the connection broke before".into()));
        }
        let passage = self.store.faults.passage("append").await;
        let answer = self.store.step_now("append", passage.fault, |state| {
            Ok(state.append(self.stream.as_str(), self.retention, fields))
        });
        delay(passage.after).await;
        self.is_broken =
            matches!(answer, Err(StoreError::AnswerLost(_) | StoreError::Unreachable(_)));
        answer
    }
}

impl MemoryState {
    /// Appends an entry, with the retention that belongs to appending.
    pub(super) fn append(&mut self, key: &str, retention: Retention, fields: NewEntry) -> EntryId {
        let now = self.now();
        let stream = self.stream(key);
        let id = stream.append(now, fields);
        if let Retention::MaxLen(entries) | Retention::MaxLenExact(entries) = retention {
            stream.trim_to(entries.get());
        }
        id
    }
}

#[async_trait]
impl Appender for MemoryAppender {
    async fn push(&mut self, entries: Vec<NewEntry>) {
        for fields in entries {
            let answer = self.append(fields).await;
            self.answers.push(answer);
            self.store.changed.notify_waiters();
        }
    }

    async fn finish(self: Box<Self>) -> Vec<Appended> {
        self.answers
    }
}
