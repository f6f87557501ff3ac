//! Pending entries of a group: listing them.

use std::sync::Arc;
use std::time::Duration;

use super::error::StreamError;
use super::group::Group;
use super::handle::PAGE_MAX;
use super::part::GroupPart;
use crate::api::merge::{Chunk, Order, Rows};
use crate::api::rows;
use crate::api::span::AddressSpan;
use crate::model::entry::{EntryAddress, EntryId};
use crate::store::inspect::{PendingEntry, PendingFilter, Span};
use crate::store::types::released_for;

/// Selects pending entries; all of them by default.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct PendingQuery {
    after: Option<EntryAddress>,
    idle_min: Duration,
    deliveries_min: u64,
    consumer: Option<String>,
    limit: Option<usize>,
}

impl PendingQuery {
    /// All pending entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only entries after this one, where the last page ended.
    pub fn after(mut self, entry: impl Into<EntryAddress>) -> Self {
        self.after = Some(entry.into());
        self
    }

    /// Only entries with at least this idle time.
    pub fn idle_min(mut self, idle: Duration) -> Self {
        self.idle_min = idle;
        self
    }

    /// Only entries with at least this delivery count.
    pub fn deliveries_min(mut self, deliveries: u64) -> Self {
        self.deliveries_min = deliveries;
        self
    }

    /// Only entries of one consumer.
    pub fn consumer(mut self, consumer: impl Into<String>) -> Self {
        self.consumer = Some(consumer.into());
        self
    }

    /// The number of entries that are read for one page: 100 by default, at most 1,000.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// A page of pending entries, in the order of their ids; entries with the same id come in the order
/// of their partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PendingPage {
    /// The entries.
    pub entries: Vec<PendingEntry>,
    /// Where the next page begins; `None` at the end. An empty page is not necessarily the last.
    pub next: Option<EntryAddress>,
}

impl Group {
    /// A page of the group's pending entries.
    ///
    /// # Errors
    ///
    /// When there is no such group, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn pending(&self, query: PendingQuery) -> Result<PendingPage, StreamError> {
        let limit = query.limit.unwrap_or(PENDING_PAGE).clamp(1, PAGE_MAX);
        let everything = AddressSpan::EVERYTHING;
        let rest = query.after.map_or(everything, |after| everything.after(after));
        let (idle, consumer) = (query.idle_min, query.consumer.map(Arc::from));
        let partitions = self.parts().into_iter().map(|part| {
            let span = rest.of(part.number);
            PendingRows { part, span, idle, consumer: consumer.clone() }
        });
        let (mut entries, more) =
            rows::page(partitions.collect(), Order::OldestFirst, limit).await?;
        let next = entries.last().map(PendingEntry::address).filter(|_| more);
        entries.retain(|entry| entry.delivery_count >= query.deliveries_min);
        for entry in &mut entries {
            if released_for(&entry.consumer).is_some() {
                entry.consumer.clear();
            }
        }
        Ok(PendingPage { entries, next })
    }
}

/// The pending entries of one partition.
#[derive(Debug)]
struct PendingRows {
    part: GroupPart,
    span: Span,
    idle: Duration,
    consumer: Option<Arc<str>>,
}

impl Rows for PendingRows {
    type Row = PendingEntry;
    type Key = EntryId;
    type Error = StreamError;

    async fn read(&mut self, limit: usize) -> Result<Chunk<PendingEntry>, StreamError> {
        let part = &self.part;
        if self.span.from > self.span.to {
            return Ok(Chunk { rows: Vec::new(), has_more: false });
        }
        // No entry has the first id, so everything follows it.
        let after = self.span.from.previous().unwrap_or(EntryId::ZERO);
        let filter = PendingFilter {
            inlet: part.inlet,
            after,
            idle: self.idle,
            consumer: self.consumer.as_deref(),
            limit,
        };
        let rows = match part.store.pending(&part.queue, filter).await {
            Err(error) => part.allow_missing_lane(error).await.map(|()| Vec::new()),
            rows => rows,
        };
        let mut rows = rows.map_err(|error| part.failed("read pending entries of", error))?;
        let progress = part.store.read_progress(&part.queue, part.inlet, &rows).await;
        let progress = progress.map_err(|error| part.failed("read the progress of", error))?;
        for (row, progress) in rows.iter_mut().zip(progress) {
            (row.partition, row.progress) = (part.number, progress);
        }
        let next = rows.last().filter(|_| rows.len() >= limit).and_then(|last| last.id.next());
        let has_more = next.is_some();
        self.span.from = next.unwrap_or(EntryId::MAX);
        Ok(Chunk { rows, has_more })
    }

    fn key(row: &PendingEntry) -> EntryId {
        row.id
    }

    fn is_absence(error: &StreamError) -> bool {
        matches!(error, StreamError::GroupMissing { .. })
    }
}

const PENDING_PAGE: usize = 100;
