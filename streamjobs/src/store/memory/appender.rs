//! Appending to streams in memory.

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::watch::delay;
use super::{MemoryStore, steps};
use crate::model::config::Retention;
use crate::model::name::StreamName;
use crate::store::{Appended, Appender, NewEntry, StoreError};

/// Appends to one stream.
pub(super) struct MemoryAppender {
    store: MemoryStore,
    stream: StreamName,
    retention: Retention,
    answers: Vec<Appended>,
    broken: bool,
}

impl MemoryAppender {
    pub(super) fn new(store: MemoryStore, stream: StreamName, retention: Retention) -> Self {
        Self { store, stream, retention, answers: Vec::new(), broken: false }
    }

    async fn append(&mut self, fields: NewEntry) -> Appended {
        if self.broken {
            return Err(StoreError::Unreachable("the connection broke before".into()));
        }
        let passage = self.store.passage("append").await;
        let append = |world: &mut _| Ok(steps::append(world, &self.stream, self.retention, fields));
        let answer = self.store.step_under(passage.fault, "append", append);
        delay(passage.after).await;
        self.broken = matches!(answer, Err(StoreError::AnswerLost(_) | StoreError::Unreachable(_)));
        answer
    }
}

impl Appender for MemoryAppender {
    fn push(&mut self, entries: Vec<NewEntry>) -> BoxFuture<'_, ()> {
        let push = async move {
            for fields in entries {
                let answer = self.append(fields).await;
                self.answers.push(answer);
                self.store.changed.notify_waiters();
            }
        };
        push.boxed()
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Vec<Appended>> {
        ready(self.answers).boxed()
    }
}
