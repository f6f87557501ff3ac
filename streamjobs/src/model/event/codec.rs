//! Encoding and decoding of payloads, for the code that `#[derive(Event)]` writes.

use std::fmt::Display;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::cause::BoxError;
use crate::model::entry::Fields;
use crate::model::event::content::{Variant, VariantContent};
use crate::model::event::envelope::FIELDS_ADDED;
use crate::model::event::fields::{FieldsDeserializer, FieldsSerializer};
use crate::model::event::{DecodeError, EncodeError, Payload, json};

/// A payload that serde can write.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be written as an event: serde's `Serialize` is missing",
    label = "add `#[derive(serde::Serialize)]`",
    note = "an event derives all three: `#[derive(Event, Serialize, Deserialize)]`, with \
            `serde = {{ version = \"1\", features = [\"derive\"] }}` in Cargo.toml"
)]
pub trait WritePayload: Serialize {}

#[diagnostic::do_not_recommend]
impl<T: Serialize> WritePayload for T {}

/// A payload that serde can read.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read as an event: serde's `Deserialize` is missing",
    label = "add `#[derive(serde::Deserialize)]`",
    note = "an event derives all three: `#[derive(Event, Serialize, Deserialize)]`, and owns its parts: \
            `String` instead of `&str`"
)]
pub trait ReadPayload: DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: DeserializeOwned> ReadPayload for T {}

/// The key of an event.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the key of an event: it cannot be displayed",
    label = "the key has to be one text, number or other type with `std::fmt::Display`",
    note = "an `Option` is no key: an event has a key always or never. Make the field a `String`, name \
            another field, or make two events of it, one of which has no `key`"
)]
pub trait KeyText: Display {}

#[diagnostic::do_not_recommend]
impl<T: Display + ?Sized> KeyText for T {}

/// The text of a key.
pub fn key_text<T: KeyText + ?Sized>(key: &T) -> Option<String> {
    Some(key.to_string())
}

/// Encodes what a handler returned.
pub(crate) fn encode_result<T: Serialize>(value: &T) -> Result<Bytes, EncodeError> {
    json::to_bytes(value)
        .map_err(|error| EncodeError { encoding: "JSON", source: json::described(&error).into() })
}

/// Decodes what [`encode_result`] wrote.
pub(crate) fn decode_result<T: DeserializeOwned>(text: &[u8]) -> Result<T, DecodeError> {
    json::from_slice(text)
}

/// Encodes a value as one `data` field with JSON.
///
/// # Errors
///
/// When the value cannot be JSON: a number that is not finite, a map whose keys are not strings.
pub fn encode_json<T: WritePayload>(value: &T) -> Result<Fields, EncodeError> {
    data(json::to_bytes(value))
}

/// Encodes a value as flat fields.
///
/// # Errors
///
/// When the value has no named parts, or a part cannot be encoded.
pub fn encode_fields<T: WritePayload>(value: &T) -> Result<Fields, EncodeError> {
    value.serialize(FieldsSerializer).map_err(|error| refused("flat fields", error))
}

/// Encodes the content of an enum's variant as one `data` field with JSON.
///
/// # Errors
///
/// When the content cannot be JSON.
pub fn encode_variant_json<T: WritePayload>(value: &T) -> Result<Fields, EncodeError> {
    data(json::variant_to_bytes(value))
}

/// Encodes the content of an enum's variant as flat fields.
///
/// # Errors
///
/// When the content has no named parts, or a part cannot be encoded.
pub fn encode_variant_fields<T: WritePayload>(value: &T) -> Result<Fields, EncodeError> {
    let encoded = value.serialize(VariantContent(FieldsSerializer));
    encoded.map_err(|error| refused("flat fields", error))
}

/// Decodes a value in either encoding.
///
/// # Errors
///
/// When the payload does not match the type.
pub fn decode<T: ReadPayload>(payload: Payload<'_>) -> Result<T, DecodeError> {
    match payload {
        Payload::Json(text) => json::from_slice(text),
        Payload::Fields(fields) => {
            let deserializer = FieldsDeserializer::new(fields)?;
            T::deserialize(deserializer).map_err(Into::into)
        }
    }
}

/// Decodes the content of the enum's variant with this index.
///
/// # Errors
///
/// When the payload does not match the variant.
pub fn decode_variant<T: ReadPayload>(index: u32, payload: Payload<'_>) -> Result<T, DecodeError> {
    match payload {
        Payload::Json(text) => json::variant_from_slice(index, text),
        Payload::Fields(fields) => {
            let content = FieldsDeserializer::new(fields)?;
            T::deserialize(Variant { index, content }).map_err(Into::into)
        }
    }
}

/// The error for an event type that the Rust type does not hold.
#[must_use]
pub fn unexpected_type(event_type: &str, types: &[&str]) -> DecodeError {
    let expected = types.join(", ");
    DecodeError::new(format!("event type {event_type:?} is not one of {expected}"))
}

fn data(json: Result<Bytes, serde_json::Error>) -> Result<Fields, EncodeError> {
    let json = json.map_err(|error| refused("JSON", error))?;
    // With room for what the envelope adds.
    let mut fields = Fields::with_capacity(1 + FIELDS_ADDED);
    fields.push((Bytes::from_static(b"data"), json));
    Ok(fields)
}

fn refused(encoding: &'static str, source: impl Into<BoxError>) -> EncodeError {
    EncodeError { encoding, source: source.into() }
}
