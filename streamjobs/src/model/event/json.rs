//! JSON: encoding that refuses what cannot be read again, and errors that do not show the payload.

use bytes::{BufMut, Bytes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Deserializer;
use serde_json::de::Read;
use serde_json::error::Category;

use crate::model::event::content::{Variant, VariantContent};
use crate::model::event::finite::Finite;
use crate::model::event::{DecodeError, arena};

/// Encodes a value.
pub(super) fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, serde_json::Error> {
    arena::written(|text| value.serialize(Finite(&mut serde_json::Serializer::new(text.writer()))))
}

/// Encodes the content of an enum's variant.
pub(super) fn variant_to_bytes<T: Serialize>(value: &T) -> Result<Bytes, serde_json::Error> {
    arena::written(|text| {
        let serializer = &mut serde_json::Serializer::new(text.writer());
        value.serialize(VariantContent(Finite(serializer)))
    })
}

/// Decodes a whole document.
pub(super) fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, DecodeError> {
    let decoded = match checked(text) {
        Some(text) => serde_json::from_str(text),
        None => serde_json::from_slice(text),
    };
    decoded.map_err(|error| failure(&error))
}

/// Decodes a whole document as the content of the enum's variant with this index.
pub(super) fn variant_from_slice<T: DeserializeOwned>(
    index: u32,
    text: &[u8],
) -> Result<T, DecodeError> {
    let decoded = match checked(text) {
        Some(text) => variant(index, Deserializer::from_str(text)),
        None => variant(index, Deserializer::from_slice(text)),
    };
    decoded.map_err(|error| failure(&error))
}

fn variant<'de, T: DeserializeOwned, R: Read<'de>>(
    index: u32,
    mut deserializer: Deserializer<R>,
) -> Result<T, serde_json::Error> {
    let value = T::deserialize(Variant { index, content: &mut deserializer })?;
    deserializer.end()?;
    Ok(value)
}

/// The document as text. Checking all of it is cheaper than checking each string in it. A document that is not text
/// can still be read if the wrong bytes are in a part that the type does not have.
fn checked(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text).ok()
}

fn failure(error: &serde_json::Error) -> DecodeError {
    DecodeError::new(described(error))
}

/// What is wrong and where, without any value: messages of serde_json quote the input.
pub(super) fn described(error: &serde_json::Error) -> String {
    let place = format!("line {}, column {}", error.line(), error.column());
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    let what = match error.classify() {
        // These messages describe the syntax only.
        Category::Syntax | Category::Eof | Category::Io => text.to_owned(),
        Category::Data => without_value(text),
    };
    format!("invalid JSON payload: {what} ({place})")
}

fn without_value(text: &str) -> String {
    let names_no_value = ["missing field `", "duplicate field `"];
    if names_no_value.iter().any(|start| text.starts_with(start)) {
        return text.to_owned();
    }
    let quotes_a_value = [
        "invalid type: ",
        "invalid value: ",
        "invalid length ",
        "unknown variant ",
        "unknown field ",
    ];
    let expected = text.rsplit_once(", expected ").filter(|_| {
        // The value is in front of the last "expected", which serde_json writes.
        quotes_a_value.iter().any(|start| text.starts_with(start))
    });
    match expected {
        Some((_, expected)) => format!("expected {expected}"),
        None => "a value is not valid".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Strict {
        #[expect(dead_code, reason = "only read")]
        number: u32,
    }

    #[test]
    fn bytes_that_are_not_text_are_refused_where_the_type_reads_them() {
        #[derive(Debug, Deserialize)]
        struct Named {
            name: String,
        }
        let wrong = b"{\"name\": \"a\xff\"}".as_slice();
        let error = from_slice::<Named>(wrong).unwrap_err().to_string();
        assert!(error.contains("unicode") && error.contains("line 1"), "{error}");
        let unknown = b"{\"name\": \"a\", \"other\": \"\xff\"}".as_slice();
        assert_eq!(from_slice::<Named>(unknown).unwrap().name, "a");
    }

    #[test]
    fn errors_say_the_position_and_the_expectation_and_never_a_value() {
        let cases = [
            (r#"{"number":"canary"}"#, "expected u32"),
            (r#"{"number":"canary, expected canary"}"#, "expected u32"),
            (r#"{"canary":1}"#, "expected `number`"),
            (r#"{}"#, "missing field `number`"),
            (r#"{"number":1,"number":2}"#, "duplicate field `number`"),
            (r#"{"number":1e999}"#, "number out of range"),
            (r#"{"number":1}x"#, "trailing characters"),
            (r#"{"number":"#, "EOF"),
            (r#"{"number":"\ud800"}"#, "hex escape"),
        ];
        for (text, expected) in cases {
            let error = from_slice::<Strict>(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("line 1"), "{text}: {error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn deep_nesting_and_bad_utf8_are_refused() {
        let deep = "[".repeat(200);
        let error = from_slice::<serde_json::Value>(deep.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("recursion limit"), "{error}");
        assert!(from_slice::<String>(b"\"\xff\"").is_err());
    }
}
