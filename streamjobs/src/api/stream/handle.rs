//! A stream: its state, and its entries.

use std::sync::Arc;

use super::error::StreamError;
use crate::api::merge::Order;
use crate::api::parts::{Found, Part, Parts, read_all};
use crate::api::rows::{self, EntryRows};
use crate::api::span::AddressSpan;
use crate::insight::merge;
use crate::model::entry::{Entry, EntryAddress};
use crate::model::name::{NameError, StreamName};
use crate::publish::client::Client;
use crate::store::Store;
use crate::store::inspect::{Span, StreamInfo, StreamSizes};

impl Client {
    /// A handle to a stream: to all of its partitions, if this client was told of
    /// [several](crate::ClientBuilder::partitions). Nothing is sent or created.
    ///
    /// # Errors
    ///
    /// When the name is invalid.
    pub fn stream(&self, name: &str) -> Result<Stream, NameError> {
        let parts = Parts::of(self.layouts(), StreamName::new(name)?);
        Ok(Stream { store: Arc::clone(self.store()), parts })
    }
}

/// A handle to a stream, or to one of its partitions. It is cheap to clone.
#[derive(Clone, Debug)]
pub struct Stream {
    pub(super) store: Arc<dyn Store>,
    pub(super) parts: Parts,
}

impl Stream {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &StreamName {
        self.parts.name()
    }

    /// A handle to each of its partitions, in order. A stream that is not spread has one, the stream itself; a
    /// partition has only itself.
    #[must_use]
    pub fn partitions(&self) -> Vec<Self> {
        let only = |part| Self { parts: self.parts.only(part), ..self.clone() };
        self.parts.iter().map(only).collect()
    }

    /// The number of entries; 0 if there is no such stream.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn length(&self) -> Result<u64, StreamError> {
        let sizes = self.parts.iter().map(|part| self.sizes_of(part)).collect();
        let sizes = read_all(sizes).await?;
        Ok(sizes.into_iter().flatten().map(|sizes| sizes.length).sum())
    }

    /// The length, the number of entries ever added, and the memory. On a stream with partitions
    /// they are sums, and a group is counted once.
    ///
    /// # Errors
    ///
    /// When there is no such stream, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn sizes(&self) -> Result<StreamSizes, StreamError> {
        let sizes = self.parts.iter().map(|part| self.sizes_of(part)).collect();
        let sizes = read_all(sizes).await?;
        let sizes = sizes.into_iter().flatten().reduce(merge::sizes);
        sizes.ok_or_else(|| self.missing())
    }

    pub(super) async fn sizes_of(&self, part: &Part) -> Result<Option<StreamSizes>, StreamError> {
        let sizes = self.store.stream_sizes(&part.stream).await;
        sizes.map_err(|error| StreamError::server(&part.stream, "read", error))
    }

    /// The first and last entry, the length, the number of entries ever added, and the memory. On a
    /// stream with partitions, the first id is the smallest of all and the last id the largest.
    ///
    /// For this, the server copies the payloads of the first and the last entry, though it does not
    /// send them. If you need only the figures, [`sizes`](Self::sizes) is cheaper.
    ///
    /// # Errors
    ///
    /// When there is no such stream, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn info(&self) -> Result<StreamInfo, StreamError> {
        let infos = self.parts.iter().map(|part| self.info_of(part, "read")).collect();
        let infos = read_all(infos).await?;
        infos.into_iter().flatten().reduce(merge::infos).ok_or_else(|| self.missing())
    }

    pub(super) async fn info_of(
        &self,
        part: &Part,
        action: &'static str,
    ) -> Result<Option<StreamInfo>, StreamError> {
        let info = self.store.stream_info(&part.stream).await;
        info.map_err(|error| StreamError::server(&part.stream, action, error))
    }

    /// One entry, by its id, or on a stream with partitions by its [address](Entry::address); `None` if there is no
    /// such entry.
    ///
    /// # Errors
    ///
    /// When several partitions have an entry with this id and the address names none of them, when
    /// there is no such partition, or when the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn entry(
        &self,
        entry: impl Into<EntryAddress>,
    ) -> Result<Option<Entry>, StreamError> {
        let EntryAddress { id, partition } = entry.into();
        let parts = self.parts.with(partition);
        let parts = parts.map_err(|number| self.no_partition(number))?;
        let read = async |part: &Part| {
            let span = Span { from: id, to: id };
            let entries = self.store.range(&part.stream, span, false, 1).await;
            let entries =
                entries.map_err(|error| StreamError::server(&part.stream, "read", error))?;
            Ok(entries.into_iter().next().map(|entry| entry.in_partition(part.number)))
        };
        let entries = read_all::<_, StreamError, _>(parts.iter().map(read).collect()).await?;
        match Found::of(parts, entries) {
            Found::Nowhere => Ok(None),
            Found::In(_, entry) => Ok(Some(entry)),
            Found::Several(partitions) => Err(self.ambiguous(id, partitions)),
        }
    }

    /// The newest entries, newest first: at most `limit`, and never more than 1,000.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn newest(&self, limit: usize) -> Result<Vec<Entry>, StreamError> {
        let limit = limit.min(PAGE_MAX);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let rows = self.rows(AddressSpan::EVERYTHING, Order::NewestFirst);
        let page = rows::page(rows, Order::NewestFirst, limit).await;
        page.map(|(entries, _)| entries).map_err(|error| StreamError::of_part(error, "read"))
    }

    /// The entries of a part of it, by partition.
    pub(super) fn rows(&self, span: AddressSpan, order: Order) -> Vec<EntryRows> {
        let rows =
            |part: &Part| EntryRows::new(&self.store, part, part.stream.clone(), span, order);
        self.parts.iter().map(rows).collect()
    }

    pub(super) fn missing(&self) -> StreamError {
        StreamError::Missing { stream: self.name().to_string() }
    }

    pub(super) fn no_partition(&self, partition: u16) -> StreamError {
        StreamError::NoPartition { stream: self.name().to_string(), partition }
    }

    pub(super) fn ambiguous(&self, id: impl ToString, partitions: Vec<u16>) -> StreamError {
        StreamError::Ambiguous { stream: self.name().to_string(), id: id.to_string(), partitions }
    }
}

/// The most rows of one page.
pub(super) const PAGE_MAX: usize = 1_000;
