//! Encoded events: entries that are made without a server.

use std::fmt;

use bytes::Bytes;

use crate::model::entry::{Entry, EntryId, Fields};
use crate::model::error::PublishError;
use crate::model::event::{DecodeError, Envelope, Event, stream_of};
use crate::model::name::{EventId, StreamName};
use crate::model::trace::{self, TraceContext};

/// An event, encoded as the entry that it will become, before it is sent to a server.
///
/// Store it together with the other effects of an operation (an outbox table, a file), and publish it
/// later with [`Client::publish_encoded`](crate::Client::publish_encoded). It keeps its event id, so
/// that publishing it twice is safe for guarded handlers.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// use streamjobs::{EncodedEvent, Event, StreamName};
///
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(stream = "orders", type = "order.placed", key = "customer")]
/// # struct OrderPlaced { customer: String }
/// let event = EncodedEvent::new(&OrderPlaced { customer: "alice".into() })?;
/// assert_eq!((event.event_type(), event.key()), ("order.placed", Some("alice")));
///
/// // Its parts can be stored, and read again.
/// let stream = StreamName::new(event.stream().as_str())?;
/// let again = EncodedEvent::from_parts(stream, event.fields().to_vec())?;
/// assert_eq!(again, event);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// `Debug` shows everything but the payload.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedEvent {
    stream: StreamName,
    event_id: EventId,
    fields: Fields,
}

impl EncodedEvent {
    /// Encodes an event for its own stream, under a new event id.
    ///
    /// Within a handler it has the trace context of the job, as with
    /// [`Client::publish`](crate::Client::publish).
    ///
    /// # Errors
    ///
    /// When the payload cannot be encoded, all fields together exceed 1 MiB, or the stream's name is
    /// invalid. [`Client::encode`](crate::Client::encode) applies the client's own limit.
    pub fn new<E: Event>(event: &E) -> Result<Self, PublishError> {
        Self::with_id(event, EventId::generate())
    }

    /// Encodes an event for its own stream, under an event id of the caller.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_id<E: Event>(event: &E, id: EventId) -> Result<Self, PublishError> {
        Self::encode(event, id, trace::of_job().as_deref(), PAYLOAD_BYTES_MAX)
    }

    /// The same event for a stream other than its own, such as the stream of a tenant.
    #[must_use]
    #[expect(clippy::wrong_self_convention, reason = "it names where the event goes")]
    pub fn to_stream(self, stream: StreamName) -> Self {
        Self { stream, ..self }
    }

    /// An event from its stored parts.
    ///
    /// # Errors
    ///
    /// When the fields are not those of an event: without a readable `type` or `sj-id`, or with
    /// duplicates of these. The message never shows their values.
    pub fn from_parts(stream: StreamName, fields: Fields) -> Result<Self, DecodeError> {
        let entry = Entry::new(EntryId::ZERO, fields);
        if entry.event_type().is_none() {
            return Err(DecodeError::new("the event has no readable `type` field"));
        }
        let event_id = entry.text("sj-id").and_then(|id| EventId::new(id).ok());
        let event_id =
            event_id.ok_or_else(|| DecodeError::new("the event has no readable `sj-id` field"))?;
        Envelope::payload(&entry)?;
        Ok(Self { stream, event_id, fields: entry.into_fields() })
    }

    /// Its stream.
    #[must_use]
    pub fn stream(&self) -> &StreamName {
        &self.stream
    }

    /// Its event id.
    #[must_use]
    pub fn event_id(&self) -> &EventId {
        &self.event_id
    }

    /// Its event type.
    #[must_use]
    pub fn event_type(&self) -> &str {
        self.text("type").unwrap_or_default()
    }

    /// The key that keeps related events together, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.text("sj-key")
    }

    /// All fields of its entry, in order.
    #[must_use]
    pub fn fields(&self) -> &[(Bytes, Bytes)] {
        &self.fields
    }

    /// The size of all fields in bytes, names included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        bytes_of(&self.fields)
    }

    pub(crate) fn encode<E: Event>(
        event: &E,
        id: EventId,
        trace: Option<&TraceContext>,
        bytes_max: usize,
    ) -> Result<Self, PublishError> {
        let stream = stream_of::<E>()?;
        let fields = encode(&stream, event, &id, trace, bytes_max)?;
        Ok(Self { stream, event_id: id, fields })
    }

    /// Its parts, unless it exceeds a client's limit.
    pub(crate) fn within(self, bytes_max: usize) -> Result<(EventId, Fields), PublishError> {
        check_size(&self.stream, self.event_type(), &self.fields, bytes_max)?;
        Ok((self.event_id, self.fields))
    }

    fn text(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(field, _)| field == name.as_bytes());
        found.and_then(|(_, value)| std::str::from_utf8(value).ok())
    }
}

impl fmt::Debug for EncodedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedEvent")
            .field("stream", &self.stream)
            .field("event_type", &self.event_type())
            .field("event_id", &self.event_id)
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

