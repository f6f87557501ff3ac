//! Events that wait for their time beside their stream, and how they enter it.

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
        /// Whether it waited before; in that case nothing was changed.
        repeated: bool,
        /// How long until it is due, if perhaps no process checks for it before then: it is due within half a second,
        /// and events have been scheduled to the stream only for so short a time that processes might not know of them.
        unwatched: Option<Duration>,
    },
    /// It was due, and is now in the stream.
    Entered(EntryId),
}

/// An event that is to wait in place of the event that waits under the same name.
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

/// The result of scheduling a debounced event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debounced {
    /// When it is due, by the server's clock in milliseconds.
    pub due: u64,
    /// The event that was replaced.
    pub replaced: Option<EventId>,
    /// Whether this event waited before; in that case nothing was changed.
    pub repeated: bool,
}

/// What waits in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upcoming {
    /// The server's clock.
    pub now: ServerTime,
    /// Events that wait.
    pub waiting: u64,
    /// How long until the next event is due; zero if it is due now.
    pub next_due: Option<Duration>,
    /// Records of events whose place in the set of waiting events is lost.
    pub misplaced: u64,
    /// Whether events are scheduled to the stream: some were, and the sign of that still exists, or some wait now.
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
    /// Events that had lost their place, and have got it back.
    pub restored: usize,
    /// At least how many events cannot get their lost place back, because the user lacks the right to look for
    /// them.
    pub stranded: usize,
    /// Whether more are due.
    pub has_more: bool,
    /// Where the next call continues to look for events that have lost their place.
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

/// An event that waits. A field is `None` if its record does not contain it.
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
    /// At the event that is due first.
    First,
    /// After an event; if it no longer waits, like [`Due`](Self::Due).
    After {
        /// The name under which it waits.
        id: &'a str,
        /// When it was due, by the server's clock in milliseconds.
        due: u64,
    },
    /// At the first event that is due at this time or later, by the server's clock in milliseconds.
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

/// The steps of events that wait for their time. Such events belong to a stream and to none of its groups.
#[async_trait]
pub trait Schedule: Send + Sync {
    /// Schedules events, each to wait until it is due. Returns an answer for each. An event whose id waits
    /// already is left as it is. An event that is due is appended at once, with the retention that is applied at each
    /// append. Of two events with one id, the first is kept.
    async fn schedule(
        &self,
        stream: &StreamName,
        retention: Retention,
        events: Vec<NewScheduled>,
    ) -> Vec<Result<Scheduling>>;

    /// Schedules an event in place of the event that waits under its name, if there is one. Of many concurrent calls,
    /// the event of the last one waits.
    async fn debounce(&self, stream: &StreamName, event: NewDebounced) -> Result<Debounced>;

    /// Returns what waits. Changes nothing.
    async fn look_ahead(&self, stream: &StreamName) -> Result<Upcoming>;

    /// Moves due events to the stream, at most `limit` and some MiB, with the retention that is applied at each
    /// append. Each gets the field `sj-due`. `cursor` is the one that the last call returned, or zero.
    async fn enter(
        &self,
        stream: &StreamName,
        retention: Retention,
        limit: usize,
        cursor: u64,
    ) -> Result<Entered>;

    /// Removes the event that waits under this name. Returns whether there was one. If so, it never becomes an
    /// entry.
    async fn unschedule(&self, stream: &StreamName, id: &EventId) -> Result<bool>;

    /// Changes when a waiting event is due. If it is due at the new time, it is moved to the stream at once.
    async fn reschedule(
        &self,
        stream: &StreamName,
        retention: Retention,
        id: &EventId,
        due: Due,
    ) -> Result<Rescheduled>;

    /// A page of the events that wait, in the order in which they are due: at most `limit`, and fewer where
    /// their records are large. It does not read the payloads.
    async fn scheduled(
        &self,
        stream: &StreamName,
        from: ScheduledFrom<'_>,
        limit: usize,
    ) -> Result<ScheduledFactsPage>;

    /// How many events wait.
    async fn scheduled_count(&self, stream: &StreamName) -> Result<u64>;
}

/// For this long after the first event was ever scheduled to a stream, processes might not know that they have to check
/// for events. They learn it within three seconds.
pub(crate) const LEARNING: Duration = Duration::from_secs(5);
/// A delay below this is shorter than the time between two checks for scheduled events.
pub(crate) const SHORT: Duration = Duration::from_millis(500);
