//! Replay: reading a stream's history, and following it.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{self, Bound};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::Stream as AsyncStream;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, try_unfold};

use super::{PAGE_MAX, Stream, StreamError};
use crate::model::entry::{Entry, EntryId};
use crate::model::event::{self, Event};
use crate::store::StoreError;
use crate::store::inspect::{Span, TailReader};

/// A position in a stream: an entry id, or a time by the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Position {
    /// An entry.
    Id(EntryId),
    /// All entries of a millisecond, in milliseconds since 1970.
    Milliseconds(u64),
}

impl Position {
    fn first(self) -> EntryId {
        match self {
            Self::Id(id) => id,
            Self::Milliseconds(milliseconds) => EntryId::new(milliseconds, 0),
        }
    }

    fn last(self) -> EntryId {
        match self {
            Self::Id(id) => id,
            Self::Milliseconds(milliseconds) => EntryId::new(milliseconds, u64::MAX),
        }
    }
}

impl From<EntryId> for Position {
    fn from(id: EntryId) -> Self {
        Self::Id(id)
    }
}

impl From<u64> for Position {
    fn from(milliseconds: u64) -> Self {
        Self::Milliseconds(milliseconds)
    }
}

impl From<SystemTime> for Position {
    /// A time before 1970 is the beginning.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::Milliseconds(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A part of a stream's history, made from a range of [positions](Position): `..`, `from..`,
/// `from..to`, `..=to` and so on. A range whose end precedes its start is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range(Span);

impl Range {
    pub(super) fn span(self) -> Span {
        self.0
    }

    fn new<P: Into<Position>>(start: Bound<P>, end: Bound<P>) -> Self {
        let from = match start {
            Bound::Unbounded => Some(EntryId::ZERO),
            Bound::Included(position) => Some(position.into().first()),
            Bound::Excluded(position) => position.into().last().next(),
        };
        let to = match end {
            Bound::Unbounded => Some(EntryId::MAX),
            Bound::Included(position) => Some(position.into().last()),
            Bound::Excluded(position) => position.into().first().previous(),
        };
        let nothing = Span { from: EntryId::MAX, to: EntryId::ZERO };
        Self(from.zip(to).map_or(nothing, |(from, to)| Span { from, to }))
    }
}

impl From<ops::RangeFull> for Range {
    fn from(_: ops::RangeFull) -> Self {
        Self::new::<Position>(Bound::Unbounded, Bound::Unbounded)
    }
}

impl<P: Into<Position>> From<(Bound<P>, Bound<P>)> for Range {
    fn from((start, end): (Bound<P>, Bound<P>)) -> Self {
        Self::new(start, end)
    }
}

impl<P: Into<Position>> From<ops::Range<P>> for Range {
    fn from(range: ops::Range<P>) -> Self {
        Self::new(Bound::Included(range.start), Bound::Excluded(range.end))
    }
}

impl<P: Into<Position>> From<ops::RangeInclusive<P>> for Range {
    fn from(range: ops::RangeInclusive<P>) -> Self {
        let (start, end) = range.into_inner();
        Self::new(Bound::Included(start), Bound::Included(end))
    }
}

impl<P: Into<Position>> From<ops::RangeFrom<P>> for Range {
    fn from(range: ops::RangeFrom<P>) -> Self {
        Self::new(Bound::Included(range.start), Bound::Unbounded)
    }
}

impl<P: Into<Position>> From<ops::RangeTo<P>> for Range {
    fn from(range: ops::RangeTo<P>) -> Self {
        Self::new(Bound::Unbounded, Bound::Excluded(range.end))
    }
}

impl<P: Into<Position>> From<ops::RangeToInclusive<P>> for Range {
    fn from(range: ops::RangeToInclusive<P>) -> Self {
        Self::new(Bound::Unbounded, Bound::Included(range.end))
    }
}

/// A part of a stream's history, read page by page as it is consumed. It is also an async stream.
///
/// It ends after an error.
#[must_use = "nothing is read until an entry is requested"]
pub struct Replay {
    stream: Stream,
    entries: BoxStream<'static, Result<Entry, StreamError>>,
}

impl Replay {
    pub(super) fn new(stream: Stream, span: Span) -> Self {
        let of = stream.clone();
        let pages = try_unfold(Some(span), move |span| {
            let stream = of.clone();
            async move {
                let Some(span) = span else { return Ok(None) };
                let entries = stream.store.range(&stream.stream, span, false, REPLAY_PAGE).await;
                let entries = entries.map_err(|error| stream.failed("replay", error))?;
                let last = entries.last().map(Entry::id);
                // A short page is the end, unless something was appended; then it does not matter.
                let next = last.filter(|_| entries.len() == REPLAY_PAGE).and_then(EntryId::next);
                let next = next.filter(|from| *from <= span.to);
                Ok::<_, StreamError>(Some((entries, next.map(|from| Span { from, ..span }))))
            }
        });
        let entries = pages.flat_map(|page| {
            let (entries, error) = match page {
                Ok(entries) => (entries, None),
                Err(error) => (Vec::new(), Some(Err(error))),
            };
            futures_util::stream::iter(entries.into_iter().map(Ok).chain(error))
        });
        Self { stream, entries: entries.boxed() }
    }

