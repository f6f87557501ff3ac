//! Pending entries of a group: acknowledging, claiming, releasing and handing over.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::StreamError;
use super::group::Group;
use super::part::GroupPart;
use crate::api::parts::{Found, Part, read_all, together};
use crate::model::entry::{EntryAddress, EntryId, Inlet};
use crate::model::name::ConsumerName;
use crate::store::StoreError;
use crate::store::admin::{Destination, MovedPage, Selected};
use crate::store::inspect::PendingFilter;

/// The result of moving pending entries to another consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct HandedOver {
    /// Entries that were moved.
    pub moved: Vec<EntryAddress>,
    /// Entries whose payload was trimmed; they are stored as dead letters now.
    pub trimmed: Vec<EntryAddress>,
    /// Entries that are not pending: acknowledged, or never delivered.
    pub missing: Vec<EntryAddress>,
    /// Entries whose payload was trimmed, and that stay pending because no dead letter can be
    /// stored: the key of the dead letters holds another type.
    pub unstored: Vec<EntryAddress>,
}

impl HandedOver {
    fn add(&mut self, page: MovedPage, partition: Option<u16>) {
        let at = |ids: Vec<EntryId>| ids.into_iter().map(move |id| EntryAddress { id, partition });
        self.moved.extend(at(page.moved));
        self.trimmed.extend(at(page.trimmed));
        self.missing.extend(at(page.missing));
        self.unstored.extend(at(page.unstored));
    }

    fn all(of: Vec<Self>) -> Self {
        let mut all = Self::default();
        for one in of {
            all.moved.extend(one.moved);
            all.trimmed.extend(one.trimmed);
            all.missing.extend(one.missing);
            all.unstored.extend(one.unstored);
        }
        all
    }
}

impl Group {
    /// Acknowledges entries by hand, whichever consumer owns them, and returns how many were pending. The entries
    /// count as done, so a handler that is running one of them loses its lease.
    ///
    /// Name them by their ids, or on a stream with partitions by their [addresses](super::PendingEntry::address).
    ///
    /// # Errors
    ///
    /// When an id without a partition is pending in several partitions, or there is no such partition: in these cases
    /// nothing is changed. Also when the server cannot be reached or refuses; some entries may then already be
    /// acknowledged.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, any of them may or may not be acknowledged.
    pub async fn acknowledge(
        &self,
        entries: impl IntoIterator<Item = impl Into<EntryAddress>>,
    ) -> Result<usize, StreamError> {
        let entries = entries.into_iter().map(Into::into).collect();
        let (selected, _) = self.select(entries).await?;
        let requests = selected.iter().map(|(part, ids)| part.acknowledge(ids)).collect();
        let acknowledged = together(requests).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(acknowledged.into_iter().sum())
    }

    /// Moves entries to a consumer, whichever consumer owns them.
    ///
    /// A process of this framework runs them within its promote interval, half a second by default, as soon as it has
    /// free slots; until then they are released for that consumer alone. If its heartbeats end, or it does not claim
    /// them within its lease, any other process does. A consumer of other software, which sends no heartbeats, owns
    /// them at once. If a handler in another consumer is running one of the entries, that handler loses its lease.
    /// Entries that the given consumer is already running are not interrupted.
    ///
    /// A delivery that the call cuts short is not counted.
    ///
    /// # Errors
    ///
    /// As [`acknowledge`](Self::acknowledge), and when there is no such group. In these cases some entries may
    /// already be moved.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, any of them may or may not be moved.
    pub async fn claim(
        &self,
        entries: impl IntoIterator<Item = impl Into<EntryAddress>>,
        consumer: &ConsumerName,
    ) -> Result<HandedOver, StreamError> {
        let entries = entries.into_iter().map(Into::into).collect();
        self.move_entries(entries, Destination::Consumer(consumer)).await
    }

    /// Releases entries, so that any process claims them at once.
    ///
    /// # Errors
    ///
    /// As [`claim`](Self::claim).
    ///
    /// # Delivery
    ///
    /// An entry whose handler is running is delivered again, and that handler loses its lease. A
    /// delivery that the call cuts short is not counted.
    ///
    /// # Cancel safety
    ///
    /// As [`claim`](Self::claim).
    pub async fn release(
        &self,
        entries: impl IntoIterator<Item = impl Into<EntryAddress>>,
    ) -> Result<HandedOver, StreamError> {
        let entries = entries.into_iter().map(Into::into).collect();
        self.move_entries(entries, Destination::Released).await
    }

    /// Asks every process of the group to claim idle entries now instead of within a third of the lease. They do so
    /// within their promote interval, half a second by default.
    ///
    /// # Errors
    ///
    /// When there is no such group, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the call can be repeated.
    pub async fn reap_now(&self) -> Result<(), StreamError> {
        self.each(|part| async move { part.reap_now().await }).await.map(drop)
    }

