//! Encoding flat fields.

use bytes::Bytes;
use serde::ser::{Error as _, Impossible, SerializeMap, SerializeStruct};
use serde::{Serialize, Serializer};

use super::FieldsError;
use crate::model::entry::Fields;
use crate::model::event::envelope::{FIELDS_MAX, is_reserved};
use crate::model::event::json;

/// Takes structs and maps; other values have no named parts.
pub(in crate::model::event) struct FieldsSerializer;

/// The fields written so far.
pub(in crate::model::event) struct Writer {
    fields: Fields,
    name: Option<Bytes>,
}

impl Writer {
    fn new(length: usize) -> Self {
        Self { fields: Fields::with_capacity(length), name: None }
    }

    fn push<T: Serialize + ?Sized>(&mut self, name: Bytes, value: &T) -> Result<(), FieldsError> {
        let shown = || String::from_utf8_lossy(&name).into_owned();
        // The derive refuses reserved names in the struct, but cannot see those of maps, or of what a variant holds.
        if is_reserved(&name) {
            return Err(FieldsError::new("this name belongs to the envelope").in_field(&shown()));
        }
        let written = match value.serialize(Scalar) {
            Ok(written) => written,
            Err(NotScalar::Unit) => Some(Bytes::new()),
            Err(NotScalar::Nested) => {
                let json = json::to_bytes(value);
                Some(json.map_err(|error| FieldsError::custom(error).in_field(&shown()))?)
            }
            Err(NotScalar::Refused(error)) => return Err(error.in_field(&shown())),
        };
        let Some(value) = written else { return Ok(()) };
        if self.fields.len() >= FIELDS_MAX {
            return Err(FieldsError::new(format!("an event has at most {FIELDS_MAX} fields")));
        }
        self.fields.push((name, value));
        Ok(())
    }
}

macro_rules! no_names {
    ($($method:ident($($kind:ty),*) -> $result:ty;)*) => {
        $(fn $method(self, $(_: $kind),*) -> Result<$result, FieldsError> {
            Err(FieldsError::new(NO_NAMES))
        })*
    };
}

impl Serializer for FieldsSerializer {
    type Ok = Fields;
    type Error = FieldsError;
    type SerializeSeq = Impossible<Fields, FieldsError>;
    type SerializeTuple = Impossible<Fields, FieldsError>;
    type SerializeTupleStruct = Impossible<Fields, FieldsError>;
    type SerializeTupleVariant = Impossible<Fields, FieldsError>;
    type SerializeMap = Writer;
    type SerializeStruct = Writer;
    type SerializeStructVariant = Impossible<Fields, FieldsError>;

    fn serialize_struct(self, _name: &'static str, length: usize) -> Result<Writer, FieldsError> {
        Ok(Writer::new(length))
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Writer, FieldsError> {
        Ok(Writer::new(length.unwrap_or(0)))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<Fields, FieldsError> {
        value.serialize(self)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<Fields, FieldsError> {
        Ok(Fields::new())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Fields, FieldsError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Result<Fields, FieldsError> {
        Err(FieldsError::new(NO_NAMES))
    }

    no_names! {
        serialize_bool(bool) -> Fields;
        serialize_i8(i8) -> Fields;
        serialize_i16(i16) -> Fields;
        serialize_i32(i32) -> Fields;
        serialize_i64(i64) -> Fields;
        serialize_u8(u8) -> Fields;
        serialize_u16(u16) -> Fields;
        serialize_u32(u32) -> Fields;
        serialize_u64(u64) -> Fields;
        serialize_f32(f32) -> Fields;
        serialize_f64(f64) -> Fields;
        serialize_char(char) -> Fields;
        serialize_str(&str) -> Fields;
        serialize_bytes(&[u8]) -> Fields;
        serialize_none() -> Fields;
        serialize_unit() -> Fields;
        serialize_unit_variant(&'static str, u32, &'static str) -> Fields;
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
    }
}

impl SerializeStruct for Writer {
    type Ok = Fields;
    type Error = FieldsError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), FieldsError> {
        self.push(Bytes::from_static(name.as_bytes()), value)
    }

    fn end(self) -> Result<Fields, FieldsError> {
        Ok(self.fields)
    }
}

impl SerializeMap for Writer {
    type Ok = Fields;
    type Error = FieldsError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), FieldsError> {
        match key.serialize(Scalar) {
            Ok(Some(name)) => self.name = Some(name),
            Ok(None) | Err(NotScalar::Unit | NotScalar::Nested) => {
                return Err(FieldsError::new("a name of a field is not a text"));
            }
            Err(NotScalar::Refused(error)) => return Err(error),
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), FieldsError> {
        let name = self.name.take().ok_or_else(|| FieldsError::new("a value without a name"))?;
        self.push(name, value)
    }

    fn end(self) -> Result<Fields, FieldsError> {
        Ok(self.fields)
    }
}

/// Writes a value that fits into one field; writes nothing for `None`.
struct Scalar;

/// Why a value is not a field by itself.
#[derive(Debug)]
enum NotScalar {
    /// It has no value: its field is empty.
    Unit,
    /// It has parts and is written as JSON.
    Nested,
    /// It cannot be encoded.
    Refused(FieldsError),
}

impl std::fmt::Display for NotScalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not a scalar")
    }
}

impl std::error::Error for NotScalar {}

impl serde::ser::Error for NotScalar {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Refused(FieldsError::new(message.to_string()))
    }
}

