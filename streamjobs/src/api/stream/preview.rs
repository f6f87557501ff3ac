//! Lists of entries with the beginnings of their payloads.

use super::{PAGE_MAX, Range, Stream, StreamError};
use crate::model::entry::EntryId;
use crate::model::preview::EntryPreview;
use crate::store::inspect::{PreviewOf, Span};

/// A page of [previews](Stream::previews).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PreviewPage {
    /// The entries.
    pub entries: Vec<EntryPreview>,
    /// The last entry of the page, after which there may be more; `None` at the end.
    pub more_after: Option<EntryId>,
}

impl Stream {
    /// Entries of a part of the history, oldest first, with at most `value_bytes` of each value of
    /// their payloads, for lists: at most `limit` and at most 1,000.
    ///
    /// The rest of a payload does not leave the server. A page has about 1 MiB at most, and the server
    /// reads about 8 MiB for it, and at most eight entries more: of large entries it has fewer, and at
    /// least one.
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
        self.preview_page(range.into().span(), false, limit, value_bytes).await
    }

    /// The newest entries, newest first, otherwise as [`previews`](Self::previews).
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
        let span = Span { from: EntryId::ZERO, to: EntryId::MAX };
        self.preview_page(span, true, limit, value_bytes).await
    }

    async fn preview_page(
        &self,
        span: Span,
        newest_first: bool,
        limit: usize,
        value: usize,
    ) -> Result<PreviewPage, StreamError> {
        let (limit, of) = (limit.min(PAGE_MAX), PreviewOf::Entries { value });
        let page = self.store.previews(&self.stream, span, newest_first, limit, of).await;
        let page = page.map_err(|error| self.failed("read", error))?;
        let last = page.entries.last().map(|entry| entry.id);
        Ok(PreviewPage { more_after: last.filter(|_| page.has_more), entries: page.entries })
    }
}
