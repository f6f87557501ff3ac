//! Flat fields: a payload whose parts are entry fields, as other clients write them.
//!
//! Strings and bytes are written unchanged, numbers and booleans as text, nested parts as JSON.
//! `None` gets no field, and a unit value an empty one: without it, no unit could be read back.

mod de;
mod ser;

pub(super) use self::de::FieldsDeserializer;
pub(super) use self::ser::FieldsSerializer;

use std::fmt;

use serde::de::{Expected, Unexpected};

use crate::model::event::DecodeError;

/// What is wrong with a flat payload. It never holds a value.
#[derive(Debug)]
pub(super) struct FieldsError {
    field: Option<String>,
    what: String,
}

impl FieldsError {
    fn new(what: impl Into<String>) -> Self {
        Self { field: None, what: what.into() }
    }

    /// Names the field, unless an inner error has named one.
    fn in_field(mut self, name: &str) -> Self {
        self.field.get_or_insert_with(|| name.chars().take(NAME_CHARACTERS_MAX).collect());
        self
    }
}

impl fmt::Display for FieldsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "field {field:?}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for FieldsError {}

impl From<FieldsError> for DecodeError {
    fn from(error: FieldsError) -> Self {
        Self::new(error.to_string())
    }
}

impl serde::ser::Error for FieldsError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        // The value is the caller's own, so the message may show it to the caller.
        Self::new(message.to_string())
    }
}

impl serde::de::Error for FieldsError {
    /// The message may quote the payload, so it is not kept.
    fn custom<T: fmt::Display>(_message: T) -> Self {
        Self::new("a value is not valid")
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}"))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}"))
    }

    fn invalid_length(_: usize, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}"))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("expected one of {}", expected.join(", ")))
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown field, expected one of {}", expected.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("missing field `{field}`"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("duplicate field `{field}`"))
    }
}

const NAME_CHARACTERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use crate::model::entry::Fields;
    use crate::model::event::Payload;
    use crate::model::event::codec::{decode, encode_fields};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Everything {
        text: String,
        signed: i64,
        unsigned: u64,
        float: f64,
        yes: bool,
        letter: char,
        present: Option<u32>,
        absent: Option<u32>,
        plain: Plain,
        list: Vec<u8>,
        nested: Option<Nested>,
        choice: Choice,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Plain {
        FirstOne,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Nested {
        inner: String,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Choice {
        Weight(u32),
    }

    fn everything() -> Everything {
        Everything {
            text: "a\nb".into(),
            signed: i64::MIN,
            unsigned: u64::MAX,
            float: 0.1,
            yes: true,
            letter: 'é',
            present: Some(0),
            absent: None,
            plain: Plain::FirstOne,
            list: vec![1, 2],
            nested: Some(Nested { inner: "x".into() }),
            choice: Choice::Weight(3),
        }
    }

    fn read<T: serde::de::DeserializeOwned>(fields: &Fields) -> Result<T, String> {
        decode(Payload::Fields(fields)).map_err(|error| error.to_string())
    }

    fn fields(pairs: &[(&'static str, &'static str)]) -> Fields {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn every_kind_of_value_comes_back_and_nested_ones_are_json() {
        let written = encode_fields(&everything()).unwrap();
        let text = |name: &str| {
            let found = written.iter().find(|(field, _)| field == name.as_bytes());
            found.map(|(_, value)| String::from_utf8(value.to_vec()).unwrap())
        };
        assert_eq!(text("signed").as_deref(), Some("-9223372036854775808"));
        assert_eq!(
            (text("yes").as_deref(), text("plain").as_deref()),
            (Some("true"), Some("first-one"))
        );
        assert_eq!((text("absent"), text("list").as_deref()), (None, Some("[1,2]")));
        assert_eq!(text("nested").as_deref(), Some(r#"{"inner":"x"}"#));
        assert_eq!(read::<Everything>(&written), Ok(everything()));
    }

    #[test]
    fn unknown_fields_are_ignored_and_the_envelope_is_not_payload() {
        let written = fields(&[("type", "t"), ("inner", "x"), ("ts_ms", "17"), ("sj-id", "e")]);
        assert_eq!(read::<Nested>(&written), Ok(Nested { inner: "x".into() }));
        let map = read::<BTreeMap<String, String>>(&written).unwrap();
        assert_eq!(map.keys().collect::<Vec<_>>(), ["inner", "ts_ms"]);
    }

    #[test]
    fn errors_name_the_field_and_the_expectation_and_never_the_value() {
        let mut canaries = encode_fields(&everything()).unwrap();
        for name in [
            "signed", "unsigned", "float", "yes", "letter", "present", "plain", "list", "nested",
            "choice",
        ] {
            let place = canaries.iter().position(|(field, _)| field == name).unwrap();
            let before = std::mem::replace(&mut canaries[place].1, "canary".into());
            let error = read::<Everything>(&canaries).unwrap_err();
            assert!(error.contains(name) && !error.contains("canary"), "{error}");
            canaries[place].1 = before;
        }
        assert_eq!(read::<Nested>(&fields(&[])), Err("missing field `inner`".into()));
        let twice = fields(&[("inner", "canary"), ("inner", "canary")]);
        assert_eq!(read::<Nested>(&twice), Err("field \"inner\": duplicate field".into()));
        let binary = vec![("inner".into(), Bytes::from_static(b"\xff"))];
        assert!(read::<Nested>(&binary).unwrap_err().contains("UTF-8"));
    }

    #[test]
    fn values_without_named_parts_and_nan_cannot_be_written() {
        assert!(encode_fields(&7).is_err());
        assert!(encode_fields(&vec![1]).is_err());
        assert!(encode_fields(&BTreeMap::from([("x", f64::NAN)])).is_err());
        assert!(encode_fields(&BTreeMap::from([(vec![1], "x")])).is_err());
        assert!(encode_fields(&BTreeMap::from([("x", [f64::NAN])])).is_err());
    }

    #[test]
    fn a_payload_with_too_many_fields_cannot_be_written() {
        let wide = |fields: usize| {
            let map = (0..fields).map(|number| (number.to_string(), number));
            encode_fields(&map.collect::<BTreeMap<_, _>>())
        };
        assert_eq!(wide(64).unwrap().len(), 64);
        let nothing = (0..200).map(|number| (number.to_string(), (number < 64).then_some(number)));
        let mostly = encode_fields(&nothing.collect::<BTreeMap<_, _>>());
        assert_eq!(mostly.unwrap().len(), 64, "`None` has no field");
        let error = wide(65).unwrap_err();
        let text = format!("{:?}", std::error::Error::source(&error));
        assert!(text.contains("at most 64 fields"), "{text}");
    }

    #[test]
    fn names_of_the_envelope_cannot_be_written() {
        for name in ["type", "data", "sj-id", "sj-attempt", "sj-"] {
            let error = encode_fields(&BTreeMap::from([(name, "canary")])).unwrap_err();
            let text = format!("{:?}", std::error::Error::source(&error));
            assert!(text.contains(name) && !text.contains("canary"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_survives(map: BTreeMap<String, String>) {
            let map = map.into_iter().filter(|(name, _)| !super::super::envelope::is_reserved(name.as_bytes()));
            let map = map.take(64).collect::<BTreeMap<_, _>>();
            let written = encode_fields(&map).unwrap();
            prop_assert_eq!(read::<BTreeMap<String, String>>(&written), Ok(map));
        }

        #[test]
        fn no_fields_make_reading_panic(pairs: Vec<(Vec<u8>, Vec<u8>)>) {
            let written = pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            let _either = read::<Everything>(&written).is_ok();
        }
    }
}