macro_rules! as_text {
    ($($method:ident($kind:ty);)*) => {
        $(fn $method(self, value: $kind) -> Result<Option<Bytes>, NotScalar> {
            Ok(Some(value.to_string().into()))
        })*
    };
}

macro_rules! nested {
    ($($method:ident($($kind:ty),*) -> $part:ident;)*) => {
        $(fn $method(self, $(_: $kind),*) -> Result<Self::$part, NotScalar> {
            Err(NotScalar::Nested)
        })*
    };
}

impl Serializer for Scalar {
    type Ok = Option<Bytes>;
    type Error = NotScalar;
    type SerializeSeq = Impossible<Self::Ok, NotScalar>;
    type SerializeTuple = Impossible<Self::Ok, NotScalar>;
    type SerializeTupleStruct = Impossible<Self::Ok, NotScalar>;
    type SerializeTupleVariant = Impossible<Self::Ok, NotScalar>;
    type SerializeMap = Impossible<Self::Ok, NotScalar>;
    type SerializeStruct = Impossible<Self::Ok, NotScalar>;
    type SerializeStructVariant = Impossible<Self::Ok, NotScalar>;

    as_text! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_i128(i128);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_u128(u128);
        serialize_char(char);
    }

    fn serialize_f32(self, value: f32) -> Result<Option<Bytes>, NotScalar> {
        finite(value.is_finite(), value)
    }

    fn serialize_f64(self, value: f64) -> Result<Option<Bytes>, NotScalar> {
        finite(value.is_finite(), value)
    }

    fn serialize_str(self, value: &str) -> Result<Option<Bytes>, NotScalar> {
        Ok(Some(Bytes::copy_from_slice(value.as_bytes())))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Option<Bytes>, NotScalar> {
        Ok(Some(Bytes::copy_from_slice(value)))
    }

    fn serialize_none(self) -> Result<Option<Bytes>, NotScalar> {
        Ok(None)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Option<Bytes>, NotScalar> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Option<Bytes>, NotScalar> {
        Err(NotScalar::Unit)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<Option<Bytes>, NotScalar> {
        Err(NotScalar::Unit)
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<Option<Bytes>, NotScalar> {
        Ok(Some(Bytes::from_static(variant.as_bytes())))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<Option<Bytes>, NotScalar> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Result<Option<Bytes>, NotScalar> {
        Err(NotScalar::Nested)
    }

    nested! {
        serialize_seq(Option<usize>) -> SerializeSeq;
        serialize_tuple(usize) -> SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> SerializeTupleVariant;
        serialize_map(Option<usize>) -> SerializeMap;
        serialize_struct(&'static str, usize) -> SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> SerializeStructVariant;
    }
}

fn finite(is_finite: bool, value: impl ToString) -> Result<Option<Bytes>, NotScalar> {
    if is_finite {
        Ok(Some(value.to_string().into()))
    } else {
        Err(NotScalar::Refused(FieldsError::new("not a finite number")))
    }
}

const NO_NAMES: &str = "only a value with named parts can be written as flat fields";
