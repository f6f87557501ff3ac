//! Events that wait for their time beside their stream, and their way into it.

use std::time::Duration;

use async_trait::async_trait;

use super::publish::NewEntry;
use super::types::{Result, ServerTime};
use crate::model::config::Retention;
pub use crate::model::debounce::DebounceTimes;
use crate::model::entry::EntryId;
use crate::model::name::{EventId, StreamName};

/// When an event is due, by the server's clock. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// At this time, in milliseconds since 1970.
    At(u64),
    /// This long after the server takes the request.
    In(Duration),
}

/// An event to be scheduled.
#[derive(Clone, Debug)]
pub struct NewScheduled {
    /// Its event id, under which it waits.
    pub id: EventId,
    /// When it is due.
    pub due: Due,
    /// The fields of its entry. There are at most 1,000.
    pub fields: NewEntry,
}

/// What became of an event. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduling {
    /// An event of this id waits.
    Waits {
        /// When it is due, by the server's clock in milliseconds.
        due: u64,
        /// Whether it waited before; then nothing was changed.
        repeated: bool,
        /// How long until it is due, if that is within half a second and the stream has been scheduled to
        /// for so short a time that processes may not look for it before.
        unwatched: Option<Duration>,
    },
    /// It was due, and is in the stream.
    Entered(EntryId),
}

/// An event to wait in the place of one of the same name.
#[derive(Clone, Debug)]
pub struct NewDebounced {
    /// The name under which it waits.
    pub name: EventId,
    /// Its event id.
    pub id: EventId,
    /// When it is due.
    pub times: DebounceTimes,
    /// The fields of its entry, with its event id. There are at most 1,000.
    pub fields: NewEntry,
}

/// An event that waits in the place of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debounced {
    /// When it is due, by the server's clock in milliseconds.
    pub due: u64,
    /// The event that was replaced.
    pub replaced: Option<EventId>,
    /// Whether it waited before; then nothing was changed.
    pub repeated: bool,
}

/// What waits in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upcoming {
    /// The server's clock.
    pub now: ServerTime,
    /// Events that wait.
    pub waiting: u64,
    /// How long until the next one is due; zero if it is.
    pub next_due: Option<Duration>,
    /// Records of events whose place in the set of waiting ones is lost.
    pub misplaced: u64,
    /// Whether events are scheduled there: some were, and what says so is still there, or some wait.
    pub used: bool,
}

/// What [`enter`](Schedule::enter) did and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entered {
    /// For each event that was entered, how long after it was due.
    pub lateness: Vec<Duration>,
    /// Members that were removed because their records are missing, and records without a member that
    /// cannot be read.
    pub lost: usize,
    /// Events that had lost their place, which they have again.
    pub restored: usize,
    /// Such events, at least, that cannot get it back, because the user lacks the right to look for
    /// them.
    pub stranded: usize,
    /// Whether more are due.
    pub has_more: bool,
    /// Where the next call looks for events that have lost their place.
    pub cursor: u64,
    /// What waits now.
    pub upcoming: Upcoming,
}

/// What became of an event whose time was changed. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rescheduled {
    /// No event of this id waits; nothing was changed.
    NotScheduled,
    /// It waits until this time, by the server's clock in milliseconds.
    Waits(u64),
    /// It is in the stream, with this event id if its record had one.
    Entered(EntryId, Option<EventId>),
}

/// An event that waits; `None` for what its record does not contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledFacts {
    /// The name under which it waits: its event id, unless it is debounced.
    pub name: String,
    /// Its event id.
    pub event_id: Option<String>,
    /// When it is due, by the server's clock in milliseconds.
    pub due: u64,
    /// The event type.
    pub event_type: Option<String>,
    /// The key that keeps related events together.
    pub key: Option<String>,
    /// The size of its record in bytes.
    pub bytes: u64,
}

/// Where a page of waiting events begins. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduledFrom<'a> {
    /// At the first that is due.
    First,
    /// After an event; where it no longer waits, as [`Due`](Self::Due).
    After {
        /// The name under which it waits.
        id: &'a str,
        /// When it was due, by the server's clock in milliseconds.
        due: u64,
    },
    /// At the first that is not due before this time, by the server's clock in milliseconds.
    Due(u64),
}

/// A page of waiting events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledFactsPage {
    /// The server's clock.
    pub now: ServerTime,
    /// The events, in the order in which they are due.
    pub events: Vec<ScheduledFacts>,
    /// Whether there may be more after them.
    pub has_more: bool,
}

/// The steps of events that wait for their time. They belong to a stream and to none of its groups.
#[async_trait]
pub trait Schedule: Send + Sync {
    /// Has events wait, each until it is due: an answer for each. One of an id that waits already is
    /// left as it is. One that is due is appended at once, with the retention that belongs to
    /// appending. Of two events with one id, the first stands.
    async fn schedule(
        &self,
        stream: &StreamName,
        retention: Retention,
        events: Vec<NewScheduled>,
    ) -> Vec<Result<Scheduling>>;

    /// Has an event wait in the place of the one that waits under its name, if one does. Of many calls at
    /// once, the last one waits.
    async fn debounce(&self, stream: &StreamName, event: NewDebounced) -> Result<Debounced>;

    /// What waits. Changes nothing.
    async fn look_ahead(&self, stream: &StreamName) -> Result<Upcoming>;

    /// Moves due events to the stream, at most `limit` and some MiB, with the retention that belongs to
    /// appending. Each has the field `sj-due`. `cursor` is that of the last call, or zero.
    async fn enter(
        &self,
        stream: &StreamName,
        retention: Retention,
        limit: usize,
        cursor: u64,
    ) -> Result<Entered>;

    /// Removes an event that waits under this name: whether there was one. If so, no entry comes of it any more.
    async fn unschedule(&self, stream: &StreamName, id: &EventId) -> Result<bool>;

    /// Changes when an event is due that waits. If it is due then, it is moved to the stream at once.
    async fn reschedule(
        &self,
        stream: &StreamName,
        retention: Retention,
        id: &EventId,
        due: Due,
    ) -> Result<Rescheduled>;

    /// A page of the events that wait, in the order in which they are due: at most `limit`, fewer where
    /// their records are large. The payloads are not read.
    async fn scheduled(
        &self,
        stream: &StreamName,
        from: ScheduledFrom<'_>,
        limit: usize,
    ) -> Result<ScheduledFactsPage>;

    /// How many events wait.
    async fn scheduled_count(&self, stream: &StreamName) -> Result<u64>;
}

/// For how long after the first event was ever scheduled to a stream, processes may not know that they
/// have to look for some. They learn it within three seconds.
pub(crate) const LEARNING: Duration = Duration::from_secs(5);
/// A delay that is shorter than what passes between two looks.
pub(crate) const SHORT: Duration = Duration::from_millis(500);
