//! Jobs that wait for a retry: listing them, and running them before they are due.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::group::Group;
use super::{PAGE_MAX, StreamError};
use crate::model::entry::EntryId;
use crate::store::ServerTime;
use crate::store::inspect::RetryFacts;

/// Identifies a job in the retry set of its group. It changes with the next retry of the job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RetryId(String);

/// A string that is not a retry id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a retry id: expected s: or l: and an entry id, such as s:1700000000000-0")]
pub struct RetryIdError;

impl fmt::Display for RetryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RetryId {
    type Err = RetryIdError;

    fn from_str(text: &str) -> Result<Self, RetryIdError> {
        let entry = text.strip_prefix("s:").or_else(|| text.strip_prefix("l:"));
        let entry = entry.map(|entry| entry.trim_end_matches('+'));
        match entry.map(str::parse::<EntryId>) {
            Some(Ok(_)) if text.len() <= NAME_MAX => Ok(Self(text.to_owned())),
            _ => Err(RetryIdError),
        }
    }
}

/// A job that waits for a retry: it failed, or was snoozed. Fields that its record does not have are
/// `None`; its payload is not read.
///
/// `Debug` does not show the error, which may quote the payload.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScheduledRetry {
    /// Its id in the retry set.
    pub id: RetryId,
    /// The event id.
    pub event_id: Option<String>,
    /// The event type.
    pub event_type: Option<String>,
    /// Failures recorded so far.
    pub attempts: u32,
    /// The last known error.
    pub error: Option<String>,
    /// The entry that was published.
    pub origin: Option<EntryId>,
    /// When it is due, by the server's clock in milliseconds since 1970; 0 after
    /// [`run_now`](Group::run_now).
    pub due: u64,
    /// How long until it is due; zero if it is.
    pub due_in: Duration,
}

impl fmt::Debug for ScheduledRetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScheduledRetry")
            .field("id", &self.id)
            .field("event_id", &self.event_id)
            .field("event_type", &self.event_type)
            .field("attempts", &self.attempts)
            .field("origin", &self.origin)
            .field("due", &self.due)
            .field("due_in", &self.due_in)
            .finish_non_exhaustive()
    }
}

impl ScheduledRetry {
    /// `None` for a name that this crate does not write: such a job cannot be run from here.
    fn of(facts: RetryFacts, now: ServerTime) -> Option<Self> {
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

/// A page of jobs that wait for a retry, in the order in which they are due.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPage {
    /// The jobs.
    pub jobs: Vec<ScheduledRetry>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<RetryId>,
}

impl Group {
    /// A page of the jobs that wait for a retry, in the order in which they are due: at most `limit`
    /// and at most 1,000, fewer where their records are large. Due retries are moved to the
    /// [`lane`](Self::lane).
    ///
    /// Members of the set that another client wrote under a name of another form are skipped, a
    /// thousand in each further request.
    ///
    /// If the job of `after` no longer waits, the page begins with the first job.
    ///
    /// # Errors
    ///
    /// When there is no such group, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn retries(
        &self,
        after: Option<&RetryId>,
        limit: usize,
    ) -> Result<RetryPage, StreamError> {
        let limit = limit.clamp(1, PAGE_MAX);
        let (mut after, mut page_size) = (after.map(|id| id.0.clone()), limit);
        loop {
            let page = self.store().retries(&self.queue, after.as_deref(), page_size).await;
            let page = page.map_err(|error| self.failed("read the retries of", error))?;
            // The next page begins after the last member, whichever client wrote it.
            after = page.jobs.last().map(|last| last.name.clone()).filter(|_| page.has_more);
            let jobs =
                page.jobs.into_iter().filter_map(|facts| ScheduledRetry::of(facts, page.now));
            let mut jobs = jobs.collect::<Vec<_>>();
            if jobs.is_empty() && after.is_some() {
                page_size = PAGE_MAX;
                continue;
            }
            let more = after.is_some() || jobs.len() > limit;
            jobs.truncate(limit);
            let next = jobs.last().map(|job| job.id.clone()).filter(|_| more);
            return Ok(RetryPage { jobs, next });
        }
    }

    /// Makes jobs that wait for a retry due at once, and returns how many still waited. They run within
    /// the processes' promote interval, half a second by default, unless the group is paused. Their
    /// recorded failures stay.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses; some jobs may be due before.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, any of them may or may not be due. The call may be repeated.
    pub async fn run_now(&self, ids: &[RetryId]) -> Result<usize, StreamError> {
        let mut due = 0;
        for ids in ids.chunks(PAGE_MAX) {
            let names = ids.iter().map(|id| id.0.as_str()).collect::<Vec<_>>();
            let changed = self.store().run_now(&self.queue, &names).await;
            due += changed.map_err(|error| self.failed("run retries of", error))?;
        }
        Ok(due)
    }
}

/// An entry id has at most 41 characters; a name that is taken gets up to 64 plus signs.
const NAME_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::config::Start;
    use crate::publish::client::Client;
    use crate::store::memory::MemoryStore;
    use crate::store::raw_access::RawAccess as _;

    #[tokio::test(start_paused = true)]
    async fn names_of_other_clients_are_skipped_however_many_there_are() {
        let store = MemoryStore::new();
        let client = Client::in_memory(Arc::new(store.clone()));
        let group = client.stream("orders").unwrap().group("work").unwrap();
        group.create(Start::Beginning).await.unwrap();
        let theirs = |due| store.schedule_retry(&group.queue, &format!("theirs {due}"), due);
        let ours = |due| store.schedule_retry(&group.queue, &format!("s:{due}-0"), due);
        (0..2_500).for_each(theirs);
        (3_000..3_003).for_each(ours);
        theirs(4_000);
        let page = group.retries(None, 2).await.unwrap();
        let due = |page: &RetryPage| page.jobs.iter().map(|job| job.due).collect::<Vec<_>>();
        assert_eq!(due(&page), [3_000, 3_001]);
        let rest = group.retries(page.next.as_ref(), 1).await.unwrap();
        assert_eq!(due(&rest), [3_002]);
        let end = group.retries(rest.next.as_ref(), 1).await.unwrap();
        assert_eq!(end, RetryPage { jobs: Vec::new(), next: None });
    }

    #[test]
    fn debug_does_not_show_the_error() {
        let facts = RetryFacts {
            name: "s:1-2".to_owned(),
            due: 5,
            event_type: Some("order.placed".to_owned()),
            event_id: Some("event-1".to_owned()),
            failures: Some(3),
            origin: None,
            error: Some("canary".to_owned()),
        };
        let job = ScheduledRetry::of(facts, ServerTime(1)).unwrap();
        let text = format!("{job:?}");
        assert!(text.contains("event-1") && !text.contains("canary"), "{text}");
        assert_eq!(job.error.as_deref(), Some("canary"));
    }

    #[test]
    fn only_names_that_this_crate_writes_are_ids() {
        for name in ["s:1-2", "l:1764000000000-0", "s:1-2+++"] {
            assert_eq!(name.parse::<RetryId>().map(|id| id.to_string()), Ok(name.to_owned()));
        }
        for text in
            ["", "1-2", "x:1-2", "s:", "s:1-2-3", "s:1-2 ", &format!("s:1-2{}", "+".repeat(200))]
        {
            assert_eq!(text.parse::<RetryId>(), Err(RetryIdError), "{text}");
        }
    }
}
