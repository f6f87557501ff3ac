//! Following a stream.

use std::fmt;
use std::time::Duration;

use tokio::time::sleep;

use super::error::StreamError;
use super::handle::{PAGE_MAX, Stream};
use crate::api::parts::{Part, read_all};
use crate::api::rows::PartError;
use crate::api::span::AddressSpan;
use crate::model::entry::{Entry, EntryAddress, EntryId};
use crate::store::StoreError;
use crate::store::inspect::{Span, TailReader};

impl Stream {
    /// Follows the stream from now on. No group is changed, and its entries cannot be acknowledged.
    ///
    /// As [`tail_after`](Self::tail_after).
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn tail(&self) -> Result<Tail, StreamError> {
        let infos = self.parts.iter().map(|part| self.info_of(part, "follow")).collect();
        let infos = read_all(infos).await?;
        let last = infos.into_iter().map(|info| info.map(|info| info.last_id).unwrap_or_default());
        Tail::open(self, last.collect()).await
    }

    /// Follows the stream after an entry.
    ///
    /// A stream without partitions is followed on a connection of its own, and its entries arrive when they are
    /// appended. With several partitions, each is asked for new entries on the client's connections: every 50 ms
    /// while entries arrive, and down to every half second while none do. The entries of one such round come in the
    /// order of their ids, at most 100 of each partition.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn tail_after(&self, entry: impl Into<EntryAddress>) -> Result<Tail, StreamError> {
        let rest = AddressSpan::EVERYTHING.after(entry.into());
        // Nothing is before the first id, so the entry before it is that id itself.
        let after = |part: &Part| rest.of(part.number).from.previous().unwrap_or_default();
        Tail::open(self, self.parts.iter().map(after).collect()).await
    }
}

/// Follows a stream, without a group and without acknowledgements.
pub struct Tail {
    stream: Stream,
    /// The last entry of each partition that was read.
    after: Vec<EntryId>,
    source: Source,
    ready: std::vec::IntoIter<Entry>,
    size: ReadSize,
}

/// How many entries a read asks for.
#[derive(Debug)]
struct ReadSize {
    most: usize,
    /// Whether the answer to a read of a single entry was lost since the last answer.
    lost_alone: bool,
}

impl ReadSize {
    const FIRST: Self = Self { most: 100, lost_alone: false };

    /// Sizes the next read so that its answer has about 1 MiB, if its entries are as large as these.
    fn answered(&mut self, entries: &[Entry]) {
        self.lost_alone = false;
        let bytes = entries.iter().map(Entry::bytes).sum::<usize>().max(1);
        if !entries.is_empty() {
            self.most = (READ_BYTES.saturating_mul(entries.len()) / bytes).clamp(1, PAGE_MAX);
        }
    }

    /// An answer was lost. It may have been too large for the link, or for a limit of the server, so the next read asks
    /// for half as many. Returns false if two answers with a single entry were lost.
    fn lost(&mut self) -> bool {
        let goes_on = self.most > 1 || !self.lost_alone;
        self.lost_alone = self.most == 1;
        self.most = (self.most / 2).max(1);
        goes_on
    }
}

/// Where entries come from.
enum Source {
    /// A connection on which reads wait.
    Reader(Box<dyn TailReader>),
    /// The connections of the client, asked after a pause.
    Rounds { pause: Duration, has_failed: bool },
}

impl Tail {
    async fn open(stream: &Stream, after: Vec<EntryId>) -> Result<Self, StreamError> {
        let mut parts = stream.parts.iter();
        let source = match (parts.next(), parts.next()) {
            (Some(part), None) => Source::Reader(stream.tail_reader(part).await?),
            _ => Source::Rounds { pause: Duration::ZERO, has_failed: false },
        };
        Ok(Self {
            stream: stream.clone(),
            after,
            source,
            ready: Vec::new().into_iter(),
            size: ReadSize::FIRST,
        })
    }

