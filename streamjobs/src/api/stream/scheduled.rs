//! Events that wait until they are due: listing, cancelling and rescheduling them.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;

use super::error::StreamError;
use super::handle::PAGE_MAX;
use crate::api::merge::{Chunk, Order, Rows};
use crate::api::parts::{Part, Parts, read_all, together};
use crate::api::rows;
use crate::model::config::Retention;
use crate::model::name::{EventId, NameError, StreamName};
use crate::publish::client::{Client, Published};
use crate::publish::later::due_at;
use crate::store::schedule::ScheduledFacts;
use crate::store::{Due, Rescheduled as Answer, ScheduledFrom, ServerTime, Store, StoreError};

impl Client {
    /// A handle to the events that wait until they enter a stream: those that were published with
    /// [`publish_in`](Self::publish_in) or [`publish_at`](Self::publish_at), or through an outbox. On a stream with
    /// [partitions](crate::ClientBuilder::partitions), the handle covers all of them. Nothing is sent.
    ///
    /// # Errors
    ///
    /// When the name is invalid.
    pub fn scheduled(&self, stream: &str) -> Result<ScheduledEvents, NameError> {
        let parts = Parts::of(self.layouts(), StreamName::new(stream)?);
        let retention = self.retention(parts.name());
        Ok(ScheduledEvents { store: Arc::clone(self.store()), parts, retention })
    }
}

/// A handle to the events that wait until they enter a stream. It is cheap to clone.
///
/// These events belong to the stream and to none of its groups: a group's backlog, replay or pause does not involve
/// them. Every call asks all partitions, because the partition of an event may be determined by its key.
#[derive(Clone, Debug)]
pub struct ScheduledEvents {
    store: Arc<dyn Store>,
    parts: Parts,
    retention: Retention,
}

/// An event that waits. Fields that its record does not have are `None`; its payload is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScheduledEvent {
    /// Its event id.
    pub id: EventId,
    /// The name under which it waits, and is cancelled or rescheduled: its event id, unless it is
    /// [debounced](Client::publish_debounced). A debounced event and all that replace it have the
    /// same name.
    pub name: EventId,
    /// The event type.
    pub event_type: Option<String>,
    /// The key that keeps related events together.
    pub key: Option<String>,
    /// When it is due, by the server's clock in milliseconds since 1970.
    pub due: u64,
    /// How long until it is due; zero if it is due already.
    pub due_in: Duration,
    /// The size of its record on the server in bytes.
    pub bytes: u64,
    /// The number of its partition; `None` if the stream has only one.
    pub partition: Option<u16>,
}

/// Where a page of waiting events ended. Written as text, it is the time at which the last event is due, the number
/// of its partition if there are several, and its name, separated by colons.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScheduledCursor {
    due: u64,
    partition: Option<u16>,
    id: String,
}

/// A string that is not a cursor of scheduled events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "not a cursor of scheduled events: expected a time, a partition (or nothing), and an event id"
)]
pub struct ScheduledCursorError;

/// A page of waiting events, in the order in which they are due.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScheduledPage {
    /// The events.
    pub events: Vec<ScheduledEvent>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<ScheduledCursor>,
}

/// What became of an event whose time was changed. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rescheduled {
    /// No event with this id waits: it has entered its stream, was cancelled, or never existed. Nothing was changed.
    NotScheduled,
    /// It waits until this time, by the server's clock in milliseconds since 1970.
    Waits {
        /// When it is due.
        due: u64,
    },
    /// It was due at once, and is in its stream now.
    Published(Published),
}

impl fmt::Display for ScheduledCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let partition = self.partition.map(|number| number.to_string()).unwrap_or_default();
        write!(f, "{}:{partition}:{}", self.due, self.id)
    }
}

impl FromStr for ScheduledCursor {
    type Err = ScheduledCursorError;

    fn from_str(text: &str) -> Result<Self, ScheduledCursorError> {
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next().ok_or(ScheduledCursorError);
        let (due, partition, id) = (part()?, part()?, part()?);
        let partition = match partition {
            "" => None,
            number => Some(number.parse().map_err(|_| ScheduledCursorError)?),
        };
        let id = EventId::new(id).map_err(|_| ScheduledCursorError)?.as_str().to_owned();
        Ok(Self { due: due.parse().map_err(|_| ScheduledCursorError)?, partition, id })
    }
}

