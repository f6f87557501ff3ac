//! Jobs that are set aside: looking at them, and letting them run before their time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::group::Group;
use super::{PAGE_MAX, StreamError};
use crate::entry::EntryId;
use crate::store::ServerTime;
use crate::store::inspect::SetAsideFacts;

/// What a job that is set aside is known by among the others of its group. It changes when the job
/// is set aside again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SetAsideId(String);

/// A text is not what a job that is set aside is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("that is not what a job that is set aside is known by")]
pub struct SetAsideIdError;

impl fmt::Display for SetAsideId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SetAsideId {
    type Err = SetAsideIdError;

    fn from_str(text: &str) -> Result<Self, SetAsideIdError> {
        let entry = text.strip_prefix("s:").or_else(|| text.strip_prefix("l:"));
        let entry = entry.map(|entry| entry.trim_end_matches('+'));
        match entry.map(str::parse::<EntryId>) {
            Some(Ok(_)) if text.len() <= NAME_MAX => Ok(Self(text.to_owned())),
            _ => Err(SetAsideIdError),
        }
    }
}

/// A failed job that waits for its back-off, or one that was put off. What its record does not say
/// is none; its payload is not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetAsideJob {
    /// What it is known by.
    pub id: SetAsideId,
    /// The identity of its event.
    pub event_id: Option<String>,
    /// The event type.
    pub event_type: Option<String>,
    /// Failures recorded so far.
    pub attempts: u32,
    /// The last error that is known.
    pub error: Option<String>,
    /// The entry that was published.
    pub origin: Option<EntryId>,
    /// When it is due, by the server's clock in milliseconds since 1970.
    pub due: u64,
    /// How long that is from now; zero for what is due.
    pub due_in: Duration,
}

impl SetAsideJob {
    /// None for a name that this crate never gave: nothing can be done to that job here.
    fn of(facts: SetAsideFacts, now: ServerTime) -> Option<Self> {
        Some(Self {
            id: facts.name.parse().ok()?,
            event_id: facts.event_id,
            event_type: facts.event_type,
            attempts: facts.failures.unwrap_or(0),
            error: facts.error,
            origin: facts.origin,
            due: facts.due,
            due_in: Duration::from_millis(facts.due.saturating_sub(now.0)),
        })
    }
}

/// Some jobs that are set aside, in the order in which they are due.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetAsidePage {
    /// The jobs.
    pub jobs: Vec<SetAsideJob>,
    /// After which to go on; none at the end.
    pub next: Option<SetAsideId>,
}

impl Group {
    /// A page of the jobs that are set aside, in the order in which they are due: at most `limit`
    /// and at most 1,000, fewer where their records are large. Those whose time has come stand in
    /// the [`lane`](Self::lane).
    ///
    /// Where the job to go on after is gone, the page begins with the first one.
    ///
    /// # Errors
    ///
    /// When there is no such group, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn set_aside(
        &self,
        after: Option<&SetAsideId>,
        limit: usize,
    ) -> Result<SetAsidePage, StreamError> {
        let (after, limit) = (after.map(|id| id.0.as_str()), limit.clamp(1, PAGE_MAX));
        let page = self.store().set_aside_jobs(&self.queue, after, limit).await;
        let page = page.map_err(|error| self.failed("look at jobs set aside on", error))?;
        let jobs = page.jobs.into_iter().filter_map(|facts| SetAsideJob::of(facts, page.now));
        let jobs = jobs.collect::<Vec<_>>();
        let next = jobs.last().map(|job| job.id.clone()).filter(|_| page.more);
        Ok(SetAsidePage { jobs, next })
    }

    /// Makes jobs that are set aside due at once: how many of them were still set aside. They run
    /// within the processes' promote interval, half a second by default, unless the group is paused;
    /// their failures stay counted.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses; some may be due by then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open which are due. Asking twice is as good as once.
    pub async fn run_now(&self, ids: &[SetAsideId]) -> Result<usize, StreamError> {
        let mut due = 0;
        for ids in ids.chunks(PAGE_MAX) {
            let names = ids.iter().map(|id| id.0.as_str()).collect::<Vec<_>>();
            let changed = self.store().run_now(&self.queue, &names).await;
            due += changed.map_err(|error| self.failed("run jobs set aside on", error))?;
        }
        Ok(due)
    }
}

/// An entry id has at most 41 characters; a name that is taken gets up to 64 marks.
const NAME_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_are_given_are_names() {
        for name in ["s:1-2", "l:1764000000000-0", "s:1-2+++"] {
            assert_eq!(name.parse::<SetAsideId>().map(|id| id.to_string()), Ok(name.to_owned()));
        }
        for text in
            ["", "1-2", "x:1-2", "s:", "s:1-2-3", "s:1-2 ", &format!("s:1-2{}", "+".repeat(200))]
        {
            assert_eq!(text.parse::<SetAsideId>(), Err(SetAsideIdError), "{text}");
        }
    }
}