    /// The next entry, or `None` at the end.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the next call returns the entry.
    pub async fn next(&mut self) -> Option<Result<Entry, StreamError>> {
        self.entries.next().await
    }
}

impl AsyncStream for Replay {
    type Item = Result<Entry, StreamError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.entries.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("stream", &self.stream.stream).finish_non_exhaustive()
    }
}

/// A part of a stream's history as events. It is also an async stream.
#[derive(Debug)]
#[must_use = "nothing is read until an entry is requested"]
pub struct ReplayEvents<E> {
    replay: Replay,
    event: PhantomData<fn() -> E>,
}

impl<E: Event> ReplayEvents<E> {
    pub(super) fn new(replay: Replay) -> Self {
        Self { replay, event: PhantomData }
    }

    /// The next event with the id of its entry, or `None` at the end.
    ///
    /// # Errors
    ///
    /// When an entry of one of the event's types cannot be decoded, or the server cannot be reached or
    /// refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the next call returns the event.
    pub async fn next(&mut self) -> Option<Result<(EntryId, E), StreamError>> {
        StreamExt::next(self).await
    }

    fn read(&self, entry: &Entry) -> Result<(EntryId, E), StreamError> {
        let entry_id = entry.id();
        let stream = || self.replay.stream.stream.to_string();
        let failed = |source| StreamError::Decode { stream: stream(), entry_id, source };
        event::read(entry).map(|event| (entry_id, event)).map_err(failed)
    }
}

impl<E: Event> AsyncStream for ReplayEvents<E> {
    type Item = Result<(EntryId, E), StreamError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.replay.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(entry))) => {
                    if entry.event_type().is_some_and(|name| E::TYPES.contains(&name)) {
                        return Poll::Ready(Some(self.read(&entry)));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Follows a stream, without a group and without acknowledgements.
pub struct Tail {
    stream: Stream,
    reader: Box<dyn TailReader>,
    after: EntryId,
    ready: std::vec::IntoIter<Entry>,
}

impl Tail {
    pub(super) fn new(stream: Stream, reader: Box<dyn TailReader>, after: EntryId) -> Self {
        Self { stream, reader, after, ready: Vec::new().into_iter() }
    }

    /// Waits for the next entry, without a time limit.
    ///
    /// A broken connection is reopened, and the entries that were appended meanwhile follow, as far as
    /// retention has kept them.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses. The next call tries again.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no entry is lost, and the connection is reopened if necessary.
    pub async fn next(&mut self) -> Result<Entry, StreamError> {
        loop {
            if let Some(entry) = self.ready.next() {
                self.after = entry.id();
                return Ok(entry);
            }
            match self.reader.read(self.after, PAGE_MAX, TAIL_BLOCK).await {
                Ok(entries) => self.ready = entries.into_iter(),
                Err(StoreError::Unreachable(_) | StoreError::AnswerLost(_)) => {
                    let reader = self.stream.store.tail(&self.stream.stream).await;
                    self.reader = reader.map_err(|error| self.stream.failed("follow", error))?;
                }
                Err(error) => return Err(self.stream.failed("follow", error)),
            }
        }
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail")
            .field("stream", &self.stream.stream)
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

/// The entries of one page; with payloads of 1 MB a page has 100 MB.
const REPLAY_PAGE: usize = 100;
const TAIL_BLOCK: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: impl Into<Range>) -> (EntryId, EntryId) {
        let Span { from, to } = range.into().span();
        (from, to)
    }

    #[test]
    fn a_range_holds_what_it_says() {
        let at = Position::Milliseconds;
        let whole = |from: u64, to: u64| (EntryId::new(from, 0), EntryId::new(to, u64::MAX));
        assert_eq!(ids(..), (EntryId::ZERO, EntryId::MAX));
        assert_eq!(ids(at(5)..=at(7)), whole(5, 7));
        assert_eq!(ids(at(5)..at(7)), whole(5, 6));
        let id = EntryId::new(5, 3);
        assert_eq!(ids(Position::Id(id)..=Position::Id(id)), (id, id));
        let after = (Bound::Excluded(Position::Id(id)), Bound::Unbounded);
        assert_eq!(ids(after), (EntryId::new(5, 4), EntryId::MAX));
    }

    #[test]
    fn a_range_whose_end_precedes_its_start_is_empty() {
        let highest = (Bound::Excluded(Position::Id(EntryId::MAX)), Bound::Unbounded);
        let (from, to) = ids(highest);
        assert!(from > to);
        let (from, to) = ids(..Position::Id(EntryId::ZERO));
        assert!(from > to);
        let (from, to) = ids(Position::Milliseconds(7)..Position::Milliseconds(7));
        assert!(from > to);
    }

    #[test]
    fn times_before_1970_are_the_beginning() {
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(Position::from(before), Position::Milliseconds(0));
    }
}
