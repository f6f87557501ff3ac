//! A group on a stream: looking at it, making it, moving it, pausing it.

use std::sync::Arc;

use super::{Stream, StreamError};
use crate::api::dead_letter::DeadLetters;
use crate::insight::diagnosis::Diagnosis;
use crate::insight::view::{ConsumerInfo, GroupInfo};
use crate::model::config::Start;
use crate::model::entry::{EntryId, Inlet};
use crate::store::admin::Unfinished;
use crate::store::inspect::OldestUnfinished;
use crate::store::{Queue, Store, StoreError};

/// A group on a stream. Cheap to clone.
///
/// Its pending entries stand in the stream; those of due retries and redriven jobs stand in its
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

    /// The same group, with the entries of its lane in place of those of the stream: for
    /// [`pending`](Self::pending), [`claim`](Self::claim), [`release`](Self::release) and
    /// [`acknowledge`](Self::acknowledge).
    #[must_use]
    pub fn lane(&self) -> Self {
        Self { inlet: Inlet::LANE, ..self.clone() }
    }

    /// What is known of the group, all in one moment: one request, and one more where the backlog
    /// has to be counted.
    ///
    /// # Errors
    ///
    /// When there is no such group, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn info(&self) -> Result<GroupInfo, StreamError> {
        GroupInfo::look(self.store(), &self.queue)
            .await
            .map_err(|error| self.failed("look at a group of", error))
    }

    /// The oldest entry that the group may still run, by when it was published: one that it has not
    /// got yet, one that is pending, or one whose job is set aside or in the lane.
    ///
    /// What was remembered of events that were published before is of no more use, but for dead
    /// letters: redriven ones run, however old they are.
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
        oldest.map_err(|error| self.failed("look at a group of", error))
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
            .map_err(|error| self.failed("look at the consumers of", error))
    }

    /// What is wrong with the group, in words: why its jobs do not run, or not fast enough.
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

    /// Makes the group unless it is there: true if it was made. A group that had been there before
    /// goes on where it stopped.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether the group is made.
    pub async fn create(&self, start: Start) -> Result<bool, StreamError> {
        let made = self.store().prepare(&self.queue, start).await;
        made.map_err(|error| self.failed("make a group of", error))
    }

    /// Lets the group go on after another entry; [`Start::End`] skips all that it has not got.
    /// Pending entries stay pending, and entries behind the new place are delivered once more.
    ///
    /// # Errors
    ///
    /// When entries would never be delivered and `unfinished` does not allow that, when there is no
    /// such group, or when the server cannot be reached or refuses.
    ///
    /// # Delivery
    ///
    /// Moving back delivers entries again that the group has done.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether the group is moved.
    pub async fn move_to(&self, place: Start, unfinished: Unfinished) -> Result<(), StreamError> {
        let after = match place {
            Start::Beginning => Some(EntryId::ZERO),
            Start::End => None,
            Start::After(id) => Some(id),
        };
        let moved = self.store().move_group(&self.queue, after, unfinished).await;
        self.stream.permitted(moved.map_err(|error| self.failed("move a group of", error))?)
    }

    /// Removes the group with its retries; its dead letters stay.
    ///
    /// # Errors
    ///
    /// When work is not done and `unfinished` does not allow to lose it; when a process works for
    /// the group, or did within the last 15 seconds, because it would make the group again; when
    /// there is no such group; or when the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether the group is removed.
    pub async fn destroy(&self, unfinished: Unfinished) -> Result<(), StreamError> {
        let destroyed = self.store().destroy_group(&self.queue, unfinished).await;
        let permitted = destroyed.map_err(|error| self.failed("remove a group of", error))?;
        self.stream.permitted(permitted)
    }

    /// Pauses the group in every process: true if it was not paused. Running handlers go on,
    /// nothing new starts, and what is due waits. It takes effect within the processes' promote
    /// interval, half a second by default, or six of them where there was no work for a lease; and
    /// it holds until [`resume`](Self::resume), also for processes that start later.
    ///
    /// # Errors
    ///
    /// When there is no such group, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether the group is paused; pausing twice is as good as
    /// once.
    pub async fn pause(&self) -> Result<bool, StreamError> {
        self.set_paused(true).await
    }

    /// Ends a pause of the group in every process: true if it was paused.
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
        // A pause outlives its group, so one of a group that is not there would be a trap.
        self.info().await?;
        let changed = self.store().set_paused(&self.queue, paused).await;
        changed.map_err(|error| self.failed("pause a group of", error))
    }

    /// A group that others made has no lane yet: nothing is pending in it.
    pub(super) async fn unless_lane_missing(&self, error: StoreError) -> Result<(), StoreError> {
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
