//! Groups: their state, creating, moving, pausing and removing them.

use std::sync::Arc;

use super::{Stream, StreamError};
use crate::api::dead_letter::DeadLetters;
use crate::insight::diagnosis::Diagnosis;
use crate::insight::view::{ConsumerInfo, GroupInfo};
use crate::model::config::Start;
use crate::model::entry::{EntryId, Inlet};
use crate::store::admin::Unfinished;
use crate::store::inspect::OldestUnfinished;
use crate::store::{Prepared, Queue, Store, StoreError};

/// A handle to a group on a stream. It is cheap to clone.
///
/// Its pending entries are in the stream; those of due retries and redriven jobs are in its
/// [`lane`](Self::lane).
#[derive(Clone, Debug)]
pub struct Group {
    pub(super) stream: Stream,
    pub(super) queue: Queue,
    pub(super) inlet: Inlet,
}

impl Group {
    pub(super) fn new(stream: Stream, queue: Queue) -> Self {
        Self { stream, queue, inlet: Inlet::STREAM }
    }

    /// The same group, with the entries of its lane instead of those of the stream, for
    /// [`pending`](Self::pending), [`claim`](Self::claim), [`release`](Self::release) and
    /// [`acknowledge`](Self::acknowledge).
    #[must_use]
    pub fn lane(&self) -> Self {
        Self { inlet: Inlet::LANE, ..self.clone() }
    }

