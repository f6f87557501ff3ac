//! Marks in memory.

use std::time::Duration;

use async_trait::async_trait;

use super::MemoryStore;
use super::state::{Mark, MarkedWork, milliseconds};
use crate::store::marks::{MarkBegin, Marked};
use crate::store::types::Result;
use crate::store::{Marks, Queue};

#[async_trait]
impl Marks for MemoryStore {
    async fn begin_mark(&self, queue: &Queue, key: &str, begin: MarkBegin<'_>) -> Result<Marked> {
        self.step("begin_mark", |state| {
            let (now, key) = (state.now(), queue.mark_key(key));
            let found = state.marks.get(&key).filter(|mark| now < mark.expires);
            match found.map(|mark| &mark.work) {
                Some(MarkedWork::Done) => return Ok(Marked::Done),
                Some(MarkedWork::Running { origin, until, .. })
                    if *origin != begin.origin && now < *until =>
                {
                    return Ok(Marked::Running { rest: Duration::from_millis(until - now) });
                }
                _ => {}
            }
            let takeover = found.is_some();
            let until = now.saturating_add(milliseconds(begin.expiry).max(1));
            let expires = until.max(now.saturating_add(milliseconds(begin.keep)));
            let (owner, origin) = (begin.owner.to_owned(), begin.origin);
            let work = MarkedWork::Running { owner, origin, until };
            state.marks.insert(key, Mark { work, expires });
            Ok(Marked::Begun { takeover })
        })
        .await
    }

    async fn finish_mark(&self, queue: &Queue, key: &str, keep: Duration) -> Result<()> {
        self.step("finish_mark", |state| {
            let expires = state.now().saturating_add(milliseconds(keep).max(1));
            state.marks.insert(queue.mark_key(key), Mark { work: MarkedWork::Done, expires });
            Ok(())
        })
        .await
    }

    async fn undo_mark(&self, queue: &Queue, key: &str, owner: &str) -> Result<bool> {
        self.step("undo_mark", |state| {
            let (now, key) = (state.now(), queue.mark_key(key));
            let is_own = state.marks.get(&key).is_some_and(|mark| match &mark.work {
                MarkedWork::Running { owner: present, .. } => {
                    now < mark.expires && present == owner
                }
                MarkedWork::Done => false,
            });
            if is_own {
                state.marks.remove(&key);
            }
            Ok(is_own)
        })
        .await
    }
}
