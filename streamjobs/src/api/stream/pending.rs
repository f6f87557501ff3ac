//! Pending entries of a group: listing, acknowledging, claiming, releasing and handing over.

use std::time::Duration;

use super::group::Group;
use super::{PAGE_MAX, StreamError};
use crate::model::entry::{EntryId, Inlet};
use crate::model::name::ConsumerName;
use crate::store::StoreError;
use crate::store::admin::{Destination, MovedPage, Selected};
use crate::store::inspect::{PendingEntry, PendingFilter};
use crate::store::types::released_for;

/// Selects pending entries; all of them by default.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct PendingQuery {
    after: EntryId,
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

    /// Only those after this entry, where the last page ended.
    pub fn after(mut self, id: EntryId) -> Self {
        self.after = id;
        self
    }

    /// Only those with at least this idle time.
    pub fn idle_min(mut self, idle: Duration) -> Self {
        self.idle_min = idle;
        self
    }

    /// Only those with at least this delivery count.
    pub fn deliveries_min(mut self, deliveries: u64) -> Self {
        self.deliveries_min = deliveries;
        self
    }

    /// Only those of one consumer.
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

/// A page of pending entries, in the order of their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PendingPage {
    /// The entries.
    pub entries: Vec<PendingEntry>,
    /// Where the next page begins; `None` at the end. An empty page is not necessarily the last.
    pub next: Option<EntryId>,
}

/// The result of moving pending entries to another consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct HandedOver {
    /// Entries that were moved.
    pub moved: Vec<EntryId>,
    /// Entries whose payload was trimmed; they are stored as dead letters now.
    pub trimmed: Vec<EntryId>,
    /// Entries that are not pending: acknowledged, or never delivered.
    pub missing: Vec<EntryId>,
    /// Entries whose payload was trimmed and that stay pending, because the key of the dead letters
    /// holds another type, so that no dead letter can be stored.
    pub unstored: Vec<EntryId>,
}

