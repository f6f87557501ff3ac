//! The payload and the past attempts as JSON for searching. A redrive uses the original bytes instead.

use bytes::Bytes;
use serde_json::{Map, Number, Value};
use streamjobs::dead_letter::AttemptHistory;

/// The payload as JSON text that every `jsonb` column accepts; `None` if there is no such text.
///
/// It is parsed and serialized again, since Postgres refuses JSON that other parsers accept: NUL in
/// a string, half of a surrogate pair, numbers out of range, deep nesting. The parser here refuses
/// all of them except NUL. If an object has a name twice, the last value counts; integers beyond 64
/// bits are rounded.
pub(super) fn json(fields: &[(Bytes, Bytes)]) -> Option<String> {
    let data = fields.iter().find(|(name, _)| name == DATA).map(|(_, data)| data);
    let value = match data {
        Some(data) if data.len() > BYTES_MAX => return None,
        Some(data) => serde_json::from_slice::<Value>(data).ok()?,
        None => flat(fields)?,
    };
    if !fits(&value) {
        return None;
    }
    serde_json::to_string(&value).ok().filter(|text| text.len() <= BYTES_MAX)
}

/// The past attempts of a job as an array that every `jsonb` column accepts; `None` without any.
pub(super) fn history(history: &AttemptHistory) -> Option<String> {
    let lines = history.as_text().lines().map(serde_json::from_str);
    let value = Value::Array(lines.collect::<Result<_, _>>().ok()?);
    (!history.is_empty() && fits(&value)).then(|| value.to_string())
}

/// A payload of flat fields as an object of strings.
fn flat(fields: &[(Bytes, Bytes)]) -> Option<Value> {
    let payload = fields.iter().filter(|(name, _)| name != TYPE && !name.starts_with(PREFIX));
    let mut object = Map::new();
    let mut bytes = 0;
    for (name, value) in payload {
        bytes += name.len() + value.len();
        if bytes > BYTES_MAX {
            return None;
        }
        let (name, value) = (std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?);
        object.insert(name.to_owned(), value.into());
    }
    (!object.is_empty()).then_some(Value::Object(object))
}

fn fits(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) => true,
        Value::Number(number) => is_small(number),
        Value::String(text) => !text.contains('\0'),
        Value::Array(values) => values.iter().all(fits),
        Value::Object(values) => {
            values.iter().all(|(name, value)| !name.contains('\0') && fits(value))
        }
    }
}

/// Whether Postgres accepts the number. With the feature `arbitrary_precision` of `serde_json`,
/// which an application may turn on, the parser accepts numbers of any size.
fn is_small(number: &Number) -> bool {
    number.is_i64()
        || number.is_u64()
        || number.as_f64().is_some_and(f64::is_finite) && number.to_string().len() <= DIGITS_MAX
}

const TYPE: &str = "type";
const DATA: &str = "data";
const PREFIX: &[u8] = b"sj-";
/// The largest payload that is stored as JSON.
const BYTES_MAX: usize = 1 << 20;
/// The longest text of a number that is accepted. A number of 64 bits has at most about 330 bytes.
const DIGITS_MAX: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&str, &[u8])]) -> Vec<(Bytes, Bytes)> {
        let bytes = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        fields.iter().map(|(name, value)| (bytes(name.as_bytes()), bytes(value))).collect()
    }

    fn of_data(data: &[u8]) -> Option<String> {
        json(&fields(&[("type", b"t"), ("data", data), ("sj-id", b"e")]))
    }

    #[test]
    fn valid_json_is_serialized_again() {
        assert_eq!(of_data(b" {\"a\" : [1, -2.5, null]} ").unwrap(), r#"{"a":[1,-2.5,null]}"#);
        assert_eq!(of_data(br#"{"a":1,"a":2}"#).unwrap(), r#"{"a":2}"#);
        assert_eq!(of_data(br#""\u00e9\ud83d\ude00""#).unwrap(), "\"é😀\"");
        assert_eq!(of_data(b"18446744073709551616").unwrap(), "1.8446744073709552e+19");
        assert!(of_data(br#""\\u0000""#).is_some(), "a backslash and a word is no NUL");
    }

    #[test]
    fn what_postgres_would_refuse_has_no_view() {
        let deep = [&[b'['; 200][..], &[b']'; 200]].concat();
        let big = [&b"\""[..], &vec![b'x'; BYTES_MAX], b"\""].concat();
        let bad: [&[u8]; 11] = [
            b"",
            b"{\"a\":",
            b"1 2",
            br#""\u0000""#,
            br#"{"\u0000":1}"#,
            br#""\ud800""#,
            b"\"\xff\"",
            b"1e200000",
            b"\"\0\"",
            &deep,
            &big,
        ];
        for data in bad {
            assert_eq!(of_data(data), None, "{:?}", data.get(..20));
        }
    }

    #[test]
    fn flat_fields_are_an_object_of_strings() {
        let flat = fields(&[("type", b"t"), ("amount", b"4.50"), ("sj-id", b"e"), ("a", b"")]);
        assert_eq!(json(&flat).unwrap(), r#"{"a":"","amount":"4.50"}"#);
        assert_eq!(json(&fields(&[("type", b"t"), ("a", b"\xff")])), None);
        assert_eq!(json(&fields(&[("type", b"t"), ("a", b"\0")])), None);
        assert_eq!(json(&fields(&[("type", b"t"), ("sj-id", b"e")])), None, "no payload, no view");
        assert_eq!(json(&[]), None);
    }
}
