//! Dead letters: reading, redriving and purging them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::api::merge::Order;
use crate::api::parts::{Found, Part, Parts, read_all, together};
use crate::api::rows::{self, EntryRows};
use crate::api::span::AddressSpan;
use crate::model::entry::{EntryAddress, EntryId, Fields};
use crate::model::error::DeadLetterError;
use crate::model::name::{GroupName, StreamName};
use crate::model::record::DeadLetter;
use crate::publish::client::Client;
use crate::store::inspect::PendingFilter;
use crate::store::{Inlet, Queue, Store, StoreError};

impl Client {
    /// The dead letters of one group on one stream: of all of its partitions, if this client was told of
    /// [several](crate::ClientBuilder::partitions).
    ///
    /// # Errors
    ///
    /// When one of the names is invalid.
    pub fn dead_letters(&self, stream: &str, group: &str) -> Result<DeadLetters, DeadLetterError> {
        let parts = Parts::of(self.layouts(), StreamName::new(stream)?);
        Ok(DeadLetters::new(self.store(), parts, GroupName::new(group)?))
    }
}

/// The dead letters of one group on one stream.
///
/// Dead letters of all partitions come in the order of their ids; those with the same id, in the order of the
/// partitions. Their ids are unique within one partition only: a call that acts on one dead letter takes its
/// [address](DeadLetter::address), or an id that only one partition has.
///
/// ```no_run
/// # async fn example(client: streamjobs::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let letters = client.dead_letters("orders", "notifications")?;
/// let page = letters.list(None, 50).await?;
/// for letter in &page.letters {
///     println!("{} {} {:?}", letter.id, letter.reason.as_str(), letter.error);
///     letters.redrive(letter.address()).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DeadLetters {
    pub(super) store: Arc<dyn Store>,
    pub(super) parts: Parts,
    pub(super) group: GroupName,
}

/// A page of dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The dead letters.
    pub letters: Vec<DeadLetter>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<EntryAddress>,
}

impl DeadLetters {
    pub(in crate::api) fn new(store: &Arc<dyn Store>, parts: Parts, group: GroupName) -> Self {
        Self { store: Arc::clone(store), parts, group }
    }