impl HandedOver {
    fn add(&mut self, page: MovedPage) {
        self.moved.extend(page.moved);
        self.trimmed.extend(page.trimmed);
        self.missing.extend(page.missing);
        self.unstored.extend(page.unstored);
    }
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
        let look = PendingFilter {
            inlet: self.inlet,
            after: query.after,
            idle: query.idle_min,
            consumer: query.consumer.as_deref(),
            limit,
        };
        let entries = match self.store().pending(&self.queue, look).await {
            Err(error) => self.allow_missing_lane(error).await.map(|()| Vec::new()),
            entries => entries,
        };
        let mut entries = entries.map_err(|error| self.failed("read pending entries of", error))?;
        let next = entries.last().map(|entry| entry.id).filter(|_| entries.len() == limit);
        entries.retain(|entry| entry.delivery_count >= query.deliveries_min);
        for entry in &mut entries {
            if released_for(&entry.consumer).is_some() {
                entry.consumer.clear();
            }
        }
        Ok(PendingPage { entries, next })
    }

    /// Acknowledges entries by hand, whichever consumer owns them, and returns how many were pending.
    /// They count as done: a handler that is running one of them loses its lease.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses; some may be acknowledged before.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, any of them may or may not be acknowledged.
    pub async fn acknowledge(&self, ids: &[EntryId]) -> Result<usize, StreamError> {
        let acks = ids.iter().map(|id| (self.inlet, *id)).collect::<Vec<_>>();
        let acknowledged = self.store().acknowledge(&self.queue, &acks).await;
        let failed = |error| self.failed("acknowledge entries of", error);
        let acknowledged = acknowledged.map_err(failed)?;
        if acknowledged > 0 {
            self.store().record_move(&self.queue).await.map_err(failed)?;
        }
        Ok(acknowledged)
    }

    /// Moves entries to a consumer, whichever consumer owns them.
    ///
    /// A process of this framework runs them within its promote interval, half a second by default, as
    /// soon as it has free slots; until then they are released for it alone. If its heartbeats end, or
    /// it does not claim them within its lease, any other process does. A
    /// consumer of other software, which sends no heartbeats, owns them at once. A handler that is
    /// running one of the entries elsewhere loses its lease; what the consumer itself is running goes on.
    ///
    /// The delivery that this cuts short is not counted.
    ///
    /// # Errors
    ///
    /// When there is no such group, or the server cannot be reached or refuses; some entries may be
    /// moved before.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, any of them may or may not be moved.
    pub async fn claim(
        &self,
        ids: &[EntryId],
        consumer: &ConsumerName,
    ) -> Result<HandedOver, StreamError> {
        let to = Destination::Consumer(consumer);
        self.move_ids(ids, to).await
    }

    /// Releases entries, so that any process claims them at once.
    ///
    /// # Errors
    ///
    /// As [`claim`](Self::claim).
    ///
    /// # Delivery
    ///
    /// An entry whose handler is running is delivered again, and that handler loses its lease. The
    /// delivery that this cuts short is not counted.
    ///
    /// # Cancel safety
    ///
    /// As [`claim`](Self::claim).
    pub async fn release(&self, ids: &[EntryId]) -> Result<HandedOver, StreamError> {
        self.move_ids(ids, Destination::Released).await
    }

    /// Requests that every process of the group claims idle entries now instead of within a third of
    /// the lease. They do so within their promote interval, half a second by default.
    ///
    /// # Errors
    ///
    /// When there is no such group, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the call may be repeated.
    pub async fn reap_now(&self) -> Result<(), StreamError> {
        let failed = |error| self.failed("request claims on", error);
        // A request for a missing group would have no effect, and leave a key behind.
        self.store().group_facts(&self.queue).await.map_err(failed)?;
        self.store().request_claim(&self.queue).await.map_err(failed)
    }

    /// Moves all pending entries of one consumer to another, in the stream and in the lane.
    ///
    /// As [`claim`](Self::claim) does with single entries. Entries that are delivered to the first consumer
    /// meanwhile stay with it: stop it before, or call again.
    ///
    /// # Errors
    ///
    /// As [`claim`](Self::claim).
    ///
    /// # Cancel safety
    ///
    /// As [`claim`](Self::claim). Calling again continues.
    pub async fn hand_over(
        &self,
        from: &ConsumerName,
        to: &ConsumerName,
    ) -> Result<HandedOver, StreamError> {
        self.move_all(from, Destination::Consumer(to)).await
    }

    /// Removes a consumer. Its pending entries are released for any process to claim at once; no entry
    /// is lost, and the deliveries that this cut short are not counted.
    ///
    /// The server checks that nothing is pending and removes the consumer in one step. A consumer that
    /// still reads gets new entries: then the call fails after some rounds with
    /// [`StreamError::Unfinished`], and no entry is lost. For a consumer of this process, use
    /// [`Runtime::remove_consumer`](crate::Runtime::remove_consumer), which stops it first.
    ///
    /// # Errors
    ///
    /// When the consumer still gets entries, or as [`claim`](Self::claim).
    ///
    /// # Cancel safety
    ///
    /// As [`claim`](Self::claim). Calling again continues.
    pub async fn remove_consumer(&self, name: &ConsumerName) -> Result<HandedOver, StreamError> {
        let mut all = HandedOver::default();
        for _ in 0..REMOVAL_ROUNDS {
            let moved = self.move_all(name, Destination::Released).await?;
            all.moved.extend(moved.moved);
            all.trimmed.extend(moved.trimmed);
            all.unstored.extend(moved.unstored);
            let retired = self.store().retire(&self.queue, name).await;
            if retired.map_err(|error| self.failed("remove a consumer of", error))? {
                return Ok(all);
            }
        }
        Err(StreamError::Unfinished {
            stream: self.queue.stream.to_string(),
            group: self.queue.group.to_string(),
            what: format!("a consumer {name} that still gets entries"),
        })
    }

    async fn move_ids(
        &self,
        ids: &[EntryId],
        to: Destination<'_>,
    ) -> Result<HandedOver, StreamError> {
        let mut all = HandedOver::default();
        for ids in ids.chunks(MOVED_MAX) {
            let selected = Selected::Ids(ids);
            let page = match self.store().move_pending(&self.queue, self.inlet, selected, to).await
            {
                Err(error) => self
                    .allow_missing_lane(error)
                    .await
                    .map(|()| MovedPage { missing: ids.to_vec(), ..MovedPage::default() }),
                page => page,
            };
            all.add(page.map_err(|error| self.failed("move entries of", error))?);
        }
        Ok(all)
    }

    async fn move_all(
        &self,
        from: &ConsumerName,
        to: Destination<'_>,
    ) -> Result<HandedOver, StreamError> {
        let mut all = HandedOver::default();
        // A consumer that still reads gets new entries meanwhile: those stay.
        let info = self.info().await?;
        let pages = (info.pending + info.released) / MOVED_MAX as u64 + 1;
        for inlet in [Inlet::STREAM, Inlet::LANE] {
            let mut after = EntryId::ZERO;
            for _ in 0..pages {
                let selected = Selected::Of(from, after);
                let page = match self.store().move_pending(&self.queue, inlet, selected, to).await {
                    // A group without due retries has no lane yet.
                    Err(StoreError::GroupMissing) if inlet == Inlet::LANE => break,
                    page => page.map_err(|error| self.failed("move entries of", error))?,
                };
                let next = page.next;
                all.add(page);
                let Some(next) = next else { break };
                after = next;
            }
        }
        Ok(all)
    }
}

const PENDING_PAGE: usize = 100;
/// The most entries that one step moves.
const MOVED_MAX: usize = 500;
/// A consumer that has been stopped is empty after one round.
const REMOVAL_ROUNDS: usize = 5;