impl ScheduledEvent {
    /// Where the page that follows this event begins.
    #[must_use]
    pub fn cursor(&self) -> ScheduledCursor {
        let id = self.name.as_str().to_owned();
        ScheduledCursor { due: self.due, partition: self.partition, id }
    }

    /// `None` for a name that cannot be an event id: another client wrote it.
    fn of(facts: ScheduledFacts, now: ServerTime, partition: Option<u16>) -> Option<Self> {
        let name = EventId::new(facts.name).ok()?;
        let id = facts.event_id.and_then(|id| EventId::new(id).ok());
        Some(Self {
            id: id.unwrap_or_else(|| name.clone()),
            name,
            event_type: facts.event_type,
            key: facts.key,
            due: facts.due,
            due_in: Duration::from_millis(facts.due.saturating_sub(now.0)),
            bytes: facts.bytes,
            partition,
        })
    }
}

impl ScheduledEvents {
    /// The scheduled events of a stream, only to be read: running an event needs the retention of a client.
    pub(super) fn reading(store: &Arc<dyn Store>, parts: &Parts) -> Self {
        let (store, parts) = (Arc::clone(store), parts.clone());
        Self { store, parts, retention: Retention::default() }
    }

    /// The name of the stream.
    #[must_use]
    pub fn stream(&self) -> &StreamName {
        self.parts.name()
    }

    /// How many events wait.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn count(&self) -> Result<u64, StreamError> {
        let count = async |part: &Part| {
            let count = self.store.scheduled_count(&part.stream).await;
            count.map_err(|error| StreamError::server(&part.stream, READ, error))
        };
        Ok(read_all(self.parts.iter().map(count).collect()).await?.into_iter().sum())
    }

    /// A page of the events that wait, in the order in which they are due: at most `limit`, never more than 1,000,
    /// and fewer where they are large.
    ///
    /// Names that another client wrote and that are not event ids are skipped. If the event of `after` no longer
    /// waits, the page begins with the first that is not due before it. Events of several partitions that are due in
    /// the same millisecond come in the order of their partitions.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn list(
        &self,
        after: Option<&ScheduledCursor>,
        limit: usize,
    ) -> Result<ScheduledPage, StreamError> {
        let limit = limit.clamp(1, PAGE_MAX);
        let partitions = self.parts.iter().map(|part| {
            let from = after.map_or(Place::First, |after| after.place_in(part.number));
            ScheduledRows { store: Arc::clone(&self.store), part: part.clone(), from }
        });
        let (events, more) = rows::page(partitions.collect(), Order::OldestFirst, limit).await?;
        let next = events.last().map(ScheduledEvent::cursor).filter(|_| more);
        Ok(ScheduledPage { events, next })
    }

    /// Removes the event that waits under this name, and returns whether there was such an event. The name is the
    /// event id, or for a debounced event its [`name`](ScheduledEvent::name). If there was such an event, it will
    /// never enter its stream. If not, it has entered its stream, was cancelled before, or never existed.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses. The call can be repeated; if the error is
    /// [unconfirmed](StreamError::is_unconfirmed), the event may be removed, and a repetition may find
    /// none.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the event may or may not be removed.
    pub async fn cancel(&self, id: &EventId) -> Result<bool, StreamError> {
        let cancel = async |part: &Part| {
            let removed = self.store.unschedule(&part.stream, id).await;
            removed.map_err(|error| Self::failed(part, "cancel an event of", error))
        };
        let removed = together(self.parts.iter().map(cancel).collect()).await;
        let removed = removed.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(removed.contains(&true))
    }

    /// Changes the time at which the event that waits under this name is due. If that time is not in the future, the
    /// event enters its stream at once.
    ///
    /// # Errors
    ///
    /// When the time is after the year 9999; in this case nothing was sent. When the server cannot be reached or
    /// refuses. The call can be repeated.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the time may or may not be changed.
    pub async fn reschedule(
        &self,
        id: &EventId,
        at: SystemTime,
    ) -> Result<Rescheduled, StreamError> {
        let Some(due) = due_at(at) else {
            return Err(StreamError::TooFarAhead { stream: self.stream().to_string() });
        };
        self.change(id, Due::At(due)).await
    }

    /// Moves the event that waits under this name into its stream at once, whatever the state of its groups.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses. The call can be repeated: for an event that has entered, the
    /// answer is then [`NotScheduled`](Rescheduled::NotScheduled).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the event may or may not have entered.
    pub async fn run_now(&self, id: &EventId) -> Result<Rescheduled, StreamError> {
        self.change(id, Due::In(Duration::ZERO)).await
    }

    async fn change(&self, id: &EventId, due: Due) -> Result<Rescheduled, StreamError> {
        let change = async |part: &Part| {
            let changed = self.store.reschedule(&part.stream, self.retention, id, due).await;
            changed.map_err(|error| Self::failed(part, "reschedule an event of", error))
        };
        let answers = together(self.parts.iter().map(change).collect()).await;
        let mut changed = Rescheduled::NotScheduled;
        for (part, answer) in self.parts.iter().zip(answers) {
            changed = match answer? {
                Answer::NotScheduled => changed,
                Answer::Waits(due) => Rescheduled::Waits { due },
                Answer::Entered(entry_id, event_id) => {
                    let event_id = event_id.unwrap_or_else(|| id.clone());
                    let partition = part.number;
                    Rescheduled::Published(Published { entry_id, event_id, partition })
                }
            };
        }
        Ok(changed)
    }

    fn failed(part: &Part, action: &'static str, error: StoreError) -> StreamError {
        StreamError::server(&part.stream, action, error)
    }
}