    /// Dead letters with their payloads, oldest first: those after the given one, at most `limit`,
    /// and never more than 1,000. For lists, use [`summaries`](Self::summaries), which moves no
    /// payloads.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn list(
        &self,
        after: Option<EntryAddress>,
        limit: usize,
    ) -> Result<Page, DeadLetterError> {
        let everything = AddressSpan::EVERYTHING;
        let span = after.map_or(everything, |after| everything.after(after));
        self.page(span, Order::OldestFirst, limit).await
    }

    /// Dead letters with their payloads, newest first: those before the given one, at most `limit`,
    /// and never more than 1,000. For lists, use [`newest_summaries`](Self::newest_summaries),
    /// which moves no payloads.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn newest(
        &self,
        before: Option<EntryAddress>,
        limit: usize,
    ) -> Result<Page, DeadLetterError> {
        let everything = AddressSpan::EVERYTHING;
        let span = before.map_or(everything, |before| everything.before(before));
        self.page(span, Order::NewestFirst, limit).await
    }

    /// One dead letter.
    ///
    /// # Errors
    ///
    /// When there is no such dead letter or partition, when several partitions have a dead letter with this id and
    /// the address names none of them, or when the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn get(
        &self,
        letter: impl Into<EntryAddress>,
    ) -> Result<DeadLetter, DeadLetterError> {
        self.find(letter.into()).await.map(|(_, letter)| letter)
    }

    /// A dead letter, and its queue.
    async fn find(&self, letter: EntryAddress) -> Result<(Queue, DeadLetter), DeadLetterError> {
        let parts = self.with(letter.partition)?;
        let read = async |part: &Part| {
            let stored = self.store.dead_letter(&self.queue(part), letter.id).await;
            stored.map_err(|error| self.failed(&part.stream, "read", error))
        };
        let stored = read_all(parts.iter().map(read).collect()).await?;
        match Found::of(parts, stored) {
            Found::Nowhere => Err(self.unknown(letter)),
            Found::In(part, stored) => {
                let letter = DeadLetter::of(&stored.in_partition(part.number));
                Ok((self.queue(&part), letter))
            }
            Found::Several(partitions) => Err(self.ambiguous(letter.id, partitions)),
        }
    }

    /// Redrives a dead letter's job for this group alone: it keeps its event id and the id of the published entry,
    /// and its failures are reset. Returns the id of the job's new entry. The job runs within the processes' promote
    /// interval, half a second by default, or six intervals in an idle group.
    ///
    /// # Errors
    ///
    /// When there is no such dead letter, when it cannot be redriven, when its group does not exist, or when the server
    /// cannot be reached or refuses. After a lost answer, the dead letter is either still there or redriven.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the job may or may not be redriven; it is never redriven twice.
    pub async fn redrive(
        &self,
        letter: impl Into<EntryAddress>,
    ) -> Result<EntryId, DeadLetterError> {
        let (queue, letter, job) = self.runnable(letter.into()).await?;
        let redriven = self.store.redrive(&queue, letter.id, &job).await;
        let redriven = redriven.map_err(|error| self.failed(&queue.stream, "redrive", error))?;
        redriven.ok_or_else(|| self.unknown(letter.address()))
    }

    /// Whether [`redrive`](Self::redrive) would be refused now; nothing is changed.
    ///
    /// # Errors
    ///
    /// As [`redrive`](Self::redrive).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn check_redrive(
        &self,
        letter: impl Into<EntryAddress>,
    ) -> Result<(), DeadLetterError> {
        let (queue, ..) = self.runnable(letter.into()).await?;
        // A redrive is refused if the group does not exist, and so is this.
        let (inlet, after, idle) = (Inlet::STREAM, EntryId::ZERO, Duration::ZERO);
        let any = PendingFilter { inlet, after, idle, consumer: None, limit: 1 };
        let pending = self.store.pending(&queue, any).await.map(drop);
        pending.map_err(|error| self.failed(&queue.stream, "redrive", error))
    }

    /// Redrives many dead letters one after another, with one result for each in order.
    ///
    /// # Cancel safety
    ///
    /// As [`redrive`](Self::redrive), for the dead letter at which the future was dropped.
    pub async fn redrive_all(
        &self,
        letters: impl IntoIterator<Item = impl Into<EntryAddress>>,
    ) -> Vec<(EntryAddress, Result<EntryId, DeadLetterError>)> {
        let letters = letters.into_iter().map(Into::into).collect::<Vec<EntryAddress>>();
        let mut answers = Vec::with_capacity(letters.len());
        for letter in letters {
            answers.push((letter, self.redrive(letter).await));
        }
        answers
    }

    /// Deletes dead letters, and returns how many of them existed.
    ///
    /// # Errors
    ///
    /// When several partitions have a dead letter with this id and the id names no partition, or there is no such
    /// partition: in these cases nothing is deleted. Also when the server cannot be reached or refuses; some dead
    /// letters may then already be deleted.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, any of them may or may not be deleted.
    pub async fn purge(
        &self,
        letters: impl IntoIterator<Item = impl Into<EntryAddress>>,
    ) -> Result<usize, DeadLetterError> {
        let letters = letters.into_iter().map(Into::into).collect();
        let by_queue = self.by_queue(letters).await?;
        let purge = async |(queue, ids): &(Queue, Vec<EntryId>)| {
            let mut purged = 0;
            for ids in ids.chunks(PAGE_MAX) {
                let answer = self.store.purge(queue, ids).await;
                purged += answer.map_err(|error| self.failed(&queue.stream, "purge", error))?;
            }
            Ok(purged)
        };
        let purged = together(by_queue.iter().map(purge).collect()).await;
        let purged = purged.into_iter().collect::<Result<Vec<usize>, DeadLetterError>>()?;
        Ok(purged.into_iter().sum())
    }

    /// Dead letters by the queues that have them. Dead letters that no queue has are left out.
    pub(super) async fn by_queue(
        &self,
        letters: Vec<EntryAddress>,
    ) -> Result<Vec<(Queue, Vec<EntryId>)>, DeadLetterError> {
        let mut queues = BTreeMap::<StreamName, (Queue, Vec<EntryId>)>::new();
        for letter in letters {
            let queue = match self.with(letter.partition)? {
                [part] => self.queue(part),
                _ => match self.find(letter).await {
                    Err(DeadLetterError::Unknown { .. }) => continue,
                    found => found?.0,
                },
            };
            let stream = queue.stream.clone();
            let (_, ids) = queues.entry(stream).or_insert_with(|| (queue, Vec::new()));
            ids.push(letter.id);
        }
        Ok(queues.into_values().collect())
    }

    async fn page(
        &self,
        span: AddressSpan,
        order: Order,
        limit: usize,
    ) -> Result<Page, DeadLetterError> {
        let page = rows::page(self.rows(span, order), order, limit.clamp(1, PAGE_MAX)).await;
        let (stored, more) =
            page.map_err(|error| self.failed(&error.stream, "list", error.source))?;
        let letters = stored.iter().map(DeadLetter::of).collect::<Vec<_>>();
        let next = letters.last().map(DeadLetter::address).filter(|_| more);
        Ok(Page { letters, next })
    }

    /// The stored dead letters, by partition.
    pub(super) fn rows(&self, span: AddressSpan, order: Order) -> Vec<EntryRows> {
        let rows = |part: &Part| {
            EntryRows::new(&self.store, part, part.stream.dead_stream(&self.group), span, order)
        };
        self.parts.iter().map(rows).collect()
    }

    pub(super) fn queue(&self, part: &Part) -> Queue {
        Queue { stream: part.stream.clone(), group: self.group.clone() }
    }

    /// The stream of the first partition.
    pub(super) fn first(&self) -> &StreamName {
        self.parts.iter().next().map_or(self.parts.name(), |part| &part.stream)
    }

    pub(super) fn names(&self) -> (String, String) {
        (self.parts.name().to_string(), self.group.to_string())
    }

    /// The partitions in which a dead letter can be.
    fn with(&self, partition: Option<u16>) -> Result<&[Part], DeadLetterError> {
        self.parts.with(partition).map_err(|partition| DeadLetterError::NoPartition {
            stream: self.parts.name().to_string(),
            partition,
        })
    }

    /// A dead letter that can be redriven, with its queue and its job.
    async fn runnable(
        &self,
        letter: EntryAddress,
    ) -> Result<(Queue, DeadLetter, Fields), DeadLetterError> {
        let (queue, letter) = self.find(letter).await?;
        match letter.redriven() {
            Some(job) => Ok((queue, letter, job)),
            None => {
                let (stream, group) = self.names();
                Err(DeadLetterError::NotRunnable { stream, group, id: letter.address() })
            }
        }
    }

    fn unknown(&self, id: EntryAddress) -> DeadLetterError {
        let (stream, group) = self.names();
        DeadLetterError::Unknown { stream, group, id }
    }

    fn ambiguous(&self, id: EntryId, partitions: Vec<u16>) -> DeadLetterError {
        let (stream, group) = self.names();
        DeadLetterError::Ambiguous { stream, group, id, partitions }
    }

    /// The error of one partition, by its stream.
    pub(super) fn failed(
        &self,
        stream: &StreamName,
        action: &'static str,
        error: StoreError,
    ) -> DeadLetterError {
        let (stream, group) = (stream.to_string(), self.group.to_string());
        DeadLetterError::Server { action, stream, group, source: error.into() }
    }
}

pub(super) const PAGE_MAX: usize = 1_000;