    /// Moves all pending entries of one consumer to another, in the stream and in the lane.
    ///
    /// Each entry is moved as by [`claim`](Self::claim). Entries that are delivered to the first consumer meanwhile
    /// stay with it: stop it first, or call again.
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
        let to = Destination::Consumer(to);
        let moved = self.each(|part| async move { part.move_all(from, to).await });
        Ok(HandedOver::all(moved.await?))
    }

    /// Removes a consumer. Its pending entries are released for any process to claim at once; no entry is lost, and
    /// the deliveries that the call cuts short are not counted.
    ///
    /// The server checks that nothing is pending and removes the consumer in one step. If the consumer still reads
    /// and gets new entries, the call fails after some rounds with [`StreamError::Unfinished`], and no entry is lost.
    /// For a consumer of this process, use [`Runtime::remove_consumer`](crate::Runtime::remove_consumer), which stops
    /// it first.
    ///
    /// # Errors
    ///
    /// When the consumer still gets entries, or as [`claim`](Self::claim).
    ///
    /// # Cancel safety
    ///
    /// As [`claim`](Self::claim). Calling again continues.
    pub async fn remove_consumer(&self, name: &ConsumerName) -> Result<HandedOver, StreamError> {
        let removed = self.each(|part| async move { part.remove_consumer(name).await });
        Ok(HandedOver::all(removed.await?))
    }

    async fn move_entries(
        &self,
        entries: Vec<EntryAddress>,
        to: Destination<'_>,
    ) -> Result<HandedOver, StreamError> {
        let (selected, missing) = self.select(entries).await?;
        let requests = selected.iter().map(|(part, ids)| part.move_ids(ids, to)).collect();
        let moved = together(requests).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut moved = HandedOver::all(moved);
        moved.missing.extend(missing);
        Ok(moved)
    }

    /// The partitions of entries, and the entries that are pending in none. On a stream with partitions, only ids
    /// without a partition's number are looked up.
    async fn select(&self, entries: Vec<EntryAddress>) -> Result<Selection, StreamError> {
        let mut by_part = BTreeMap::<u16, (GroupPart, Vec<EntryId>)>::new();
        let mut missing = Vec::new();
        for EntryAddress { id, partition } in entries {
            let parts = self.stream.parts.with(partition);
            let part = match parts.map_err(|number| self.stream.no_partition(number))? {
                [part] => part.clone(),
                parts => match self.owner(parts, id).await? {
                    Found::In(part, ()) => part,
                    Found::Nowhere => {
                        missing.push(id.into());
                        continue;
                    }
                    Found::Several(partitions) => {
                        return Err(self.stream.ambiguous(id, partitions));
                    }
                },
            };
            let place = part.number.unwrap_or(0);
            let (_, ids) = by_part.entry(place).or_insert_with(|| (self.part(&part), Vec::new()));
            ids.push(id);
        }
        Ok((by_part.into_values().collect(), missing))
    }

    /// The partition in which an entry is pending.
    async fn owner(&self, parts: &[Part], id: EntryId) -> Result<Found<()>, StreamError> {
        let groups = parts.iter().map(|part| self.part(part)).collect::<Vec<_>>();
        let pending = groups.iter().map(|group| group.has_pending(id)).collect();
        let pending = read_all(pending).await?;
        let pending = pending.into_iter().map(|pending| pending.then_some(()));
        Ok(Found::of(parts, pending.collect()))
    }
}

/// Entries by their partitions, and the entries that are pending in none.
type Selection = (Vec<(GroupPart, Vec<EntryId>)>, Vec<EntryAddress>);

impl GroupPart {
    /// If this partition does not have the group, nothing is pending in it.
    async fn has_pending(&self, id: EntryId) -> Result<bool, StreamError> {
        let Some(after) = id.previous() else { return Ok(false) };
        let filter = PendingFilter {
            inlet: self.inlet,
            after,
            idle: Duration::ZERO,
            consumer: None,
            limit: 1,
        };
        match self.store.pending(&self.queue, filter).await {
            Ok(rows) => Ok(rows.first().is_some_and(|row| row.id == id)),
            Err(StoreError::GroupMissing) => Ok(false),
            Err(error) => Err(self.failed("read pending entries of", error)),
        }
    }

    async fn acknowledge(&self, ids: &[EntryId]) -> Result<usize, StreamError> {
        let acks = ids.iter().map(|id| (self.inlet, *id)).collect::<Vec<_>>();
        let acknowledged = self.store.acknowledge_late(&self.queue, None, &acks).await;
        acknowledged.map_err(|error| self.failed("acknowledge entries of", error))
    }

    async fn move_ids(
        &self,
        ids: &[EntryId],
        to: Destination<'_>,
    ) -> Result<HandedOver, StreamError> {
        let mut all = HandedOver::default();
        for ids in ids.chunks(MOVED_MAX) {
            let selected = Selected::Ids(ids);
            let page = match self.store.move_pending(&self.queue, self.inlet, selected, to).await {
                Err(error) => self
                    .allow_missing_lane(error)
                    .await
                    .map(|()| MovedPage { missing: ids.to_vec(), ..MovedPage::default() }),
                page => page,
            };
            all.add(page.map_err(|error| self.failed("move entries of", error))?, self.number);
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
                let page = match self.store.move_pending(&self.queue, inlet, selected, to).await {
                    // A group without due retries has no lane yet.
                    Err(StoreError::GroupMissing) if inlet == Inlet::LANE => break,
                    page => page.map_err(|error| self.failed("move entries of", error))?,
                };
                let next = page.next;
                all.add(page, self.number);
                let Some(next) = next else { break };
                after = next;
            }
        }
        Ok(all)
    }

    async fn remove_consumer(&self, name: &ConsumerName) -> Result<HandedOver, StreamError> {
        let mut rounds = Vec::new();
        for _ in 0..REMOVAL_ROUNDS {
            let moved = self.move_all(name, Destination::Released).await?;
            rounds.push(HandedOver { missing: Vec::new(), ..moved });
            let retired = self.store.retire(&self.queue, name).await;
            if retired.map_err(|error| self.failed("remove a consumer of", error))? {
                return Ok(HandedOver::all(rounds));
            }
        }
        Err(StreamError::Unfinished {
            stream: self.queue.stream.to_string(),
            group: self.queue.group.to_string(),
            what: format!("a consumer {name} that still gets entries"),
        })
    }
}

/// The most entries that one step moves.
const MOVED_MAX: usize = 500;
/// How many rounds a removal takes at most. A consumer that has been stopped is empty after one
/// round.
const REMOVAL_ROUNDS: usize = 5;