/// The fields of an event's entry.
pub(crate) fn encode<E: Event>(
    stream: &StreamName,
    event: &E,
    id: &EventId,
    trace: Option<&TraceContext>,
    bytes_max: usize,
) -> Result<Fields, PublishError> {
    let event_type = event.event_type();
    let payload = event.encode().map_err(|source| PublishError::Encode {
        stream: stream.to_string(),
        event_type: event_type.to_owned(),
        source,
    })?;
    let fields = Envelope::entry(event_type, payload, id, event.key(), trace);
    check_size(stream, event_type, &fields, bytes_max)?;
    Ok(fields)
}

pub(super) fn check_size(
    stream: &StreamName,
    event_type: &str,
    fields: &Fields,
    bytes_max: usize,
) -> Result<(), PublishError> {
    let bytes = bytes_of(fields);
    if bytes > bytes_max {
        return Err(PublishError::TooLarge {
            stream: stream.to_string(),
            event_type: event_type.to_owned(),
            bytes,
            bytes_max,
        });
    }
    Ok(())
}

fn bytes_of(fields: &Fields) -> usize {
    fields.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// The default maximum size of an event.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::error::PublishError;
    use crate::model::event::{EncodeError, Payload};

    struct Placed(&'static str);

    impl Event for Placed {
        const STREAM: &'static str = "orders";
        const TYPES: &'static [&'static str] = &["order.placed"];

        fn event_type(&self) -> &'static str {
            "order.placed"
        }

        fn key(&self) -> Option<String> {
            Some("alice".to_owned())
        }

        fn encode(&self) -> Result<Fields, EncodeError> {
            Ok(vec![("data".into(), self.0.into())])
        }

        fn decode(_: &str, _: Payload<'_>) -> Result<Self, DecodeError> {
            Err(DecodeError::new("never read"))
        }
    }

    fn stream() -> StreamName {
        StreamName::new("orders:{acme}").unwrap()
    }

    fn fields(of: &[(&'static str, &'static str)]) -> Fields {
        of.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn an_encoded_event_has_the_fields_of_its_entry() {
        let id = EventId::new("e-1").unwrap();
        let event = EncodedEvent::with_id(&Placed("{}"), id.clone()).unwrap();
        assert_eq!((event.stream().as_str(), event.event_id()), ("orders", &id));
        assert_eq!((event.event_type(), event.key()), ("order.placed", Some("alice")));
        let expected =
            [("type", "order.placed"), ("data", "{}"), ("sj-id", "e-1"), ("sj-key", "alice")];
        assert_eq!(event.fields(), fields(&expected));
        assert_eq!(event.bytes(), 4 + 12 + 4 + 2 + 5 + 3 + 6 + 5);
        let elsewhere = event.clone().to_stream(stream());
        assert_eq!((elsewhere.stream(), elsewhere.fields()), (&stream(), event.fields()));
    }

    #[tokio::test]
    async fn an_event_made_within_a_job_belongs_to_the_jobs_trace() {
        let context = std::sync::Arc::new(TraceContext::from_ids([1; 16], [2; 8], 1).unwrap());
        let within = trace::within(Some(context.clone()), async {
            EncodedEvent::new(&Placed("{}")).unwrap()
        });
        assert_eq!(within.await.text("sj-trace"), Some(context.traceparent().as_str()));
        let outside = EncodedEvent::new(&Placed("{}")).unwrap();
        assert_eq!(outside.text("sj-trace"), None);
    }

    #[test]
    fn stored_parts_are_an_event_again_and_nothing_else_is() {
        let event = EncodedEvent::new(&Placed("{}")).unwrap();
        let again = EncodedEvent::from_parts(event.stream.clone(), event.fields.clone()).unwrap();
        assert_eq!(again, event);
        let bad = [
            (&[("sj-id", "e"), ("data", "canary")][..], "`type`"),
            (&[("type", "t"), ("data", "canary")], "`sj-id`"),
            (&[("type", "t"), ("sj-id", ""), ("data", "canary")], "`sj-id`"),
            (&[("type", "t"), ("sj-id", "e"), ("sj-id", "f")], "two fields `sj-id`"),
            (&[("type", "t"), ("sj-id", "e"), ("data", "1"), ("data", "canary")], "`data`"),
            (&[("x", "canary"); 70], "`type`"),
        ];
        for (parts, expected) in bad {
            let error = EncodedEvent::from_parts(stream(), fields(parts)).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn what_is_too_large_is_refused_and_debug_shows_no_payload() {
        let large = Placed(Box::leak("canary".repeat(200_000).into_boxed_str()));
        let error = EncodedEvent::new(&large).unwrap_err();
        assert!(matches!(error, PublishError::TooLarge { bytes_max: PAYLOAD_BYTES_MAX, .. }));
        let event = EncodedEvent::new(&Placed("canary")).unwrap();
        assert!(!format!("{event:?}").contains("canary"));
        assert!(event.within(10).is_err());
    }
}
