//! The events that a program under test has published.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Streams;
use crate::model::entry::{Entry, EntryAddress, EntryId};
use crate::model::event::{self, DecodeError, Envelope, Event};
use crate::model::name::{EventId, NameError, StreamName};

/// An event that is in its stream.
///
/// `Debug` shows the event if its type can be shown, and no other field of the entry.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PublishedEvent<E> {
    /// The event.
    pub event: E,
    /// Its event id.
    pub event_id: EventId,
    /// The id of its entry.
    pub entry_id: EntryId,
    /// When it entered the stream, by the [clock of the streams](Streams::now).
    pub at: SystemTime,
    /// When it was due, if it was scheduled for a time.
    pub due: Option<SystemTime>,
    /// The whole entry, for fields that are not part of the event.
    pub entry: Entry,
    /// The number of its partition; `None` if the stream has only one.
    pub partition: Option<u16>,
}

impl<E> PublishedEvent<E> {
    /// Where the entry is, as [`Stream::entry`](crate::stream::Stream::entry) takes it.
    #[must_use]
    pub fn address(&self) -> EntryAddress {
        EntryAddress { id: self.entry_id, partition: self.partition }
    }
}

/// An event that waits for its time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WaitingEvent<E> {
    /// The event.
    pub event: E,
    /// Its event id.
    pub event_id: EventId,
    /// When it is due, by the [clock of the streams](Streams::now).
    pub due: SystemTime,
}

/// Why events cannot be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventsError {
    /// The stream's name is invalid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An entry has the event type, but its content cannot be decoded.
    #[error("entry {entry} of stream {stream} cannot be decoded as an event of its type")]
    Decode {
        /// The stream.
        stream: StreamName,
        /// The entry; `0-0` for an event that waits for its time.
        entry: EntryId,
        /// What is wrong.
        #[source]
        source: DecodeError,
    },
}

impl Streams {
    /// The events of one Rust type that are in their stream, in stream order, from every publisher, whether or not a
    /// handler has run. Events that retention has trimmed are gone: by default, all but the last 10,000.
    ///
    /// Retries, redriven jobs and events that wait for their time are not in the stream. Entries of other event types
    /// are skipped.
    ///
    /// ```
    /// # use streamjobs::testing::Streams;
    /// # #[derive(streamjobs::Event, serde::Serialize, serde::Deserialize)]
    /// # #[event(stream = "orders", type = "order.placed")]
    /// # struct OrderPlaced { order_id: String }
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let streams = Streams::new();
    /// streams.client().publish(&OrderPlaced { order_id: "o-1".into() }).await?;
    /// let orders = streams.published::<OrderPlaced>()?;
    /// assert_eq!((orders.len(), orders[0].event.order_id.as_str()), (1, "o-1"));
    /// assert!(orders[0].at <= streams.now());
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Builder::new_current_thread()
    /// #     .enable_time().start_paused(true).build().unwrap().block_on(example()).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// When an entry has one of the event types and cannot be decoded.
    pub fn published<E: Event>(&self) -> Result<Vec<PublishedEvent<E>>, EventsError> {
        self.published_to(E::STREAM)
    }

    /// As [`published`](Self::published), for a stream other than the event's own: a stream to
    /// which [`publish_to`](crate::Client::publish_to) published.
    ///
    /// # Errors
    ///
    /// As [`published`](Self::published), and when the name is invalid.
    pub fn published_to<E: Event>(
        &self,
        stream: &str,
    ) -> Result<Vec<PublishedEvent<E>>, EventsError> {
        let stream = StreamName::new(stream)?;
        let parts = self.store().partitions_of(&stream);
        let is_spread = parts.len() > 1;
        let mut events = Vec::new();
        for (part, number) in parts.iter().zip(0..) {
            let entries = self.store().entries(part);
            for entry in entries.into_iter().filter(holds::<E>) {
                let read = event::read::<E>(&entry);
                let due = entry.text("sj-due").and_then(|due| due.parse().ok());
                events.push(PublishedEvent {
                    event: read.map_err(|source| undecodable(part, &entry, source))?,
                    event_id: Envelope::of(part, &entry).event_id,
                    entry_id: entry.id(),
                    at: time(entry.id().milliseconds()),
                    due: due.map(time),
                    entry,
                    partition: is_spread.then_some(number),
                });
            }
        }
        events.sort_by_key(|event| (event.entry_id, event.partition));
        Ok(events)
    }

    /// The events of one Rust type that wait for their time, in the order in which they are due: scheduled events and
    /// debounced events. See [`publish_in`](crate::Client::publish_in).
    ///
    /// # Errors
    ///
    /// As [`published`](Self::published).
    pub fn scheduled<E: Event>(&self) -> Result<Vec<WaitingEvent<E>>, EventsError> {
        self.scheduled_to(E::STREAM)
    }

    /// As [`scheduled`](Self::scheduled), for a stream other than the event's own.
    ///
    /// # Errors
    ///
    /// As [`published_to`](Self::published_to).
    pub fn scheduled_to<E: Event>(
        &self,
        stream: &str,
    ) -> Result<Vec<WaitingEvent<E>>, EventsError> {
        let stream = StreamName::new(stream)?;
        let mut events = Vec::new();
        for part in self.store().partitions_of(&stream) {
            let waiting = self.store().waiting(&part);
            for (due, entry) in waiting.into_iter().filter(|(_, entry)| holds::<E>(entry)) {
                let read = event::read::<E>(&entry);
                events.push(WaitingEvent {
                    event: read.map_err(|source| undecodable(&part, &entry, source))?,
                    event_id: Envelope::of(&part, &entry).event_id,
                    due: time(due),
                });
            }
        }
        events.sort_by_key(|event| event.due);
        Ok(events)
    }
}

/// Whether an entry has one of the event types of a Rust type.
fn holds<E: Event>(entry: &Entry) -> bool {
    entry.event_type().is_some_and(|event_type| E::TYPES.contains(&event_type))
}

fn undecodable(stream: &StreamName, entry: &Entry, source: DecodeError) -> EventsError {
    EventsError::Decode { stream: stream.clone(), entry: entry.id(), source }
}

fn time(milliseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(milliseconds)
}
