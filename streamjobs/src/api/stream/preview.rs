//! Lists of entries with the beginnings of their payloads.

use super::error::StreamError;
use super::handle::{PAGE_MAX, Stream};
use super::range::Range;
use crate::api::merge::Order;
use crate::api::rows::{self, PreviewRows};
use crate::api::span::AddressSpan;
use crate::model::entry::EntryAddress;
use crate::model::preview::EntryPreview;
use crate::store::inspect::PreviewOf;

/// A page of [previews](Stream::previews).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PreviewPage {
    /// The entries.
    pub entries: Vec<EntryPreview>,
    /// The last entry of the page, after which there may be more; `None` at the end.
    pub more_after: Option<EntryAddress>,
}

impl Stream {
    /// Entries of a part of the history, oldest first, with at most `value_bytes` of each value of
    /// their payloads: for lists. Returns at most `limit` entries, and never more than 1,000.
    ///
    /// The rest of a payload does not leave the server. A page has about 1 MiB at most, for which the server reads
    /// about 8 MiB and at most eight entries more. If entries are large, a page has fewer of them, but at least one.
    /// On a stream with partitions, that much is read from each partition, but fewer rows.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn previews(
        &self,
        range: impl Into<Range>,
        limit: usize,
        value_bytes: usize,
    ) -> Result<PreviewPage, StreamError> {
        self.preview_page(range.into().span(), Order::OldestFirst, limit, value_bytes).await
    }

    /// The newest entries, newest first; otherwise like [`previews`](Self::previews).
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn newest_previews(
        &self,
        limit: usize,
        value_bytes: usize,
    ) -> Result<PreviewPage, StreamError> {
        self.preview_page(AddressSpan::EVERYTHING, Order::NewestFirst, limit, value_bytes).await
    }

    pub(super) async fn preview_page(
        &self,
        span: AddressSpan,
        order: Order,
        limit: usize,
        value: usize,
    ) -> Result<PreviewPage, StreamError> {
        let (limit, of) = (limit.min(PAGE_MAX), PreviewOf::Entries { value });
        if limit == 0 {
            return Ok(PreviewPage { entries: Vec::new(), more_after: None });
        }
        let rows = self.rows(span, order).into_iter().map(|rows| PreviewRows::new(rows, of));
        let page = rows::page(rows.collect(), order, limit).await;
        let (entries, more) = page.map_err(|error| StreamError::of_part(error, "read"))?;
        let last = entries.last().map(EntryPreview::address);
        Ok(PreviewPage { more_after: last.filter(|_| more), entries })
    }
}