    /// Waits for the next entry, without a time limit.
    ///
    /// A broken connection is reopened; entries that were appended meanwhile then follow, as far as retention has
    /// kept them.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses, or when twice no answer came to a read of a single entry. The next
    /// call tries again.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no entry is lost, and the connection is reopened if necessary.
    pub async fn next(&mut self) -> Result<Entry, StreamError> {
        loop {
            if let Some(entry) = self.ready.next() {
                self.passed(&entry);
                return Ok(entry);
            }
            match &mut self.source {
                Source::Reader(reader) => {
                    let after = self.after.first().copied().unwrap_or_default();
                    let Some(part) = self.stream.parts.iter().next() else { continue };
                    match reader.read(after, self.size.most, TAIL_BLOCK).await {
                        Ok(entries) => {
                            self.size.answered(&entries);
                            let entries = entries.into_iter();
                            let entries = entries.map(|entry| entry.in_partition(part.number));
                            self.ready = entries.collect::<Vec<_>>().into_iter();
                        }
                        Err(StoreError::Unreachable(_) | StoreError::AnswerLost(_))
                            if self.size.lost() =>
                        {
                            *reader = self.stream.tail_reader(part).await?;
                        }
                        Err(error) => {
                            *reader = self.stream.tail_reader(part).await?;
                            return Err(StreamError::server(&part.stream, "follow", error));
                        }
                    }
                }
                Source::Rounds { pause, has_failed } => {
                    sleep(*pause).await;
                    *pause = (*pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
                    let round = self.stream.round(&self.after, self.size.most.min(ROUND_MAX)).await;
                    let was_failed = std::mem::replace(has_failed, round.is_err());
                    match round {
                        Ok((entries, more)) => {
                            self.size.answered(&entries);
                            if !entries.is_empty() {
                                *pause = if more { Duration::ZERO } else { PAUSE_MIN };
                            }
                            self.ready = entries.into_iter();
                        }
                        Err(PartError { source: StoreError::AnswerLost(_), .. })
                            if self.size.lost() => {}
                        // The client opens its connection again.
                        Err(PartError { source: StoreError::Unreachable(_), .. })
                            if !was_failed => {}
                        Err(error) => return Err(StreamError::of_part(error, "follow")),
                    }
                }
            }
        }
    }

    /// The next read goes on after an entry that was returned.
    fn passed(&mut self, entry: &Entry) {
        let EntryAddress { id, partition } = entry.address();
        let place = self.stream.parts.iter().position(|part| part.number == partition);
        if let Some(after) = place.and_then(|place| self.after.get_mut(place)) {
            *after = id;
        }
    }
}

impl Stream {
    async fn tail_reader(&self, part: &Part) -> Result<Box<dyn TailReader>, StreamError> {
        let reader = self.store.tail(&part.stream).await;
        reader.map_err(|error| StreamError::server(&part.stream, "follow", error))
    }

    /// The entries that all partitions have after these, at most `most` of each, in one order, and whether any
    /// partition has more.
    async fn round(&self, after: &[EntryId], most: usize) -> Result<(Vec<Entry>, bool), PartError> {
        let read = async |(part, after): (&Part, &EntryId)| {
            let Some(from) = after.next() else { return Ok(Vec::new()) };
            let span = Span { from, to: EntryId::MAX };
            let entries = self.store.range(&part.stream, span, false, most).await;
            let failed = |source| PartError { stream: part.stream.clone(), source };
            let entries = entries.map_err(failed)?.into_iter();
            Ok(entries.map(|entry| entry.in_partition(part.number)).collect::<Vec<_>>())
        };
        let rounds = read_all(self.parts.iter().zip(after).map(read).collect()).await?;
        let more = rounds.iter().any(|entries| entries.len() >= most);
        let mut entries = rounds.into_iter().flatten().collect::<Vec<_>>();
        entries.sort_by_key(Entry::address);
        Ok((entries, more))
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail")
            .field("stream", self.stream.name())
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

/// About how many bytes a read asks for.
const READ_BYTES: usize = 1024 * 1024;
const TAIL_BLOCK: Duration = Duration::from_secs(2);
/// The most entries of one partition that a round reads.
const ROUND_MAX: usize = 100;
/// The pause between two rounds while entries arrive, so that one round brings many of them.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The pause between two rounds while no entries arrive. At this pause, 48 partitions cost about a
/// hundred requests a second.
const PAUSE_MAX: Duration = Duration::from_millis(500);
