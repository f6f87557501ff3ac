//! Marks that cancel the jobs of an event, whatever becomes of its entry.

use async_trait::async_trait;

use super::types::Result;
use crate::model::name::{EventId, GroupName, StreamName};

/// A mark: the jobs of this event do not run any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelMark {
    /// The event id.
    pub event_id: String,
    /// The group whose job is cancelled; `None` for the jobs of all groups.
    pub group: Option<String>,
    /// The mark's number: later marks have higher ones. It is close to the server's clock in
    /// milliseconds.
    pub number: u64,
}

/// Marks in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CancelMarks {
    /// The marks.
    pub marks: Vec<CancelMark>,
    /// The number of the last removal, if marks were removed since then: the caller must read the
    /// remaining marks again.
    pub removed: Option<u64>,
    /// Whether there may be more marks after these.
    pub has_more: bool,
}

impl CancelMarks {
    /// The number of the last mark or removal.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.marks.last().map(|mark| mark.number).max(self.removed)
    }
}

/// The steps on marks that cancel jobs. Marks belong to a stream, and no process owns them.
#[async_trait]
pub trait Cancels: Send + Sync {
    /// Marks the jobs of an event, in one group or in all, and returns the number of the mark. It replaces an older
    /// mark for the same jobs. Removes marks that are 400 days old, and, if there are more than 100,000, the oldest
    /// marks.
    async fn cancel(
        &self,
        stream: &StreamName,
        group: Option<&GroupName>,
        event_id: &EventId,
    ) -> Result<u64>;

    /// Removes a mark. Returns whether there was one.
    async fn uncancel(
        &self,
        stream: &StreamName,
        group: Option<&GroupName>,
        event_id: &EventId,
    ) -> Result<bool>;

    /// Returns marks with numbers above `after`, at most `limit`. Changes nothing.
    async fn cancel_marks(
        &self,
        stream: &StreamName,
        after: u64,
        limit: usize,
    ) -> Result<CancelMarks>;
}

/// How long a mark is kept: longer than a job can wait for its next attempt, which is a year.
pub(crate) const KEPT_DAYS: u64 = 400;
/// How many marks of one stream are kept.
pub(crate) const MARKS_MAX: usize = 100_000;

/// The sorted-set member that stands for a mark.
pub(crate) fn member(group: Option<&GroupName>, event_id: &EventId) -> String {
    // Neither name can contain a control character.
    match group {
        Some(group) => format!("{event_id}\n{group}"),
        None => event_id.as_str().to_owned(),
    }
}

/// Builds marks from members and their numbers, in the order of the numbers; `limit` is what the caller
/// asked for.
pub(crate) fn marks_of(members: Vec<(String, u64)>, limit: usize) -> CancelMarks {
    let mut page = CancelMarks { has_more: members.len() >= limit, ..CancelMarks::default() };
    for (member, number) in members {
        if member == REMOVAL {
            page.removed = Some(number);
            continue;
        }
        let (event_id, group) = match member.split_once('\n') {
            Some((event_id, group)) => (event_id.to_owned(), Some(group.to_owned())),
            None => (member, None),
        };
        page.marks.push(CancelMark { event_id, group, number });
    }
    page
}

/// The member whose number says when a mark was last removed.
pub(crate) const REMOVAL: &str = "";
