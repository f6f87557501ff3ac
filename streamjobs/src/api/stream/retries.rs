//! Jobs that wait for a retry: listing them, and running them before they are due.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::error::StreamError;
use super::group::Group;
use super::handle::PAGE_MAX;
use super::part::GroupPart;
use crate::api::merge::{Chunk, Order, Rows};
use crate::api::parts::{Found, Part, read_all, together};
use crate::api::rows;
use crate::model::entry::{EntryId, split_partition};
use crate::store::ServerTime;
use crate::store::inspect::{RetriesFrom, RetryFacts};

/// Identifies a job in the retry set of its group. It changes with the next retry of the job.
///
/// On a stream with partitions it ends with the partition's number, as in `s:1700000000000-0@5`: jobs of two
/// partitions may have the same name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RetryId {
    name: String,
    partition: Option<u16>,
}

/// A string that is not a retry id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "not a retry id: expected s: or l: and an entry id, such as s:1700000000000-0; on a stream with \
     partitions also the number of the partition, such as s:1700000000000-0@5"
)]
pub struct RetryIdError;

impl RetryId {
    /// The number of the partition; `None` if the stream has only one, or if it is not known.
    #[must_use]
    pub fn partition(&self) -> Option<u16> {
        self.partition
    }

    /// Its name in the retry set of its partition.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for RetryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.partition.map_or(Ok(()), |partition| write!(f, "@{partition}"))
    }
}

impl FromStr for RetryId {
    type Err = RetryIdError;

    fn from_str(text: &str) -> Result<Self, RetryIdError> {
        let (name, partition) = split_partition(text).ok_or(RetryIdError)?;
        let entry = name.strip_prefix("s:").or_else(|| name.strip_prefix("l:"));
        let entry = entry.map(|entry| entry.trim_end_matches('+'));
        match entry.map(str::parse::<EntryId>) {
            Some(Ok(_)) if name.len() <= NAME_MAX => Ok(Self { name: name.to_owned(), partition }),
            _ => Err(RetryIdError),
        }
    }
}

/// Where a page of jobs that wait for a retry ended. Written as text, it is the time at which the last job is due, a
/// colon, and the job's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RetryCursor {
    due: u64,
    id: RetryId,
}

impl fmt::Display for RetryCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.due, self.id)
    }
}

impl FromStr for RetryCursor {
    type Err = RetryIdError;

