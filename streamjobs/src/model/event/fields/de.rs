//! Decoding flat fields.

use std::collections::HashSet;
use std::str::FromStr;

use bytes::Bytes;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};

use super::FieldsError;
use crate::model::event::envelope::is_payload;
use crate::model::event::json::described;

/// The flat payload of an entry.
pub(in crate::model::event) struct FieldsDeserializer<'a> {
    fields: &'a [(Bytes, Bytes)],
}

impl<'a> FieldsDeserializer<'a> {
    /// Checks the names. Two values for one name are ambiguous, so they are refused.
    pub(in crate::model::event) fn new(fields: &'a [(Bytes, Bytes)]) -> Result<Self, FieldsError> {
        let mut names = HashSet::new();
        for (name, _) in fields.iter().filter(|(name, _)| is_payload(name)) {
            if !names.insert(name) {
                let shown = String::from_utf8_lossy(name);
                return Err(FieldsError::new("duplicate field").in_field(&shown));
            }
        }
        Ok(Self { fields })
    }
}

/// What is read alike as a whole payload and as a field: an option is present, and a unit needs no
/// value.
macro_rules! wrappers_and_units {
    () => {
        fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldsError> {
            visitor.visit_some(self)
        }

        fn deserialize_newtype_struct<V: Visitor<'de>>(
            self,
            _name: &'static str,
            visitor: V,
        ) -> Result<V::Value, FieldsError> {
            visitor.visit_newtype_struct(self)
        }

        fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldsError> {
            visitor.visit_unit()
        }

        fn deserialize_unit_struct<V: Visitor<'de>>(
            self,
            _name: &'static str,
            visitor: V,
        ) -> Result<V::Value, FieldsError> {
            visitor.visit_unit()
        }

        fn deserialize_ignored_any<V: Visitor<'de>>(
            self,
            visitor: V,
        ) -> Result<V::Value, FieldsError> {
            visitor.visit_unit()
        }
    };
}

impl<'de> Deserializer<'de> for FieldsDeserializer<'de> {
    type Error = FieldsError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldsError> {
        visitor.visit_map(FieldAccess { rest: self.fields.iter(), value: None })
    }

    wrappers_and_units!();

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf seq
        tuple tuple_struct map struct enum identifier
    }
}

/// Gives serde one field after another.
struct FieldAccess<'a> {
    rest: std::slice::Iter<'a, (Bytes, Bytes)>,
    value: Option<(&'a str, &'a Bytes)>,
}

impl<'de> MapAccess<'de> for FieldAccess<'de> {
    type Error = FieldsError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, FieldsError> {
        // A part of an event always has a UTF-8 name.
        let part = |(name, value): &'de (Bytes, Bytes)| {
            std::str::from_utf8(name).ok().filter(|_| is_payload(name)).map(|name| (name, value))
        };
        let Some((name, value)) = self.rest.find_map(part) else { return Ok(None) };
        self.value = Some((name, value));
        seed.deserialize(StrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, FieldsError> {
        let (name, value) =
            self.value.take().ok_or_else(|| FieldsError::new("a value without a name"))?;
        seed.deserialize(Value(value)).map_err(|error| error.in_field(name))
    }
}

/// The value of one field.
struct Value<'a>(&'a Bytes);

