//! Tests with flat fields: a part of every kind comes back from its field.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::marker::PhantomData;

use proptest::prelude::*;
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::model::event::Payload;
use crate::model::event::codec::{decode, encode_fields};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct One<T> {
    part: T,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Newtype<T>(T);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Plain {
    First,
    Second { count: u64 },
    Third(f64, bool),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Empty,
    Full { count: u64, ratio: f64, yes: bool },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value")]
enum Adjacent {
    Empty,
    Number(u64),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Full { count: u64 },
    List(Vec<u64>),
    Text(String),
}

/// Bytes that serde writes as such.
#[derive(Debug, PartialEq)]
struct Raw(Vec<u8>);

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Raw;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Raw, E> {
                Ok(Raw(bytes.to_vec()))
            }
        }

        deserializer.deserialize_byte_buf(Bytes)
    }
}

#[track_caller]
fn comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(part: T) {
    let one = One { part };
    let written = encode_fields(&one).unwrap();
    let read = decode::<One<T>>(Payload::Fields(&written)).map_err(|error| error.to_string());
    assert_eq!(read.as_ref(), Ok(&one), "{written:?}");
}

#[test]
fn units_have_an_empty_field_and_come_back() {
    comes_back(());
    comes_back(Unit);
    comes_back(PhantomData::<u64>);
    comes_back(Newtype(()));
    comes_back(Some(()));
    comes_back(None::<()>);
    let written = encode_fields(&One { part: Unit }).unwrap();
    assert_eq!(written, [("part".into(), "".into())]);
    let map = BTreeMap::from([("a".to_owned(), ()), ("b".to_owned(), ())]);
    let written = encode_fields(&map).unwrap();
    assert_eq!(decode::<BTreeMap<String, ()>>(Payload::Fields(&written)).unwrap(), map);
    assert!(encode_fields(&BTreeMap::from([((), "a unit is no name")])).is_err());
}

#[test]
fn what_describes_itself_is_an_object_or_an_array_if_it_is_json_and_else_text() {
    let written = [("a", "{\"n\":1.5}"), ("b", " [true]"), ("c", "[1]"), ("d", "{x"), ("e", "7")];
    let written = written.map(|(name, value)| (name.into(), value.into())).to_vec();
    let read = decode::<BTreeMap<String, Value>>(Payload::Fields(&written)).unwrap();
    let expected = json!({"a": {"n": 1.5}, "b": " [true]", "c": [1], "d": "{x", "e": "7"});
    assert_eq!(serde_json::to_value(read).unwrap(), expected);
}

proptest! {
    #[test]
    fn numbers_come_back(
        signed: (i8, i16, i32, i64, i128),
        unsigned: (u8, u16, u32, u64, u128),
        floats: (f32, f64),
    ) {
        comes_back(signed.0);
        comes_back(signed.1);
        comes_back(signed.2);
        comes_back(signed.3);
        comes_back(signed.4);
        comes_back(unsigned.0);
        comes_back(unsigned.1);
        comes_back(unsigned.2);
        comes_back(unsigned.3);
        comes_back(unsigned.4);
        prop_assume!(floats.0.is_finite() && floats.1.is_finite());
        comes_back(floats.0);
        comes_back(floats.1);
        comes_back(Some(signed.3));
        comes_back(Newtype(unsigned.3));
    }

    #[test]
    fn texts_bytes_and_choices_come_back(
        yes: bool,
        letter: char,
        text: String,
        bytes: Vec<u8>,
        count: u64,
        eighths: i32,
    ) {
        // JSON texts of more digits can be read as the number beside them.
        let ratio = f64::from(eighths) / 8.0;
        comes_back(yes);
        comes_back(letter);
        comes_back(Some(text.clone()));
        comes_back(Raw(bytes.clone()));
        comes_back(Plain::First);
        comes_back(Plain::Second { count });
        comes_back(Plain::Third(ratio, yes));
        comes_back(Tagged::Empty);
        comes_back(Tagged::Full { count, ratio, yes });
        comes_back(Adjacent::Empty);
        comes_back(Adjacent::Number(count));
        comes_back(Untagged::Full { count });
        comes_back(Untagged::List(vec![count]));
        comes_back(Untagged::Text(format!("a {text}")));
        comes_back((yes, count, text.clone(), ()));
        comes_back(bytes);
        comes_back(BTreeMap::from([(text, Some(One { part: ratio }))]));
    }
}