    /// The state of the group at one moment. It sends one request, and one more where the backlog has
    /// to be counted.
    ///
    /// # Errors
    ///
    /// When there is no such group, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn info(&self) -> Result<GroupInfo, StreamError> {
        GroupInfo::load(self.store(), &self.queue)
            .await
            .map_err(|error| self.failed("read a group of", error))
    }

    /// The oldest entry that the group may still run, by its publication: undelivered, pending, waiting
    /// for a retry, or in the lane.
    ///
    /// Guards of events that were published before it are no longer needed, except for dead letters:
    /// redriven ones run, however old they are.
    ///
    /// # Errors
    ///
    /// When there is no such group, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn oldest_unfinished(&self) -> Result<OldestUnfinished, StreamError> {
        let oldest = self.store().oldest_unfinished(&self.queue).await;
        oldest.map_err(|error| self.failed("read a group of", error))
    }

    /// Its consumers, by name.
    ///
    /// # Errors
    ///
    /// When there is no such group, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn consumers(&self) -> Result<Vec<ConsumerInfo>, StreamError> {
        let consumers = self.store().consumers(&self.queue).await;
        consumers
            .map(ConsumerInfo::all)
            .map_err(|error| self.failed("read the consumers of", error))
    }

    /// Diagnoses the group: why its jobs do not run, or not fast enough.
    ///
    /// # Errors
    ///
    /// When there is no such group, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn diagnose(&self) -> Result<Diagnosis, StreamError> {
        Ok(Diagnosis::of(&self.info().await?, &self.consumers().await?))
    }

    /// The dead letters of the group.
    #[must_use]
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters::new(Arc::clone(&self.stream.store), self.queue.clone())
    }

    /// Creates the group unless it exists; true if it was created. A group that was lost before
    /// continues at its durable floor.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the group may or may not be created.
    pub async fn create(&self, start: Start) -> Result<bool, StreamError> {
        let prepared = self.store().prepare(&self.queue, start).await;
        let prepared = prepared.map_err(|error| self.failed("create a group of", error))?;
        Ok(prepared != Prepared::Found)
    }

    /// Moves the group's cursor to another position; [`Start::End`] skips all undelivered entries.
    /// Pending entries stay pending, and entries after the new position are delivered again.
    ///
    /// # Errors
    ///
    /// When entries would never be delivered and `unfinished` does not allow it, when there is no
    /// such group, or when the server cannot be reached or refuses.
    ///
    /// # Delivery
    ///
    /// Moving back delivers entries again that the group has done.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the group may or may not be moved.
    pub async fn move_to(&self, place: Start, unfinished: Unfinished) -> Result<(), StreamError> {
        let moved = self.store().move_group(&self.queue, after(place), unfinished).await;
        self.stream.permitted(moved.map_err(|error| self.failed("move a group of", error))?)
    }

    /// Whether [`move_to`](Self::move_to) would be refused now; nothing is changed.
    ///
    /// # Errors
    ///
    /// As [`move_to`](Self::move_to).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn check_move_to(
        &self,
        place: Start,
        unfinished: Unfinished,
    ) -> Result<(), StreamError> {
        let checked = self.store().check_move_group(&self.queue, after(place), unfinished).await;
        self.stream.permitted(checked.map_err(|error| self.failed("move a group of", error))?)
    }

    /// Removes the group with its retries; its dead letters stay.
    ///
    /// # Errors
    ///
    /// When there is unfinished work and `unfinished` does not allow losing it; when a process serves
    /// the group, or did within the last 15 seconds, because it would recreate the group; when there
    /// is no such group; or when the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the group may or may not be removed.
    pub async fn destroy(&self, unfinished: Unfinished) -> Result<(), StreamError> {
        let destroyed = self.store().destroy_group(&self.queue, unfinished).await;
        let permitted = destroyed.map_err(|error| self.failed("remove a group of", error))?;
        self.stream.permitted(permitted)
    }

    /// Whether [`destroy`](Self::destroy) would be refused now; nothing is changed.
    ///
    /// # Errors
    ///
    /// As [`destroy`](Self::destroy).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn check_destroy(&self, unfinished: Unfinished) -> Result<(), StreamError> {
        let checked = self.store().check_destroy_group(&self.queue, unfinished).await;
        let permitted = checked.map_err(|error| self.failed("remove a group of", error))?;
        self.stream.permitted(permitted)
    }

    /// Pauses the group in every process; true if it was not paused. Running handlers continue, no new
    /// job starts, and due retries wait. The pause takes effect within the processes' promote
    /// interval, half a second by default, or six intervals in an idle group. It lasts until
    /// [`resume`](Self::resume), also for processes that start later.
    ///
    /// # Errors
    ///
    /// When there is no such group, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the group may or may not be paused. The call may be repeated.
    pub async fn pause(&self) -> Result<bool, StreamError> {
        self.set_paused(true).await
    }

    /// Ends a pause of the group in every process; true if it was paused.
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause).
    ///
    /// # Cancel safety
    ///
    /// As [`pause`](Self::pause).
    pub async fn resume(&self) -> Result<bool, StreamError> {
        self.set_paused(false).await
    }

    async fn set_paused(&self, paused: bool) -> Result<bool, StreamError> {
        // A pause outlives its group, so a pause of a missing group would surprise a later one.
        self.info().await?;
        let changed = self.store().set_paused(&self.queue, paused).await;
        changed.map_err(|error| self.failed("pause a group of", error))
    }

    /// Accepts a missing lane, in which nothing is pending: a group that another client created has
    /// none yet.
    pub(super) async fn allow_missing_lane(&self, error: StoreError) -> Result<(), StoreError> {
        match error {
            StoreError::GroupMissing if self.inlet == Inlet::LANE => {
                self.store().group_facts(&self.queue).await.map(drop)
            }
            error => Err(error),
        }
    }

    pub(super) fn store(&self) -> &dyn Store {
        self.stream.store.as_ref()
    }

    pub(super) fn failed(&self, action: &'static str, error: StoreError) -> StreamError {
        match error {
            StoreError::GroupMissing => StreamError::GroupMissing {
                stream: self.queue.stream.to_string(),
                group: self.queue.group.to_string(),
            },
            error => self.stream.failed(action, error),
        }
    }
}

fn after(place: Start) -> Option<EntryId> {
    match place {
        Start::Beginning => Some(EntryId::ZERO),
        Start::End => None,
        Start::After(id) => Some(id),
    }
}
