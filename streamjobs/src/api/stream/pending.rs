//! A group's pending entries: looking at them, and moving them.

use std::time::Duration;

use super::group::Group;
use super::{PAGE_MAX, StreamError};
use crate::model::entry::{EntryId, Inlet};
use crate::model::name::ConsumerName;
use crate::store::StoreError;
use crate::store::admin::{Destination, MovedPage, Selected};
use crate::store::inspect::{PendingEntry, PendingFilter};

/// Which pending entries to look at; all of them by default.
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

    /// Only those after this entry: where the last page ended.
    pub fn after(mut self, id: EntryId) -> Self {
        self.after = id;
        self
    }

    /// Only those of which nothing has been heard for at least this long.
    pub fn idle_min(mut self, idle: Duration) -> Self {
        self.idle_min = idle;
        self
    }

    /// Only those delivered at least so many times.
    pub fn deliveries_min(mut self, deliveries: u64) -> Self {
        self.deliveries_min = deliveries;
        self
    }

    /// Only those of one consumer.
    pub fn consumer(mut self, consumer: impl Into<String>) -> Self {
        self.consumer = Some(consumer.into());
        self
    }

    /// How many entries are looked at for one page: 100 by default, at most 1,000.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// Some pending entries, in the order of their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PendingPage {
    /// The entries.
    pub entries: Vec<PendingEntry>,
    /// After which to go on; none at the end. A page can be empty and not be the last.
    pub next: Option<EntryId>,
}

/// What became of pending entries that were to change hands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct HandedOver {
    /// Entries that changed hands. Their delivery counts are as they were.
    pub moved: Vec<EntryId>,
    /// Entries whose payload was trimmed away: dead letters tell of them now.
    pub trimmed: Vec<EntryId>,
    /// Entries that are not pending: they were acknowledged, or never delivered.
    pub missing: Vec<EntryId>,
    /// Entries whose payload was trimmed away and that stay as they are, because the key of the
    /// dead letters holds something else.
    pub left: Vec<EntryId>,
}

impl HandedOver {
    fn add(&mut self, page: MovedPage) {
        self.moved.extend(page.moved);
        self.trimmed.extend(page.trimmed);
        self.missing.extend(page.missing);
        self.left.extend(page.unstored);
    }
}