    fn from_str(text: &str) -> Result<Self, RetryIdError> {
        let (due, id) = text.split_once(':').ok_or(RetryIdError)?;
        Ok(Self { due: due.parse().map_err(|_| RetryIdError)?, id: id.parse()? })
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
    /// How long until it is due; zero if it is due already.
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
    /// Where the page that follows this job begins.
    #[must_use]
    pub fn cursor(&self) -> RetryCursor {
        RetryCursor { due: self.due, id: self.id.clone() }
    }

    /// `None` for a name that this crate does not write: `run_now` cannot run such a job.
    fn of(facts: RetryFacts, now: ServerTime, partition: Option<u16>) -> Option<Self> {
        Some(Self {
            id: RetryId { partition, ..facts.name.parse().ok()? },
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
    pub next: Option<RetryCursor>,
}

impl Group {
    /// A page of the jobs that wait for a retry, in the order in which they are due: at most `limit`, never more than
    /// 1,000, and fewer where their records are large. Due retries are moved to the [`lane`](Self::lane).
    ///
    /// Members of the set that another client wrote under another form of name are skipped, a
    /// thousand in each further request.
    ///
    /// If the job of `after` no longer waits, the page begins with the first job that is not due before it. Jobs of
    /// several partitions that are due in the same millisecond come in the order of their partitions.
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
        after: Option<&RetryCursor>,
        limit: usize,
    ) -> Result<RetryPage, StreamError> {
        let limit = limit.clamp(1, PAGE_MAX);
        let partitions = self.parts().into_iter().map(|part| {
            let from = after.map_or(Place::First, |after| after.place_in(part.number));
            RetryRows { part, from }
        });
        let (jobs, more) = rows::page(partitions.collect(), Order::OldestFirst, limit).await?;
        let next = jobs.last().map(ScheduledRetry::cursor).filter(|_| more);
        Ok(RetryPage { jobs, next })
    }

    /// Makes jobs that wait for a retry due at once, and returns how many still waited. They run within
    /// the processes' promote interval, half a second by default, unless the group is paused. Their
    /// recorded failures stay.
    ///
    /// # Errors
    ///
    /// When jobs of several partitions have the same id and the id names no partition, or there is no such partition:
    /// in these cases nothing is changed. The call also fails when the server cannot be reached or refuses. It may
    /// then already have made some of the jobs due.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, any of them may or may not be due. The call can be repeated.
    pub async fn run_now(&self, ids: &[RetryId]) -> Result<usize, StreamError> {
        let mut by_part = BTreeMap::<u16, (GroupPart, Vec<&str>)>::new();
        for id in ids {
            let parts = self.stream.parts.with(id.partition);
            let part = match parts.map_err(|number| self.stream.no_partition(number))? {
                [part] => part.clone(),
                parts => match self.waits_in(parts, &id.name).await? {
                    Found::In(part, ()) => part,
                    Found::Nowhere => continue,
                    Found::Several(partitions) => {
                        return Err(self.stream.ambiguous(id, partitions));
                    }
                },
            };
            let place = part.number.unwrap_or(0);
            let (_, names) = by_part.entry(place).or_insert_with(|| (self.part(&part), Vec::new()));
            names.push(&id.name);
        }
        let requests = by_part.values().map(|(part, names)| part.run_now(names)).collect();
        let due = together(requests).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(due.into_iter().sum())
    }

    /// The partition in which a job waits.
    async fn waits_in(&self, parts: &[Part], name: &str) -> Result<Found<()>, StreamError> {
        let waits = async |part: &Part| {
            let part = self.part(part);
            let waits = part.store.has_retry(&part.queue, name).await;
            waits.map_err(|error| part.failed("read the retries of", error))
        };
        let waits = read_all(parts.iter().map(waits).collect()).await?;
        Ok(Found::of(parts, waits.into_iter().map(|waits| waits.then_some(())).collect()))
    }
}

impl GroupPart {
    async fn run_now(&self, names: &[&str]) -> Result<usize, StreamError> {
        let mut due = 0;
        for names in names.chunks(PAGE_MAX) {
            let changed = self.store.run_now(&self.queue, names).await;
            due += changed.map_err(|error| self.failed("run retries of", error))?;
        }
        Ok(due)
    }
}

/// Where the jobs of one partition begin.
#[derive(Debug)]
enum Place {
    First,
    After(String, u64),
    Due(u64),
}

impl RetryCursor {
    /// Jobs are ordered by the time at which they are due; jobs of the same time, by their
    /// partitions.
    fn place_in(&self, partition: Option<u16>) -> Place {
        let (number, last) = (partition.unwrap_or(0), self.id.partition.unwrap_or(0));
        match number.cmp(&last) {
            Ordering::Less => Place::Due(self.due.saturating_add(1)),
            Ordering::Equal => Place::After(self.id.name.clone(), self.due),
            Ordering::Greater => Place::Due(self.due),
        }
    }
}

/// The jobs of one partition that wait for a retry.
#[derive(Debug)]
struct RetryRows {
    part: GroupPart,
    from: Place,
}

impl Rows for RetryRows {
    type Row = ScheduledRetry;
    /// When it is due.
    type Key = u64;
    type Error = StreamError;

    async fn read(&mut self, limit: usize) -> Result<Chunk<ScheduledRetry>, StreamError> {
        let (part, mut limit) = (&self.part, limit);
        loop {
            let from = match &self.from {
                Place::First => RetriesFrom::First,
                Place::After(name, due) => RetriesFrom::After { name, due: *due },
                Place::Due(due) => RetriesFrom::Due(*due),
            };
            let page = part.store.retries(&part.queue, from, limit).await;
            let page = page.map_err(|error| part.failed("read the retries of", error))?;
            // The next page begins after the last member, whichever client wrote it.
            let last = page.jobs.last().filter(|_| page.has_more);
            let has_more = match last {
                Some(last) => {
                    self.from = Place::After(last.name.clone(), last.due);
                    true
                }
                None => false,
            };
            let jobs = page.jobs.into_iter();
            let jobs = jobs.filter_map(|facts| ScheduledRetry::of(facts, page.now, part.number));
            let rows = jobs.collect::<Vec<_>>();
            if !rows.is_empty() || !has_more {
                return Ok(Chunk { rows, has_more });
            }
            limit = PAGE_MAX;
        }
    }

    fn key(row: &ScheduledRetry) -> u64 {
        row.due
    }

    fn is_absence(error: &StreamError) -> bool {
        matches!(error, StreamError::GroupMissing { .. })
    }
}

/// The longest name in the retry set. An entry id has at most 41 characters; a name that is taken
/// gets up to 64 plus signs.
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
        let queue = group.parts().remove(0).queue;
        let theirs = |due| store.schedule_retry(&queue, &format!("theirs {due}"), due);
        let ours = |due| store.schedule_retry(&queue, &format!("s:{due}-0"), due);
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
        let job = ScheduledRetry::of(facts, ServerTime(1), Some(7)).unwrap();
        let text = format!("{job:?}");
        assert!(text.contains("event-1") && !text.contains("canary"), "{text}");
        assert_eq!((job.id.to_string().as_str(), job.id.partition()), ("s:1-2@7", Some(7)));
        assert_eq!(job.error.as_deref(), Some("canary"));
    }

    #[test]
    fn only_names_that_this_crate_writes_are_ids() {
        for name in ["s:1-2", "l:1764000000000-0", "s:1-2+++", "l:1-2+@47"] {
            assert_eq!(name.parse::<RetryId>().map(|id| id.to_string()), Ok(name.to_owned()));
        }
        for text in [
            "",
            "1-2",
            "x:1-2",
            "s:",
            "s:1-2-3",
            "s:1-2 ",
            "s:1-2@",
            "s:1-2@x",
            &format!("s:1-2{}", "+".repeat(200)),
        ] {
            assert_eq!(text.parse::<RetryId>(), Err(RetryIdError), "{text}");
        }
    }

    #[test]
    fn a_cursor_is_read_as_it_is_shown() {
        let cursor = "1764000000000:s:1-2@5".parse::<RetryCursor>().unwrap();
        assert_eq!(cursor.to_string(), "1764000000000:s:1-2@5");
        for text in ["", "s:1-2", "5", "5:", "-5:s:1-2", "5:1-2"] {
            assert_eq!(text.parse::<RetryCursor>(), Err(RetryIdError), "{text}");
        }
    }
}
