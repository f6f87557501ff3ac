//! What keeps a group running: its Redis groups, due retries, heartbeats, stopped consumers.

use std::time::Duration;

use async_trait::async_trait;

use super::rates::SetRate;
use super::types::{Queue, Result, ServerTime};
use crate::model::config::Start;
use crate::model::entry::EntryId;
use crate::model::name::ConsumerName;
pub use crate::model::policy::TypeSight;

/// What [`promote`](GroupUpkeep::promote) did and found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promoted {
    /// Due jobs that were moved to the lane.
    pub promoted: usize,
    /// Entries of the lane that are not delivered yet; zero while the first of them is left to a live
    /// consumer that declares its type.
    pub waiting: usize,
    /// Pending entries of all consumers, in all inlets.
    pub pending: usize,
    /// How long until the next job is due.
    pub next_due: Option<Duration>,
    /// How many times entries of this queue were released. If it changes, there is work to claim.
    pub released: u64,
    /// Due jobs that stay in the retry set although their record is missing, because no dead letter can
    /// be stored.
    pub left: usize,
    /// Jobs that wait for a retry, had lost their place in the retry set, and have got it back.
    pub restored: usize,
    /// At least how many jobs cannot get their lost place back, because the user lacks the right to look
    /// for them.
    pub stranded: usize,
    /// At least how many jobs have lost their place and not got it back yet. A promotion that may move no
    /// jobs restores none.
    pub misplaced: usize,
    /// Whether the group is paused in every process. Then nothing is promoted, and nothing is due.
    pub paused: bool,
    /// Whether events are [scheduled](super::Schedule) to the stream, as far as the user's rights let it
    /// see.
    pub scheduled: bool,
    /// The number of the last mark that [cancels](super::Cancels) jobs of the stream; zero without one.
    pub cancels: u64,
    /// Whether the stream has schedules.
    pub has_schedules: bool,
    /// How many jobs wait for a place in the group's [limit](super::Holds).
    pub parked: u64,
    /// The [rate](super::Rates) that an operator has set for the group.
    pub rate: Option<SetRate>,
    /// For how much longer no job of the group starts, because a job has met a limit of the service that
    /// it calls.
    pub limited: Option<Duration>,
    /// The server's clock.
    pub now: ServerTime,
}

/// What [`prepare`](GroupUpkeep::prepare) found. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// The stream has the group.
    Found,
    /// The group was created for the first time.
    Created,
    /// The group had existed and was lost, as when the stream was deleted. It was recreated at its floor,
    /// or at the beginning if a new stream ends before the floor.
    Recreated,
}

/// What a heartbeat recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The group's floor: every entry up to this id is done.
    pub floor: EntryId,
    /// Entries that were trimmed before their delivery. Each is reported once, to one consumer.
    pub trimmed_unread: u64,
    /// How often operators have moved or acknowledged entries of the group.
    pub moves: u64,
}

/// The steps of a group's slow loops.
#[async_trait]
pub trait GroupUpkeep: Send + Sync {
    /// Creates the group in every inlet unless it exists: at `start` the first time, later at its
    /// floor. What became of the group of the stream.
    async fn prepare(&self, queue: &Queue, start: Start) -> Result<Prepared>;

    /// Recreates a lost group at its floor, or at the beginning if the floor is lost as well. Returns
    /// true if it created the group of any inlet.
    async fn recreate(&self, queue: &Queue) -> Result<bool>;

    /// Moves due jobs to the lane, at most `limit`, and reports what waits. Recreates the lane's group
    /// if it was lost. While the group is paused, nothing is moved. If the heartbeat of `consumer` does
    /// not declare the type of a job, the job is left for five seconds to a live consumer that declares
    /// it.
    async fn promote(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        limit: usize,
    ) -> Result<Promoted>;

    /// Records that the consumer is alive, its description `about` with the event types that it
    /// declares, and the group's floor. Counts entries that were trimmed before their delivery.
    async fn heartbeat(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        about: &str,
    ) -> Result<Recorded>;

    /// Removes a consumer unless it has pending entries. Returns false only if it has some.
    async fn retire(&self, queue: &Queue, consumer: &ConsumerName) -> Result<bool>;

    /// Removes consumers that sent no heartbeat for `silence` and have no pending entries. Returns how
    /// many. Gives a heartbeat to a consumer that never sent one. Forgets event types that were neither
    /// declared nor met for three days.
    async fn retire_dead(&self, queue: &Queue, silence: Duration) -> Result<usize>;

    /// Records that a process met an event type without a handler for it, in a job that was delivered
    /// `first` at this time. Returns whether a live process declares the type, or else for how long none
    /// has. If none ever has, that time counts from when the type was first met. A live process that does
    /// not list its types counts as one that declares them all; the step looks for such a process once
    /// that time reaches `after`.
    async fn sight_type(
        &self,
        queue: &Queue,
        event_type: &str,
        first: ServerTime,
        after: Duration,
    ) -> Result<TypeSight>;
}