/// Where the events of one partition begin.
#[derive(Debug)]
enum Place {
    First,
    After(String, u64),
    Due(u64),
}

impl ScheduledCursor {
    /// Events are ordered by the time at which they are due; events of the same time, by their partitions.
    fn place_in(&self, partition: Option<u16>) -> Place {
        let (number, last) = (partition.unwrap_or(0), self.partition.unwrap_or(0));
        match number.cmp(&last) {
            Ordering::Less => Place::Due(self.due.saturating_add(1)),
            Ordering::Equal => Place::After(self.id.clone(), self.due),
            Ordering::Greater => Place::Due(self.due),
        }
    }
}

/// The events of one partition that wait.
#[derive(Debug)]
struct ScheduledRows {
    store: Arc<dyn Store>,
    part: Part,
    from: Place,
}

impl Rows for ScheduledRows {
    type Row = ScheduledEvent;
    /// When it is due.
    type Key = u64;
    type Error = StreamError;

    async fn read(&mut self, limit: usize) -> Result<Chunk<ScheduledEvent>, StreamError> {
        let (part, mut limit) = (&self.part, limit);
        loop {
            let from = match &self.from {
                Place::First => ScheduledFrom::First,
                Place::After(id, due) => ScheduledFrom::After { id, due: *due },
                Place::Due(due) => ScheduledFrom::Due(*due),
            };
            let page = self.store.scheduled(&part.stream, from, limit).await;
            let page = page.map_err(|error| StreamError::server(&part.stream, READ, error))?;
            // The next page begins after the last member, whichever client wrote it.
            let last = page.events.last().filter(|_| page.has_more);
            let has_more = last.is_some();
            if let Some(last) = last {
                self.from = Place::After(last.name.clone(), last.due);
            }
            let events = page.events.into_iter();
            let events =
                events.filter_map(|facts| ScheduledEvent::of(facts, page.now, part.number));
            let rows = events.collect::<Vec<_>>();
            if !rows.is_empty() || !has_more {
                return Ok(Chunk { rows, has_more });
            }
            limit = PAGE_MAX;
        }
    }

    fn key(row: &ScheduledEvent) -> u64 {
        row.due
    }

    fn is_absence(_error: &StreamError) -> bool {
        false
    }
}

const READ: &str = "read the scheduled events of";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_is_shown() {
        for text in ["1764000000000::e-1", "1764000000000:5:a:b@c:", "0::x"] {
            assert_eq!(text.parse::<ScheduledCursor>().unwrap().to_string(), text);
        }
        for text in ["", "5", "5:", "5::", "5:e-1", "-5::e-1", "5:x:e-1", "5:70000:e"] {
            assert_eq!(text.parse::<ScheduledCursor>(), Err(ScheduledCursorError), "{text}");
        }
    }
}
