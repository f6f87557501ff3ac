//! Streams and groups: their state, the history of a stream, pending entries, retries and trimming.
//!
//! ```no_run
//! # async fn example(client: streamjobs::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let orders = client.stream("orders")?;
//! for group in orders.groups().await? {
//!     println!("{}: backlog {}, pending {}", group.group, group.backlog, group.pending);
//! }
//! let mut replay = orders.replay(..);
//! while let Some(entry) = replay.next().await {
//!     println!("{:?}", entry?.id());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Every call is bounded in time and size, and fails within 8 seconds when the server cannot be
//! reached; a value that could not be read is never shown as zero. Reading does not change the state of
//! a group.

mod error;
mod group;
mod pending;
mod preview;
mod replay;
mod retries;

pub use self::error::StreamError;
pub use self::group::Group;
pub use self::pending::{HandedOver, PendingPage, PendingQuery};
pub use self::preview::PreviewPage;
pub use self::replay::{Position, Range, Replay, ReplayEvents, Tail};
pub use self::retries::{RetryId, RetryIdError, RetryPage, ScheduledRetry};
pub use crate::insight::condition::Condition;
pub use crate::insight::diagnosis::Diagnosis;
pub use crate::insight::problem::Problem;
pub use crate::insight::view::{Backlog, ConsumerInfo, GroupInfo, Liveness};
pub use crate::model::preview::{EntryPreview, FieldPreview};
pub use crate::store::admin::{Cut, Trimmed, Unfinished};
pub use crate::store::inspect::{OldestUnfinished, PendingEntry, StreamInfo, StreamSizes};

use std::sync::Arc;

use crate::model::entry::{Entry, EntryId};
use crate::model::event::Event;
use crate::model::name::{GroupName, NameError, StreamName};
use crate::publish::client::Client;
use crate::store::admin::{Obstacle, Permitted, Trim};
use crate::store::inspect::Span;
use crate::store::{Queue, Store, StoreError};

impl Client {
    /// A handle to a stream. Nothing is sent or created.
    ///
    /// # Errors
    ///
    /// When the name is invalid.
    pub fn stream(&self, name: &str) -> Result<Stream, NameError> {
        let stream = StreamName::new(name)?;
        Ok(Stream { store: Arc::clone(self.store()), stream })
    }
}

/// A handle to a stream. It is cheap to clone.
#[derive(Clone, Debug)]
pub struct Stream {
    store: Arc<dyn Store>,
    stream: StreamName,
}

impl Stream {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &StreamName {
        &self.stream
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
        let sizes = self.store.stream_sizes(&self.stream).await;
        Ok(sizes.map_err(|error| self.failed("read", error))?.map_or(0, |sizes| sizes.length))
    }

