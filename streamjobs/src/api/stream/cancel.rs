//! Cancelling the jobs of an event.

use std::collections::BTreeSet;

use super::error::StreamError;
use super::group::Group;
use super::handle::{PAGE_MAX, Stream};
use super::part::GroupPart;
use crate::api::parts::{Part, read_all, together};
use crate::model::name::EventId;
use crate::store::CancelMark;

/// What cancelling an event found. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancellation {
    /// The event waited for its time and was removed, so it will never enter its stream. If an event with this id had
    /// already entered the stream before, its jobs are not marked; repeat the call to mark them.
    Unscheduled,
    /// Its jobs are marked. This does not say whether there are any: the server no longer knows a job that is done,
    /// and the jobs of an event that is published later are cancelled as well.
    Marked,
}

/// A mark: the jobs of an event are not run any more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CancelledEvent {
    /// The event id.
    pub event_id: String,
    /// The group whose job is cancelled; `None` for those of all groups.
    pub group: Option<String>,
    /// When it was cancelled, by the server's clock in milliseconds since 1970. If several events were cancelled at
    /// once, it can be some milliseconds later, because no two marks of one partition have the same time.
    pub at: u64,
}

impl Stream {
    /// Cancels an event for all groups: the event is removed if it waits for its time; otherwise its jobs are marked,
    /// wherever they are.
    ///
    /// Processes learn of a mark within their promote interval: half a second by default, or six intervals in an idle
    /// group. From then on, a marked job that waits ends when its turn comes, without having run: as a dead letter
    /// with the reason [`Cancelled`](crate::dead_letter::Reason::Cancelled). A marked job that waits for a retry ends
    /// when the retry is due. In a job that is already running, [`Job::cancelled`](crate::Job::cancelled) fires. If
    /// its handler then returns successfully, the job is done; otherwise it ends as cancelled, without a retry. A
    /// redrive of the dead letter runs the job, unless it is cancelled again.
    ///
    /// The mark belongs to the stream and to no process: it also applies to processes that start later, and to an
    /// event that is published with this id later. It is kept for 400 days, longer than a job can wait for a retry; a
    /// stream keeps 100,000 marks, and the oldest are removed first. Processes built with a release that does not
    /// know marks run marked jobs.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses, in any partition. The call can be repeated.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the event may or may not be cancelled, in each partition.
    pub async fn cancel(&self, event_id: &EventId) -> Result<Cancellation, StreamError> {
        let unschedule = async |part: &Part| {
            let removed = self.store.unschedule(&part.stream, event_id).await;
            removed.map_err(|error| StreamError::server(&part.stream, CANCEL, error))
        };
        let removed = together(self.parts.iter().map(unschedule).collect()).await;
        if removed.iter().any(|removed| matches!(removed, Ok(true))) {
            return Ok(Cancellation::Unscheduled);
        }
        removed.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mark = async |part: &Part| {
            let marked = self.store.cancel(&part.stream, None, event_id).await;
            marked.map_err(|error| StreamError::server(&part.stream, CANCEL, error))
        };
        let marked = together(self.parts.iter().map(mark).collect()).await;
        marked.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(Cancellation::Marked)
    }

    /// Removes the mark of an event for all groups, and returns whether there was such a mark. The event's jobs run
    /// again. Jobs that have ended as dead letters stay dead letters until they are redriven. Marks for single groups
    /// stay.
    ///
    /// # Errors
    ///
    /// As [`cancel`](Self::cancel).
    ///
    /// # Cancel safety
    ///
    /// As [`cancel`](Self::cancel).
    pub async fn uncancel(&self, event_id: &EventId) -> Result<bool, StreamError> {
        let unmark = async |part: &Part| {
            let removed = self.store.uncancel(&part.stream, None, event_id).await;
            removed.map_err(|error| StreamError::server(&part.stream, CANCEL, error))
        };
        let removed = together(self.parts.iter().map(unmark).collect()).await;
        let removed = removed.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(removed.contains(&true))
    }

    /// Cancelled events whose mark was set after this time, by the server's clock in milliseconds, in the order of
    /// the marks: at most `limit`, and never more than 1,000. The next page begins after the last event's
    /// [`at`](CancelledEvent::at). On a stream with partitions, a page lists an event once.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn cancelled(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<CancelledEvent>, StreamError> {
        let limit = limit.min(PAGE_MAX);
        if limit == 0 {
            return Ok(Vec::new());
        }
        // One more, because the sign of a removal is not shown.
        let read = async |part: &Part| {
            let page = self.store.cancel_marks(&part.stream, after, limit + 1).await;
            page.map_err(|error| StreamError::server(&part.stream, "read", error))
        };
        let pages = read_all::<_, StreamError, _>(self.parts.iter().map(read).collect()).await?;
        let mut marks = pages.into_iter().flat_map(|page| page.marks).collect::<Vec<_>>();
        marks.sort_by_key(|mark| mark.number);
        let mut seen = BTreeSet::new();
        marks.retain(|mark| seen.insert((mark.event_id.clone(), mark.group.clone())));
        marks.truncate(limit);
        let shown =
            |CancelMark { event_id, group, number }| CancelledEvent { event_id, group, at: number };
        Ok(marks.into_iter().map(shown).collect())
    }
}

impl Group {
    /// Cancels the group's job of an event: as [`Stream::cancel`] does for all groups, but an event that
    /// waits for its time stays, because other groups may have jobs of it.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses, in any partition. It is not checked whether there is such a
    /// group. The call can be repeated.
    ///
    /// # Cancel safety
    ///
    /// As [`Stream::cancel`].
    pub async fn cancel(&self, event_id: &EventId) -> Result<(), StreamError> {
        let mark = |part: GroupPart| async move { part.cancel(event_id).await };
        self.each(mark).await.map(drop)
    }

    /// Removes the mark that cancels the group's job of an event, and returns whether there was such a mark. A mark
    /// for all groups stays: see [`Stream::uncancel`].
    ///
    /// # Errors
    ///
    /// As [`cancel`](Self::cancel).
    ///
    /// # Cancel safety
    ///
    /// As [`Stream::cancel`].
    pub async fn uncancel(&self, event_id: &EventId) -> Result<bool, StreamError> {
        let unmark = |part: GroupPart| async move { part.uncancel(event_id).await };
        Ok(self.each(unmark).await?.contains(&true))
    }
}

const CANCEL: &str = "cancel an event of";
