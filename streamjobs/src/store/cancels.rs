//! Marks that cancel the jobs of an event, whatever becomes of its entry.

use async_trait::async_trait;

use super::types::Result;
use crate::model::name::{EventId, GroupName, StreamName};

/// A mark: the jobs of this event are not run any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelMark {
    /// The event id.
    pub event_id: String,
    /// The group whose job it is; `None` for the jobs of all groups.
    pub group: Option<String>,
    /// Later marks have higher numbers. It is about the server's clock in milliseconds.
    pub number: u64,
}

/// Marks in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CancelMarks {
    /// The marks.
    pub marks: Vec<CancelMark>,
    /// Whether marks were removed since then, with the number of that: the others are to be read again.
    pub removed: Option<u64>,
    /// Whether there may be more after them.
    pub has_more: bool,
}

impl CancelMarks {
    /// The number of the last mark or removal.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.marks.last().map(|mark| mark.number).max(self.removed)
    }
}

/// The steps on marks of cancelled jobs. They belong to a stream, and no process owns them.
#[async_trait]
pub trait Cancels: Send + Sync {
    /// Marks the jobs of an event, of one group or of all: the number of the mark. An older mark is
    /// replaced. Marks that are 400 days old are removed, and the oldest above 100,000.
    async fn cancel(
        &self,
        stream: &StreamName,
        group: Option<&GroupName>,
        event_id: &EventId,
    ) -> Result<u64>;

    /// Removes a mark: whether there was one.
    async fn uncancel(
        &self,
        stream: &StreamName,
        group: Option<&GroupName>,
        event_id: &EventId,
    ) -> Result<bool>;

    /// Marks with numbers above `after`, at most `limit`. Changes nothing.
    async fn cancel_marks(
        &self,
        stream: &StreamName,
        after: u64,
        limit: usize,
    ) -> Result<CancelMarks>;
}

/// How long a mark is kept: longer than a job can wait for its next attempt, which is a year.
pub(crate) const KEPT_DAYS: u64 = 400;
/// How many marks are kept of one stream.
pub(crate) const MARKS_MAX: usize = 100_000;

/// The member that stands for a mark.
pub(crate) fn member(group: Option<&GroupName>, event_id: &EventId) -> String {
    // Neither name has a control character.
    match group {
        Some(group) => format!("{event_id}\n{group}"),
        None => event_id.as_str().to_owned(),
    }
}

/// Reads members with their numbers, in the order of the numbers; `limit` is what was asked for.
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