    /// The length, the number of entries ever added, and the memory.
    ///
    /// # Errors
    ///
    /// When there is no such stream, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn sizes(&self) -> Result<StreamSizes, StreamError> {
        let sizes = self.store.stream_sizes(&self.stream).await;
        sizes
            .map_err(|error| self.failed("read", error))?
            .ok_or_else(|| StreamError::Missing { stream: self.stream.to_string() })
    }

    /// The first and last entry, the length, the number of entries ever added, and the memory.
    ///
    /// The server copies the payloads of the first and the last entry for it, though they are not
    /// sent: where only the figures are needed, [`sizes`](Self::sizes) is cheaper.
    ///
    /// # Errors
    ///
    /// When there is no such stream, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn info(&self) -> Result<StreamInfo, StreamError> {
        let info = self.store.stream_info(&self.stream).await;
        info.map_err(|error| self.failed("read", error))?
            .ok_or_else(|| StreamError::Missing { stream: self.stream.to_string() })
    }

    /// The state of all groups on the stream, by name, each at one moment. Groups with a name that
    /// this crate does not allow, which other clients can create, are left out.
    ///
    /// It sends one request for each group, and one more where the backlog has to be counted.
    ///
    /// # Errors
    ///
    /// When there is no such stream, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn groups(&self) -> Result<Vec<GroupInfo>, StreamError> {
        let mut groups = Vec::new();
        for group in self.group_names().await? {
            let queue = Queue { stream: self.stream.clone(), group };
            match GroupInfo::load(self.store.as_ref(), &queue).await {
                Ok(info) => groups.push(info),
                // It was destroyed meanwhile.
                Err(StoreError::GroupMissing) => {}
                Err(error) => return Err(self.failed("read the groups of", error)),
            }
        }
        Ok(groups)
    }

    async fn group_names(&self) -> Result<Vec<GroupName>, StreamError> {
        self.sizes().await?;
        let names = self.store.group_names(&self.stream).await;
        let names = names.map_err(|error| self.failed("read the groups of", error))?;
        Ok(names.into_iter().filter_map(|name| GroupName::new(name).ok()).collect())
    }

    /// A handle to a group on the stream. Nothing is sent or created.
    ///
    /// # Errors
    ///
    /// When the name is invalid.
    pub fn group(&self, name: &str) -> Result<Group, NameError> {
        let queue = Queue { stream: self.stream.clone(), group: GroupName::new(name)? };
        Ok(Group::new(self.clone(), queue))
    }

    /// One entry; `None` if no entry has this id.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn entry(&self, id: EntryId) -> Result<Option<Entry>, StreamError> {
        let span = Span { from: id, to: id };
        let entries = self.store.range(&self.stream, span, false, 1).await;
        Ok(entries.map_err(|error| self.failed("read", error))?.into_iter().next())
    }

    /// The newest entries, newest first: at most `limit` and at most 1,000.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn newest(&self, limit: usize) -> Result<Vec<Entry>, StreamError> {
        let span = Span { from: EntryId::ZERO, to: EntryId::MAX };
        let entries = self.store.range(&self.stream, span, true, limit.min(PAGE_MAX)).await;
        entries.map_err(|error| self.failed("read", error))
    }

    /// Reads a part of the history, oldest first, page by page. No group is changed, and no handler
    /// runs.
    ///
    /// The bounds are entry ids, milliseconds since 1970 by the server's clock, or wall-clock times;
    /// without a bound it is the end of the stream. Entries that are appended meanwhile are included.
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
        Replay::new(self.clone(), range.into().span())
    }

    /// Reads a part of the history as events. Entries of other event types are skipped; an entry that
    /// cannot be decoded is an error in its place, and the next ones follow.
    pub fn replay_events<E: Event>(&self, range: impl Into<Range>) -> ReplayEvents<E> {
        ReplayEvents::new(self.replay(range))
    }

    /// Follows the stream from now on, on a connection of its own. No group is changed, and its entries
    /// cannot be acknowledged.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn tail(&self) -> Result<Tail, StreamError> {
        let info = self.store.stream_info(&self.stream).await;
        let info = info.map_err(|error| self.failed("follow", error))?;
        self.tail_after(info.map_or(EntryId::ZERO, |info| info.last_id)).await
    }

    /// Follows the stream after an entry.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn tail_after(&self, after: EntryId) -> Result<Tail, StreamError> {
        let reader = self.store.tail(&self.stream).await;
        let reader = reader.map_err(|error| self.failed("follow", error))?;
        Ok(Tail::new(self.clone(), reader, after))
    }

    /// Trims the stream in whole nodes of about a hundred entries, which is cheap for the server: up to
    /// one node more than requested stays.
    ///
    /// With [`Unfinished::Keep`], entries that some group has not acknowledged stay, and the result
    /// names the group that needs them. One call removes at most 100,000 entries and says whether
    /// there is more.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the entries may or may not be removed.
    pub async fn trim(&self, cut: Cut, unfinished: Unfinished) -> Result<Trimmed, StreamError> {
        self.trim_with(Trim { cut, exact: false, unfinished }).await
    }

    /// Trims the stream exactly, which is much more expensive than [`trim`](Self::trim). To a number of
    /// entries with [`Unfinished::Keep`], one call removes at most 1,000.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the entries may or may not be removed.
    pub async fn trim_exactly(
        &self,
        cut: Cut,
        unfinished: Unfinished,
    ) -> Result<Trimmed, StreamError> {
        self.trim_with(Trim { cut, exact: true, unfinished }).await
    }

    /// What [`trim_exactly`](Self::trim_exactly) would do, repeated until nothing is left to remove;
    /// nothing is changed. [`trim`](Self::trim) removes up to one node less. At most 10,000 entries or
    /// 4 MiB are examined, and `more` says whether there may be more to remove.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn check_trim(
        &self,
        cut: Cut,
        unfinished: Unfinished,
    ) -> Result<Trimmed, StreamError> {
        let trim = Trim { cut, exact: true, unfinished };
        let checked = self.store.check_trim(&self.stream, trim).await;
        checked.map_err(|error| self.failed("read", error))
    }

    async fn trim_with(&self, trim: Trim) -> Result<Trimmed, StreamError> {
        let trimmed = self.store.trim(&self.stream, trim).await;
        trimmed.map_err(|error| self.failed("trim", error))
    }

    /// Deletes the stream with all its groups, their retries and their dead letters; true if it
    /// existed.
    ///
    /// With [`Unfinished::Keep`], unfinished work or a dead letter refuses the deletion; with
    /// [`Unfinished::Lose`] both are deleted. Stop the processes of its groups first.
    ///
    /// # Errors
    ///
    /// When unfinished work or a live process refuses it, or the server cannot be reached or refuses;
    /// some groups may be deleted before.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, any part may or may not be deleted.
    pub async fn delete(&self, unfinished: Unfinished) -> Result<bool, StreamError> {
        let groups = match self.group_names().await {
            Err(StreamError::Missing { .. }) => return Ok(false),
            groups => groups?,
        };
        if unfinished == Unfinished::Keep {
            for group in self.groups().await? {
                if let Some(dead_letters) = group.dead_letters.filter(|letters| *letters > 0) {
                    let obstacle = Obstacle::Unfinished {
                        group: group.group,
                        pending: 0,
                        undelivered: false,
                        retrying: 0,
                        dead_letters,
                    };
                    return Err(StreamError::refused(self.stream.as_str(), obstacle));
                }
            }
        }
        for group in &groups {
            let queue = Queue { stream: self.stream.clone(), group: group.clone() };
            match self.store.destroy_group(&queue, unfinished).await {
                Ok(permitted) => self.permitted(permitted)?,
                Err(StoreError::GroupMissing) => {}
                Err(error) => return Err(self.failed("delete", error)),
            }
        }
        let deleted = self.store.delete_stream(&self.stream, &groups).await;
        deleted.map_err(|error| self.failed("delete", error))
    }

    fn permitted(&self, permitted: Permitted) -> Result<(), StreamError> {
        match permitted {
            Permitted::Done => Ok(()),
            Permitted::Refused(obstacle) => {
                Err(StreamError::refused(self.stream.as_str(), obstacle))
            }
        }
    }

    fn failed(&self, action: &'static str, error: StoreError) -> StreamError {
        let unconfirmed = error.is_unconfirmed();
        let stream = self.stream.to_string();
        StreamError::Server { action, stream, unconfirmed, source: error.into() }
    }
}

const PAGE_MAX: usize = 1_000;
