//! Entries of partitions, whole or as previews, in chunks.

use std::sync::Arc;

use crate::api::merge::{Chunk, Merged, Order, Rows};
use crate::api::parts::Part;
use crate::api::span::AddressSpan;
use crate::model::entry::{Entry, EntryId};
use crate::model::name::StreamName;
use crate::model::preview::EntryPreview;
use crate::store::inspect::{PreviewOf, Span};
use crate::store::{Store, StoreError};

/// An error of one partition.
#[derive(Debug)]
pub(super) struct PartError {
    /// The stream of the partition.
    pub(super) stream: StreamName,
    pub(super) source: StoreError,
}

/// What is still to be read of a stream, or of its dead letters.
#[derive(Debug)]
struct Rest {
    store: Arc<dyn Store>,
    part: Part,
    /// The key of the entries.
    key: StreamName,
    span: Span,
    order: Order,
}

impl Rest {
    fn is_empty(&self) -> bool {
        self.span.from > self.span.to
    }

    /// Goes on after the last entry that was read.
    fn advance(&mut self, last: Option<EntryId>) {
        let Some(last) = last else { return };
        let nothing = Span { from: EntryId::MAX, to: EntryId::ZERO };
        let rest = match self.order {
            Order::OldestFirst => last.next().map(|from| Span { from, ..self.span }),
            Order::NewestFirst => last.previous().map(|to| Span { to, ..self.span }),
        };
        self.span = rest.unwrap_or(nothing);
    }

    fn failed(&self, source: StoreError) -> PartError {
        PartError { stream: self.part.stream.clone(), source }
    }
}

/// Whole entries of one partition.
#[derive(Debug)]
pub(super) struct EntryRows {
    rest: Rest,
    /// The most entries to ask for: fewer after the answer to a larger request was lost.
    most: usize,
}

impl EntryRows {
    /// A part of one partition; `key` is the key of its stream or of its dead letters.
    pub(super) fn new(
        store: &Arc<dyn Store>,
        part: &Part,
        key: StreamName,
        span: AddressSpan,
        order: Order,
    ) -> Self {
        let (store, span) = (Arc::clone(store), span.of(part.number));
        Self { rest: Rest { store, part: part.clone(), key, span, order }, most: usize::MAX }
    }
}

impl Rows for EntryRows {
    type Row = Entry;
    type Key = EntryId;
    type Error = PartError;

    async fn read(&mut self, limit: usize) -> Result<Chunk<Entry>, PartError> {
        let rest = &mut self.rest;
        if rest.is_empty() {
            return Ok(Chunk { rows: Vec::new(), has_more: false });
        }
        let newest_first = rest.order == Order::NewestFirst;
        let (rows, asked) = loop {
            let asked = limit.min(self.most);
            match rest.store.range(&rest.key, rest.span, newest_first, asked).await {
                Ok(rows) => break (rows, asked),
                // The answer may have been too large for the link, or for a limit of the server. Few tries, because a
                // server that hangs loses answers too, and each takes three seconds.
                Err(StoreError::AnswerLost(_)) if asked > 1 => self.most = (asked / 16).max(1),
                Err(error) => return Err(rest.failed(error)),
            }
        };
        // A short answer is the end. If something was appended since then, it does not matter that
        // it is missing.
        let is_full = rows.len() >= asked;
        rest.advance(rows.last().map(Entry::id));
        let number = rest.part.number;
        let rows = rows.into_iter().map(|entry| entry.in_partition(number)).collect();
        Ok(Chunk { rows, has_more: is_full && !rest.is_empty() })
    }

    fn key(row: &Entry) -> EntryId {
        row.id()
    }

    fn is_absence(_: &PartError) -> bool {
        false
    }
}

/// Previews of one partition.
#[derive(Debug)]
pub(super) struct PreviewRows {
    rest: Rest,
    of: PreviewOf,
}

impl PreviewRows {
    /// As [`EntryRows::new`].
    pub(super) fn new(entries: EntryRows, of: PreviewOf) -> Self {
        Self { rest: entries.rest, of }
    }
}

impl Rows for PreviewRows {
    type Row = EntryPreview;
    type Key = EntryId;
    type Error = PartError;

    async fn read(&mut self, limit: usize) -> Result<Chunk<EntryPreview>, PartError> {
        let rest = &mut self.rest;
        if rest.is_empty() {
            return Ok(Chunk { rows: Vec::new(), has_more: false });
        }
        let newest_first = rest.order == Order::NewestFirst;
        let page = rest.store.previews(&rest.key, rest.span, newest_first, limit, self.of).await;
        let mut page = page.map_err(|error| rest.failed(error))?;
        rest.advance(page.entries.last().map(|entry| entry.id));
        for entry in &mut page.entries {
            entry.partition = rest.part.number;
        }
        Ok(Chunk { has_more: page.has_more && !page.entries.is_empty(), rows: page.entries })
    }

    fn key(row: &EntryPreview) -> EntryId {
        row.id
    }

    fn is_absence(_: &PartError) -> bool {
        false
    }
}

/// A page of entries.
pub(super) async fn page<R: Rows>(
    partitions: Vec<R>,
    order: Order,
    limit: usize,
) -> Result<(Vec<R::Row>, bool), R::Error> {
    Merged::for_page(partitions, order, limit).page(limit).await
}
