//! What a batch is opened with: its id, and what it publishes.

use std::fmt;
use std::str::FromStr;

use streamjobs::error::PublishError;
use streamjobs::{EncodedEvent, Event, EventId, NameError};

/// The identity of a batch: an id that the application chooses, or a generated id. The ids of the batch's events are
/// derived from it.
///
/// Use an id for one batch only. A second batch that is opened under the same id after the first was pruned would
/// publish its events under the same event ids, and guards and consumers would take them for the events of the first.
///
/// It has the form of an event id: at most 128 bytes without control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(EventId);

impl BatchId {
    /// Validates an id.
    ///
    /// # Errors
    ///
    /// When it is empty, longer than 128 bytes, or has control characters.
    pub fn new(id: impl Into<String>) -> Result<Self, NameError> {
        EventId::new(id).map(Self)
    }

    /// A new id: 128 bits, ordered by time.
    #[must_use]
    pub fn generate() -> Self {
        Self(EventId::generate())
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The id of the event that says that the batch has completed: the same for each batch of this id.
    #[must_use]
    pub fn completed_event_id(&self) -> EventId {
        self.0.derive(COMPLETED)
    }

    /// The id of the event that says that the batch has succeeded.
    #[must_use]
    pub fn succeeded_event_id(&self) -> EventId {
        self.0.derive(SUCCEEDED)
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for BatchId {
    type Err = NameError;

    fn from_str(id: &str) -> Result<Self, NameError> {
        Self::new(id)
    }
}

/// A batch that is about to be opened, with the events that it publishes. If it publishes none, its
/// [status](super::Batches::status) shows its progress.
///
/// The events are encoded before the batch is opened, so their content cannot depend on how the members end. A
/// handler that needs to know how they ended reads the [status](super::Batches::status).
#[derive(Clone, Debug)]
#[must_use = "a batch does not exist before it is opened"]
pub struct NewBatch {
    pub(super) id: BatchId,
    pub(super) completed: Option<EncodedEvent>,
    pub(super) succeeded: Option<EncodedEvent>,
}

impl NewBatch {
    /// A batch that publishes nothing.
    pub fn new(id: BatchId) -> Self {
        Self { id, completed: None, succeeded: None }
    }

    /// Publishes this event once every member has ended, done or dead, and the batch is closed.
    ///
    /// # Errors
    ///
    /// When the event cannot be encoded, or is larger than 1 MiB.
    pub fn on_completed<E: Event>(mut self, event: &E) -> Result<Self, PublishError> {
        self.completed = Some(EncodedEvent::with_id(event, self.id.completed_event_id())?);
        Ok(self)
    }

    /// Publishes this event once the batch has completed and none of its members is dead: at its completion, or
    /// later, when the last dead member was redriven and is done. The event never comes for a batch whose dead
    /// members are left as they are.
    ///
    /// # Errors
    ///
    /// As [`on_completed`](Self::on_completed).
    pub fn on_succeeded<E: Event>(mut self, event: &E) -> Result<Self, PublishError> {
        self.succeeded = Some(EncodedEvent::with_id(event, self.id.succeeded_event_id())?);
        Ok(self)
    }
}

/// The number from which the event's id is derived: far above the numbers that jobs give to the events that they
/// publish, in case a batch has the id of an event.
const COMPLETED: u64 = u64::MAX;
const SUCCEEDED: u64 = u64::MAX - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_of_a_batch_have_ids_of_their_own_that_never_change() {
        let id = BatchId::new("album-7").unwrap();
        assert_eq!(id.completed_event_id(), id.clone().completed_event_id());
        assert_ne!(id.completed_event_id(), id.succeeded_event_id());
        assert_ne!(id.completed_event_id(), BatchId::generate().completed_event_id());
        assert!(BatchId::new("").is_err());
    }
}
