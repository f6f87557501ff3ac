//! Locks of unique events: which event has the lock of a digest, and until when.

use std::time::Duration;

use async_trait::async_trait;

use super::publish::NewEntry;
use super::types::{Inlet, Queue, Result};
use crate::model::config::Retention;
use crate::model::entry::EntryId;
use crate::model::name::{EventId, StreamName};
pub use crate::model::unique::{UniqueDigest, UniqueLock};

/// An event to append unless another event has the lock of its digest.
#[derive(Clone, Debug)]
pub struct NewUnique {
    /// The digest of what makes it the same as another event.
    pub digest: UniqueDigest,
    /// Its event id.
    pub id: EventId,
    /// For how long it has the lock.
    pub window: Duration,
    /// The fields of its entry. There are at most 1,000.
    pub fields: NewEntry,
}

/// The event that has the lock of a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueHolder {
    /// Its event id.
    pub event_id: EventId,
    /// The entry that was published.
    pub entry_id: EntryId,
    /// For how much longer it has the lock.
    pub rest: Duration,
}

/// What became of a unique event. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UniqueAppend {
    /// It is in the stream.
    Appended(EntryId),
    /// This event has the lock, and may be the event of the call itself; nothing was appended.
    Stands(UniqueHolder),
}

/// An entry to acknowledge, whose lock ends with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueAck {
    /// Where the entry is.
    pub inlet: Inlet,
    /// The entry.
    pub id: EntryId,
    /// Its lock.
    pub lock: UniqueLock,
}

/// The steps of locks. Locks belong to a stream.
#[async_trait]
pub trait UniqueLocks: Send + Sync {
    /// Appends an event, with the retention that is applied at each append, unless another event has the lock of its
    /// digest. The step appends and locks, or does neither: of many concurrent calls, one appends.
    async fn publish_unique(
        &self,
        stream: &StreamName,
        retention: Retention,
        event: NewUnique,
    ) -> Result<UniqueAppend>;

    /// Acknowledges entries of any owner, and in the same step ends the lock of each, if the lock still
    /// belongs to its event. Returns for each whether it was pending.
    async fn acknowledge_unique(&self, queue: &Queue, acks: &[UniqueAck]) -> Vec<Result<bool>>;

    /// Which event has the lock of a digest. Changes nothing.
    async fn unique_holder(
        &self,
        stream: &StreamName,
        digest: &UniqueDigest,
    ) -> Result<Option<UniqueHolder>>;

    /// Ends a lock, if it belongs to this event, or in any case if no event is given. Returns the event that
    /// had it.
    async fn release_unique(
        &self,
        stream: &StreamName,
        digest: &UniqueDigest,
        of: Option<&EventId>,
    ) -> Result<Option<UniqueHolder>>;
}
