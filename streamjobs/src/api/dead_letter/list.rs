//! Lists of dead letters without their payloads.

use super::letters::{DeadLetters, PAGE_MAX};
use crate::api::merge::Order;
use crate::api::rows::{self, PreviewRows};
use crate::api::span::AddressSpan;
use crate::model::entry::EntryAddress;
use crate::model::error::DeadLetterError;
use crate::model::preview::DeadLetterSummary;
use crate::store::inspect::PreviewOf;

/// A page of dead letters without their payloads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SummaryPage {
    /// The dead letters.
    pub letters: Vec<DeadLetterSummary>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<EntryAddress>,
}

impl DeadLetters {
    /// Dead letters without their payloads, oldest first: those after the given one, at most `limit`, and never more
    /// than 1,000.
    ///
    /// A page has about 1 MiB at most, for which the server reads about 8 MiB and at most eight dead letters more. If
    /// dead letters are large, a page has fewer of them, but at least one. A page that ends early says where the next
    /// page begins.
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
        after: Option<EntryAddress>,
        limit: usize,
    ) -> Result<SummaryPage, DeadLetterError> {
        let everything = AddressSpan::EVERYTHING;
        let span = after.map_or(everything, |after| everything.after(after));
        self.summary_page(span, Order::OldestFirst, limit).await
    }

    /// Dead letters without their payloads, newest first: those before the given one. Otherwise
    /// like [`summaries`](Self::summaries).
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
        before: Option<EntryAddress>,
        limit: usize,
    ) -> Result<SummaryPage, DeadLetterError> {
        let everything = AddressSpan::EVERYTHING;
        let span = before.map_or(everything, |before| everything.before(before));
        self.summary_page(span, Order::NewestFirst, limit).await
    }

    async fn summary_page(
        &self,
        span: AddressSpan,
        order: Order,
        limit: usize,
    ) -> Result<SummaryPage, DeadLetterError> {
        let rows = self.rows(span, order).into_iter();
        let rows = rows.map(|rows| PreviewRows::new(rows, PreviewOf::Letters)).collect();
        let page = rows::page(rows, order, limit.clamp(1, PAGE_MAX)).await;
        let (letters, more) =
            page.map_err(|error| self.failed(&error.stream, "list", error.source))?;
        let letters = letters.into_iter().map(DeadLetterSummary::of).collect::<Vec<_>>();
        let next = letters.last().map(DeadLetterSummary::address).filter(|_| more);
        Ok(SummaryPage { letters, next })
    }
}
