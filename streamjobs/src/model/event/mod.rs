//! Events: what a user publishes, and how an entry carries it.

pub(crate) mod codec;

mod arena;
mod content;
mod envelope;
#[cfg(test)]
mod field_kinds;
mod fields;
mod finite;
mod json;
mod stream;
mod unique;

pub(crate) use self::codec::{decode_result, encode_result};
pub(crate) use self::envelope::Envelope;
pub use self::envelope::Payload;
pub(crate) use self::stream::stream_of;
pub use self::unique::UniqueFields;
pub(crate) use self::unique::put_part;

use thiserror::Error;

use crate::model::cause::BoxError;
use crate::model::entry::{Entry, Fields};

/// A typed payload that is published to a stream and received by handlers.
///
/// Derive it beside serde's traits:
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use streamjobs::Event;
///
/// #[derive(Debug, Event, Serialize, Deserialize)]
/// #[event(stream = "orders", type = "order.placed", key = "customer")]
/// struct OrderPlaced {
///     order_id: String,
///     customer: String,
/// }
/// ```
///
/// An enum holds several event types of one stream: one variant for each.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "not an event",
    note = "derive `streamjobs::Event` and serde's `Serialize` and `Deserialize` for it, or take \
            `streamjobs::Entry` and name the stream with `stream = \"...\"`"
)]
pub trait Event: Sized + Send + 'static {
    /// The stream that events of this type are published to.
    const STREAM: &'static str;
    /// Every event type that this Rust type can hold.
    const TYPES: &'static [&'static str];

    /// The event type of this value.
    fn event_type(&self) -> &'static str;

    /// The key that keeps related events together, if the event names one.
    fn key(&self) -> Option<String> {
        None
    }

    /// The fields that decide whether two publications count as the same, if the event names some.
    /// See [`Client::publish_unique`](crate::Client::publish_unique).
    ///
    /// # Errors
    ///
    /// When one of them cannot be encoded.
    fn unique(&self) -> Result<Option<UniqueFields>, EncodeError> {
        Ok(None)
    }

    /// Writes the payload as fields: one `data` field, or flat fields.
    ///
    /// # Errors
    ///
    /// When the value cannot be encoded.
    fn encode(&self) -> Result<Fields, EncodeError>;

    /// Reads a payload of one of the [types](Self::TYPES), in either encoding.
    ///
    /// # Errors
    ///
    /// When the payload does not match the event type.
    fn decode(event_type: &str, payload: Payload<'_>) -> Result<Self, DecodeError>;
}

/// Reads an entry as an event.
pub(crate) fn read<E: Event>(entry: &Entry) -> Result<E, DecodeError> {
    // A known event type is text.
    let stored = entry.field("type");
    let known = stored.and_then(|stored| E::TYPES.iter().find(|known| *stored == **known));
    match known.copied().or_else(|| entry.event_type()) {
        Some(event_type) => {
            Envelope::payload(entry).and_then(|payload| E::decode(event_type, payload))
        }
        None => Err(DecodeError::new("the entry has no readable `type` field")),
    }
}

/// A payload could not be encoded; nothing was sent.
#[derive(Debug, Error)]
#[error("cannot encode the payload as {encoding}")]
pub struct EncodeError {
    pub(crate) encoding: &'static str,
    #[source]
    pub(crate) source: BoxError,
}

/// An entry could not be decoded as the event that was expected.
///
/// The message says what was expected and never repeats the payload.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct DecodeError {
    pub(crate) message: String,
}

impl DecodeError {
    /// An error with this message, which must not repeat the payload.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}
