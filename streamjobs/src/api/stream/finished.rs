//! Jobs of a group that are done, as far as they are noted.

use super::error::StreamError;
use super::group::Group;
use super::handle::PAGE_MAX;
use crate::api::merge::Order;
use crate::api::rows::{self, EntryRows};
use crate::api::span::AddressSpan;
use crate::model::done::FinishedJob;
use crate::model::entry::{Entry, EntryAddress, EntryId};

/// Selects jobs that are done; all of them by default.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct FinishedQuery {
    before: Option<EntryAddress>,
    event_id: Option<String>,
    event_type: Option<String>,
    key: Option<String>,
    limit: Option<usize>,
}

impl FinishedQuery {
    /// All jobs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only jobs noted before this note, where the last page ended.
    pub fn before(mut self, note: impl Into<EntryAddress>) -> Self {
        self.before = Some(note.into());
        self
    }

    /// Only the job on this event.
    pub fn event_id(mut self, id: impl Into<String>) -> Self {
        self.event_id = Some(id.into());
        self
    }

    /// Only those of this event type.
    pub fn event_type(mut self, event_type: impl Into<String>) -> Self {
        self.event_type = Some(event_type.into());
        self
    }

    /// Only those of events with this key.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The number of jobs of one page: 100 by default, at most 1,000.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    fn selects(&self, job: &FinishedJob) -> bool {
        let is = |wanted: &Option<String>, value: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| value == Some(wanted))
        };
        is(&self.event_id, Some(&job.event_id))
            && is(&self.event_type, job.event_type.as_deref())
            && is(&self.key, job.key.as_deref())
    }
}

/// A page of jobs that are done, the latest note first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FinishedPage {
    /// The jobs.
    pub jobs: Vec<FinishedJob>,
    /// How many notes were compared.
    pub compared: usize,
    /// Where the next page begins; `None` at the end. An empty page is not necessarily the last.
    pub next: Option<EntryAddress>,
}

impl Group {
    /// A page of the group's jobs that are done, the latest note first: jobs of handlers with the option `keep_done`,
    /// as long as their notes are kept.
    ///
    /// A page compares at most 10,000 notes, and says where the next page goes on. A job that is done is noted within
    /// about a quarter of a second; a job whose process dies in between is not noted, and a job that ran twice can be
    /// noted twice.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses. Without notes, the page is empty.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn finished(&self, query: FinishedQuery) -> Result<FinishedPage, StreamError> {
        let limit = query.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
        let mut page = FinishedPage { jobs: Vec::new(), compared: 0, next: query.before };
        let mut rest = query
            .before
            .map_or(AddressSpan::EVERYTHING, |before| AddressSpan::EVERYTHING.before(before));
        loop {
            let (notes, more) = self.notes(rest, Order::NewestFirst).await?;
            let count = notes.len();
            for (place, note) in notes.into_iter().enumerate() {
                page.compared += 1;
                page.next = Some(note.address());
                let job = FinishedJob::of(&note).filter(|job| query.selects(job));
                page.jobs.extend(job);
                let is_full = page.jobs.len() == limit || page.compared == COMPARED_MAX;
                if is_full && (more || place + 1 < count) {
                    return Ok(page);
                }
            }
            let Some(last) = page.next.filter(|_| more) else { break };
            rest = AddressSpan::EVERYTHING.before(last);
        }
        page.next = None;
        Ok(page)
    }

    /// The note of the job on an event: the first of 1,000 since it was published, or of the newest 1,000 if that time
    /// is not known.
    pub(super) async fn noted(
        &self,
        event_id: &str,
        published: Option<u64>,
    ) -> Result<Option<FinishedJob>, StreamError> {
        let everything = AddressSpan::EVERYTHING;
        let (span, order) = match published {
            Some(at) => (everything.from(EntryId::new(at, 0).into()), Order::OldestFirst),
            None => (everything, Order::NewestFirst),
        };
        let (notes, _) = self.notes(span, order).await?;
        let mut jobs = notes.iter().filter_map(FinishedJob::of);
        Ok(jobs.find(|job| job.event_id == event_id))
    }

    async fn notes(
        &self,
        span: AddressSpan,
        order: Order,
    ) -> Result<(Vec<Entry>, bool), StreamError> {
        let rows = self.stream.parts.iter().map(|part| {
            let key = part.stream.done_stream(&self.name);
            EntryRows::new(&self.stream.store, part, key, span, order)
        });
        let page = rows::page(rows.collect(), order, PAGE_MAX).await;
        page.map_err(|error| StreamError::of_part(error, "read the finished jobs of"))
    }
}

const PAGE: usize = 100;
const COMPARED_MAX: usize = 10_000;