impl Group {
    /// A page of its pending entries.
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
            Err(error) => self.unless_lane_missing(error).await.map(|()| Vec::new()),
            entries => entries,
        };
        let mut entries =
            entries.map_err(|error| self.failed("look at the pending entries of", error))?;
        let next = entries.last().map(|entry| entry.id).filter(|_| entries.len() == limit);
        entries.retain(|entry| entry.delivery_count >= query.deliveries_min);
        Ok(PendingPage { entries, next })
    }

    /// Acknowledges entries by hand, whoever has them: how many were pending. They count as done.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses; some may be acknowledged by then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open which are acknowledged.
    pub async fn acknowledge(&self, ids: &[EntryId]) -> Result<usize, StreamError> {
        let acks = ids.iter().map(|id| (self.inlet, *id)).collect::<Vec<_>>();
        let acknowledged = self.store().acknowledge(&self.queue, &acks).await;
        acknowledged.map_err(|error| self.failed("acknowledge entries of", error))
    }

    /// Gives entries to a consumer, whoever has them.
    ///
    /// Neither the delivery count is raised nor the idle time reset, so an entry that nobody works
    /// on is taken up by the next sweep. A handler that is at work on one is told that its lease is
    /// lost.
    ///
    /// # Errors
    ///
    /// When there is no such group, or the server cannot be reached or refuses; some may be moved
    /// by then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open which are moved.
    pub async fn claim(
        &self,
        ids: &[EntryId],
        consumer: &ConsumerName,
    ) -> Result<HandedOver, StreamError> {
        let to = Destination { consumer: Some(consumer), abandoned: false };
        self.move_ids(ids, to).await
    }

    /// Makes entries look abandoned, so that any process takes them up at once.
    ///
    /// # Errors
    ///
    /// As [`claim`](Self::claim).
    ///
    /// # Delivery
    ///
    /// An entry that a handler is at work on is delivered to another one, unless its next renewal
    /// comes first. The next delivery counts.
    ///
    /// # Cancel safety
    ///
    /// As [`claim`](Self::claim).
    pub async fn release(&self, ids: &[EntryId]) -> Result<HandedOver, StreamError> {
        self.move_ids(ids, Destination { consumer: None, abandoned: true }).await
    }

    /// Asks every process of the group to look for abandoned entries now, instead of within a third
    /// of the lease. They do within their promote interval, half a second by default.
    ///
    /// # Errors
    ///
    /// When there is no such group, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: asking twice is as good as once.
    pub async fn reap_now(&self) -> Result<(), StreamError> {
        let failed = |error| self.failed("call for a sweep of", error);
        // A call for a group that is not there would be heard by nobody, and leave a key behind.
        self.store().group_facts(&self.queue).await.map_err(failed)?;
        self.store().request_claim(&self.queue).await.map_err(failed)
    }

    /// Gives everything that is pending for one consumer to another, in the stream and in the lane.
    ///
    /// Neither are delivery counts raised nor idle times reset. Entries that are delivered to the
    /// first consumer meanwhile stay with it: stop it before, or call again.
    ///
    /// # Errors
    ///
    /// As [`claim`](Self::claim).
    ///
    /// # Cancel safety
    ///
    /// As [`claim`](Self::claim). Calling again goes on.
    pub async fn hand_over(
        &self,
        from: &ConsumerName,
        to: &ConsumerName,
    ) -> Result<HandedOver, StreamError> {
        self.move_all(from, Destination { consumer: Some(to), abandoned: false }).await
    }

    /// Removes a consumer. What is pending for it is for any process to take up at once; no entry
    /// is lost and no delivery count raised.
    ///
    /// The removal and the look whether anything is pending are one step on the server. A consumer
    /// that still reads keeps getting entries: then this gives up after some rounds with
    /// [`StreamError::Unfinished`], and nothing is lost either. For one of this process, use
    /// [`Runtime::remove_consumer`](crate::Runtime::remove_consumer), which stops it first.
    ///
    /// # Errors
    ///
    /// When it keeps getting entries, or as [`claim`](Self::claim).
    ///
    /// # Cancel safety
    ///
    /// As [`claim`](Self::claim). Calling again goes on.
    pub async fn remove_consumer(&self, name: &ConsumerName) -> Result<HandedOver, StreamError> {
        let parking = ConsumerName::new(PARKING)?;
        let to = Destination { consumer: Some(&parking), abandoned: true };
        let mut all = HandedOver::default();
        for _ in 0..REMOVAL_ROUNDS {
            let moved = self.move_all(name, to).await?;
            all.moved.extend(moved.moved);
            all.trimmed.extend(moved.trimmed);
            all.left.extend(moved.left);
            let retired = self.store().retire(&self.queue, name).await;
            if retired.map_err(|error| self.failed("remove a consumer of", error))? {
                return Ok(all);
            }
        }
        Err(StreamError::Unfinished {
            stream: self.queue.stream.to_string(),
            group: self.queue.group.to_string(),
            what: format!("a consumer {name} that keeps getting entries"),
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
                    .unless_lane_missing(error)
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
        // Whoever still reads gets entries as fast as they are taken away: those stay.
        let pages = self.info().await?.pending / MOVED_MAX as u64 + 1;
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
/// Entries that one step moves at most.
const MOVED_MAX: usize = 500;
/// A consumer that has been stopped is empty after one round.
const REMOVAL_ROUNDS: usize = 5;
/// Has what is taken from a consumer that is removed, until somebody claims it. It never beats, and
/// goes when it is empty.
const PARKING: &str = "streamjobs-parking";