impl<'a> Value<'a> {
    fn text(&self) -> Result<&'a str, FieldsError> {
        std::str::from_utf8(self.0).map_err(|_| FieldsError::new("expected UTF-8 text"))
    }

    fn parsed<T: FromStr>(&self, expected: &str) -> Result<T, FieldsError> {
        self.text()?.parse().map_err(|_| FieldsError::new(format!("expected {expected}")))
    }

    fn finite(&self) -> Result<f64, FieldsError> {
        let number = self.parsed::<f64>("a number")?;
        number.is_finite().then_some(number).ok_or_else(|| FieldsError::new(FINITE))
    }

    /// Through a number of twice the size, a few would be rounded twice, and what is too large would be infinite.
    fn finite_f32(&self) -> Result<f32, FieldsError> {
        let number = self.parsed::<f32>("a number")?;
        number.is_finite().then_some(number).ok_or_else(|| FieldsError::new(FINITE))
    }

    /// Whether the field is JSON with parts, as a nested part is written.
    fn is_nested(&self) -> bool {
        let may_be = self.0.starts_with(b"{") || self.0.starts_with(b"[");
        may_be && serde_json::from_slice::<IgnoredAny>(self.0).is_ok()
    }

    /// Reads the field as JSON.
    fn nested<T>(
        &self,
        read: impl FnOnce(
            &mut serde_json::Deserializer<serde_json::de::SliceRead<'a>>,
        ) -> Result<T, serde_json::Error>,
    ) -> Result<T, FieldsError> {
        let failure = |error: serde_json::Error| FieldsError::new(described(&error));
        let mut deserializer = serde_json::Deserializer::from_slice(self.0);
        let value = read(&mut deserializer).map_err(failure)?;
        deserializer.end().map_err(failure)?;
        Ok(value)
    }
}

macro_rules! read {
    ($($method:ident => $visit:ident($read:ident($($expected:literal)?));)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldsError> {
            visitor.$visit(self.$read($($expected)?)?)
        })*
    };
}

impl<'de> Deserializer<'de> for Value<'de> {
    type Error = FieldsError;

    wrappers_and_units!();

    read! {
        deserialize_bool => visit_bool(parsed("true or false"));
        deserialize_i8 => visit_i8(parsed("a number (i8)"));
        deserialize_i16 => visit_i16(parsed("a number (i16)"));
        deserialize_i32 => visit_i32(parsed("a number (i32)"));
        deserialize_i64 => visit_i64(parsed("a number (i64)"));
        deserialize_i128 => visit_i128(parsed("a number (i128)"));
        deserialize_u8 => visit_u8(parsed("a number (u8)"));
        deserialize_u16 => visit_u16(parsed("a number (u16)"));
        deserialize_u32 => visit_u32(parsed("a number (u32)"));
        deserialize_u64 => visit_u64(parsed("a number (u64)"));
        deserialize_u128 => visit_u128(parsed("a number (u128)"));
        deserialize_f32 => visit_f32(finite_f32());
        deserialize_f64 => visit_f64(finite());
        deserialize_char => visit_char(parsed("one character"));
        deserialize_str => visit_str(text());
        deserialize_string => visit_str(text());
        deserialize_identifier => visit_str(text());
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldsError> {
        visitor.visit_bytes(self.0)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldsError> {
        visitor.visit_bytes(self.0)
    }

    /// For what describes itself, such as an enum with a tag within: the field does not say of which kind it is. Text that
    /// happens to be a JSON object or array is read as such.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldsError> {
        if self.is_nested() {
            return self.nested(|json| json.deserialize_any(visitor));
        }
        match std::str::from_utf8(self.0) {
            Ok(text) => visitor.visit_str(text),
            Err(_) => visitor.visit_bytes(self.0),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldsError> {
        // A variant with content is JSON; a bare name is a unit variant.
        if self.0.starts_with(b"{") {
            return self.nested(|json| json.deserialize_enum(name, variants, visitor));
        }
        let text = self.text()?;
        if !variants.contains(&text) {
            return Err(FieldsError::unknown_variant(text, variants));
        }
        visitor.visit_enum(text.into_deserializer())
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldsError> {
        self.nested(|json| json.deserialize_seq(visitor))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, FieldsError> {
        self.nested(|json| json.deserialize_tuple(length, visitor))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, FieldsError> {
        self.nested(|json| json.deserialize_tuple_struct(name, length, visitor))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldsError> {
        self.nested(|json| json.deserialize_map(visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldsError> {
        self.nested(|json| json.deserialize_struct(name, fields, visitor))
    }
}

const FINITE: &str = "expected a finite number";
