//! Replay: reading a stream's history.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream as AsyncStream;
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt, try_unfold};

use super::error::StreamError;
use super::handle::Stream;
use super::range::Range;
use crate::api::merge::{Merged, Order};
use crate::api::span::AddressSpan;
use crate::model::entry::{Entry, EntryAddress};
use crate::model::event::{self, Event};
use crate::model::name::StreamName;

impl Stream {
    /// Reads a part of the history, oldest first, page by page. No group is changed, and no handler
    /// runs.
    ///
    /// The bounds are entry ids, milliseconds since 1970 by the server's clock, or wall-clock times; a missing bound
    /// is the start or the end of the stream. Entries that are appended meanwhile are included.
    ///
    /// On a stream with partitions, entries come in the order of their ids, and entries with the same id in the order
    /// of the partitions. Where the clocks of servers differ, this is not quite the order of publishing. An entry
    /// that is appended to one partition after the replay has passed its place in another comes out of order.
    ///
    /// ```no_run
    /// # async fn example(orders: streamjobs::stream::Stream) {
    /// use std::time::{Duration, SystemTime};
    ///
    /// let last_minutes = orders.replay(SystemTime::now() - Duration::from_secs(600)..);
    /// let everything = orders.replay(..);
    /// # }
    /// ```
    pub fn replay(&self, range: impl Into<Range>) -> Replay {
        Replay::new(self, range.into().span())
    }

    /// Reads a part of the history as events. Entries of other event types are skipped; an entry that cannot be
    /// decoded gives an error in its place, and the next events follow.
    pub fn replay_events<E: Event>(&self, range: impl Into<Range>) -> ReplayEvents<E> {
        ReplayEvents::new(self.replay(range))
    }
}

/// A part of a stream's history, read page by page as it is consumed. It is also an async stream.
///
/// It keeps at most 100 entries in memory; with several partitions, up to about a thousand, and at least four of
/// each.
///
/// The replay ends after an error.
#[must_use = "nothing is read until an entry is requested"]
pub struct Replay {
    stream: StreamName,
    entries: BoxStream<'static, Result<Entry, StreamError>>,
}

impl Replay {
    fn new(stream: &Stream, span: AddressSpan) -> Self {
        let rows = stream.rows(span, Order::OldestFirst);
        let merged = Merged::for_all(rows, REPLAY_PAGE, REPLAY_ROWS_MAX);
        let entries = try_unfold(merged, async |mut merged| {
            Ok(merged.next().await?.map(|entry| (entry, merged)))
        });
        let entries = entries.map_err(|error| StreamError::of_part(error, "replay"));
        Self { stream: stream.name().clone(), entries: entries.boxed() }
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
        f.debug_struct("Replay").field("stream", &self.stream).finish_non_exhaustive()
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
    fn new(replay: Replay) -> Self {
        Self { replay, event: PhantomData }
    }

    /// The next event with the address of its entry, or `None` at the end.
    ///
    /// # Errors
    ///
    /// When an entry of one of the event's types cannot be decoded, or the server cannot be reached or
    /// refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the next call returns the event.
    pub async fn next(&mut self) -> Option<Result<(EntryAddress, E), StreamError>> {
        StreamExt::next(self).await
    }

    fn read(&self, entry: &Entry) -> Result<(EntryAddress, E), StreamError> {
        let entry_id = entry.address();
        let stream = || self.replay.stream.to_string();
        let failed = |source| StreamError::Decode { stream: stream(), entry_id, source };
        event::read(entry).map(|event| (entry_id, event)).map_err(failed)
    }
}

impl<E: Event> AsyncStream for ReplayEvents<E> {
    type Item = Result<(EntryAddress, E), StreamError>;

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

/// How many entries one page has; with payloads of 1 MB, a page has 100 MB.
const REPLAY_PAGE: usize = 100;
/// How many entries of all partitions together are kept.
const REPLAY_ROWS_MAX: usize = 1_000;
