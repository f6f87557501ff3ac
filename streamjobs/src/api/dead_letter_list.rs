//! Lists of dead letters without their payloads.

use super::dead_letter::{DeadLetters, PAGE_MAX};
use crate::model::entry::EntryId;
use crate::model::error::DeadLetterError;
use crate::model::preview::DeadLetterSummary;
use crate::store::inspect::{PreviewOf, Span};

/// A page of dead letters without their payloads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SummaryPage {
    /// The dead letters.
    pub letters: Vec<DeadLetterSummary>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<EntryId>,
}

impl DeadLetters {
    /// Dead letters after the given one without their payloads, oldest first: at most `limit` and at
    /// most 1,000.
    ///
    /// A page has about 1 MiB at most, and the server reads about 8 MiB for it, and at most eight dead
    /// letters more: of large ones it has fewer, and at least one. The page that ends early says where
    /// the next begins.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn summaries(
        &self,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<SummaryPage, DeadLetterError> {
        let from = after.map_or(Some(EntryId::ZERO), EntryId::next);
        self.summary_page(from.map(|from| Span { from, to: EntryId::MAX }), false, limit).await
    }

    /// Dead letters before the given one without their payloads, newest first, otherwise as
    /// [`summaries`](Self::summaries).
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn newest_summaries(
        &self,
        before: Option<EntryId>,
        limit: usize,
    ) -> Result<SummaryPage, DeadLetterError> {
        let to = before.map_or(Some(EntryId::MAX), EntryId::previous);
        self.summary_page(to.map(|to| Span { from: EntryId::ZERO, to }), true, limit).await
    }

    async fn summary_page(
        &self,
        span: Option<Span>,
        newest_first: bool,
        limit: usize,
    ) -> Result<SummaryPage, DeadLetterError> {
        let Some(span) = span else { return Ok(SummaryPage { letters: Vec::new(), next: None }) };
        let key = self.queue.stream.dead_stream(&self.queue.group);
        let limit = limit.clamp(1, PAGE_MAX);
        let page = self.store.previews(&key, span, newest_first, limit, PreviewOf::Letters).await;
        let page = page.map_err(|error| self.failed("list", error))?;
        let letters = page.entries.into_iter().map(DeadLetterSummary::of).collect::<Vec<_>>();
        let next = letters.last().map(|letter| letter.id).filter(|_| page.has_more);
        Ok(SummaryPage { letters, next })
    }
}
