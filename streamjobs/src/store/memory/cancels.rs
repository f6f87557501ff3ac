//! Marks in memory that cancel jobs.

use async_trait::async_trait;

use super::MemoryStore;
use super::state::MemoryState;
use crate::model::name::{EventId, GroupName, StreamName};
use crate::store::cancels::{KEPT_DAYS, MARKS_MAX, REMOVAL, marks_of, member};
use crate::store::types::Result;
use crate::store::{CancelMarks, Cancels};

impl MemoryState {
    /// The number of the last mark; zero if there is no mark.
    pub(super) fn last_cancel(&self, stream: &StreamName) -> u64 {
        let marks = self.cancels.get(stream.as_str());
        marks.and_then(|marks| marks.values().max()).copied().unwrap_or(0)
    }

    /// Gives a mark the highest number.
    fn mark_cancelled(&mut self, stream: &StreamName, mark: String) -> u64 {
        let (now, number) = (self.now(), self.now().max(self.last_cancel(stream) + 1));
        let marks = self.cancels.entry(stream.as_str().to_owned()).or_default();
        marks.insert(mark, number);
        let oldest = now.saturating_sub(KEPT_DAYS * 24 * 60 * 60 * 1_000);
        marks.retain(|_, number| *number >= oldest);
        while marks.len() > MARKS_MAX {
            let first = marks.iter().min_by_key(|(_, number)| **number);
            let Some(first) = first.map(|(mark, _)| mark.clone()) else { break };
            marks.remove(&first);
        }
        number
    }
}

#[async_trait]
impl Cancels for MemoryStore {
    async fn cancel(
        &self,
        stream: &StreamName,
        group: Option<&GroupName>,
        event_id: &EventId,
    ) -> Result<u64> {
        self.step("cancel", |state| Ok(state.mark_cancelled(stream, member(group, event_id)))).await
    }

    async fn uncancel(
        &self,
        stream: &StreamName,
        group: Option<&GroupName>,
        event_id: &EventId,
    ) -> Result<bool> {
        self.step("uncancel", |state| {
            let mark = member(group, event_id);
            let marks = state.cancels.get(stream.as_str());
            if !marks.is_some_and(|marks| marks.contains_key(&mark)) {
                return Ok(false);
            }
            // Its number is above the mark's, so it comes first.
            state.mark_cancelled(stream, REMOVAL.to_owned());
            let marks = state.cancels.get_mut(stream.as_str());
            Ok(marks.and_then(|marks| marks.remove(&mark)).is_some())
        })
        .await
    }

    async fn cancel_marks(
        &self,
        stream: &StreamName,
        after: u64,
        limit: usize,
    ) -> Result<CancelMarks> {
        self.step("cancel_marks", |state| {
            let marks = state.cancels.get(stream.as_str()).into_iter().flatten();
            let marks = marks.filter(|(_, number)| **number > after);
            let mut marks = marks.map(|(mark, number)| (mark.clone(), *number)).collect::<Vec<_>>();
            marks.sort_by_key(|(_, number)| *number);
            marks.truncate(limit);
            Ok(marks_of(marks, limit))
        })
        .await
    }
}
