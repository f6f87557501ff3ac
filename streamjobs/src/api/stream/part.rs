//! A group on one partition: the requests that a group's handle sends.

use std::sync::Arc;

use super::error::StreamError;
use crate::api::parts::Part;
use crate::insight::line_holder::LineHolder;
use crate::insight::view::{ConsumerInfo, GroupInfo};
use crate::model::entry::{EntryId, Inlet};
use crate::model::limit::SetLimit;
use crate::model::name::{EventId, GroupName};
use crate::store::admin::{Permitted, Unfinished};
use crate::store::inspect::OldestUnfinished;
use crate::store::{BeginAt, Prepared, Queue, SetRate, Store, StoreError};

/// A group on one partition.
#[derive(Clone, Debug)]
pub(super) struct GroupPart {
    pub(super) store: Arc<dyn Store>,
    pub(super) queue: Queue,
    /// The number of the partition; `None` if it is a whole stream.
    pub(super) number: Option<u16>,
    pub(super) inlet: Inlet,
}

impl GroupPart {
    pub(super) fn new(store: &Arc<dyn Store>, part: &Part, group: GroupName) -> Self {
        let queue = Queue { stream: part.stream.clone(), group };
        Self { store: Arc::clone(store), queue, number: part.number, inlet: Inlet::STREAM }
    }

    /// Creates the group unless it exists.
    pub(super) async fn create(
        &self,
        at: BeginAt,
        told: Option<u16>,
    ) -> Result<Prepared, StreamError> {
        let prepared = self.store.prepare_at(&self.queue, at, told).await;
        prepared.map_err(|error| self.failed("create a group of", error))
    }

    pub(super) async fn info(&self) -> Result<GroupInfo, StreamError> {
        let info = GroupInfo::load(self.store.as_ref(), &self.queue).await;
        info.map_err(|error| self.failed("read a group of", error))
    }

    pub(super) async fn oldest_unfinished(&self) -> Result<OldestUnfinished, StreamError> {
        let oldest = self.store.oldest_unfinished(&self.queue).await;
        oldest.map_err(|error| self.failed("read a group of", error))
    }

    pub(super) async fn consumers(&self) -> Result<Vec<ConsumerInfo>, StreamError> {
        let consumers = self.store.consumers(&self.queue).await.map(ConsumerInfo::all);
        consumers.map_err(|error| self.failed("read the consumers of", error))
    }

    pub(super) async fn line_holder(&self) -> Result<Option<LineHolder>, StreamError> {
        let found = self.store.line_holder(&self.queue, PLACES_LOOKED_AT).await;
        let found = found.map_err(|error| self.failed("read the limit of a group of", error))?;
        Ok(found.map(LineHolder::of))
    }

    pub(super) async fn check_move_to(
        &self,
        after: Option<EntryId>,
        unfinished: Unfinished,
    ) -> Result<(), StreamError> {
        let checked = self.store.check_move_group(&self.queue, after, unfinished).await;
        self.permitted(checked.map_err(|error| self.failed("move a group of", error))?)
    }

    pub(super) async fn move_to(
        &self,
        after: Option<EntryId>,
        unfinished: Unfinished,
    ) -> Result<(), StreamError> {
        let moved = self.store.move_group(&self.queue, after, unfinished).await;
        self.permitted(moved.map_err(|error| self.failed("move a group of", error))?)
    }

    pub(super) async fn check_destroy(&self, unfinished: Unfinished) -> Result<(), StreamError> {
        let checked = self.store.check_destroy_group(&self.queue, unfinished).await;
        self.permitted(checked.map_err(|error| self.failed("remove a group of", error))?)
    }

    pub(super) async fn destroy(&self, unfinished: Unfinished) -> Result<(), StreamError> {
        let destroyed = self.store.destroy_group(&self.queue, unfinished).await;
        self.permitted(destroyed.map_err(|error| self.failed("remove a group of", error))?)
    }

    pub(super) async fn cancel(&self, event_id: &EventId) -> Result<(), StreamError> {
        let Queue { stream, group } = &self.queue;
        let marked = self.store.cancel(stream, Some(group), event_id).await;
        marked.map(drop).map_err(|error| self.failed("cancel a job of", error))
    }

    pub(super) async fn uncancel(&self, event_id: &EventId) -> Result<bool, StreamError> {
        let Queue { stream, group } = &self.queue;
        let removed = self.store.uncancel(stream, Some(group), event_id).await;
        removed.map_err(|error| self.failed("cancel a job of", error))
    }

    pub(super) async fn set_paused(&self, paused: bool) -> Result<bool, StreamError> {
        // A pause outlives its group, so a pause of a missing group would surprise users of a later
        // group of this name.
        self.info().await?;
        let changed = self.store.set_paused(&self.queue, paused).await;
        changed.map_err(|error| self.failed("pause a group of", error))
    }

    pub(super) async fn set_rate(&self, rate: Option<SetRate>) -> Result<bool, StreamError> {
        // A rate outlives its group, so a rate of a missing group would surprise users of a later
        // group of this name.
        self.info().await?;
        let changed = self.store.set_rate(&self.queue, rate).await;
        changed.map_err(|error| self.failed("set the rate of a group of", error))
    }

    pub(super) async fn set_limit(&self, set: Option<&SetLimit>) -> Result<bool, StreamError> {
        // As a rate, a limit outlives its group.
        self.info().await?;
        let changed = self.store.set_limit(&self.queue, set).await;
        changed.map_err(|error| self.failed("set the limit of a group of", error))
    }

    pub(super) async fn reap_now(&self) -> Result<(), StreamError> {
        let failed = |error| self.failed("request claims on", error);
        // A request for a missing group would have no effect, and leave a key behind.
        self.store.group_facts(&self.queue).await.map_err(failed)?;
        self.store.request_claim(&self.queue).await.map_err(failed)
    }

    /// Accepts a missing lane, in which nothing is pending: a group that another client created has
    /// no lane yet.
    pub(super) async fn allow_missing_lane(&self, error: StoreError) -> Result<(), StoreError> {
        match error {
            StoreError::GroupMissing if self.inlet == Inlet::LANE => {
                self.store.group_facts(&self.queue).await.map(drop)
            }
            error => Err(error),
        }
    }

    pub(super) fn permitted(&self, permitted: Permitted) -> Result<(), StreamError> {
        match permitted {
            Permitted::Done => Ok(()),
            Permitted::Refused(obstacle) => {
                Err(StreamError::refused(self.queue.stream.as_str(), obstacle))
            }
        }
    }

    pub(super) fn failed(&self, action: &'static str, error: StoreError) -> StreamError {
        StreamError::of_group(&self.queue, action, error)
    }
}

/// The server takes about a millisecond to look at this many places.
const PLACES_LOOKED_AT: usize = 2_000;
