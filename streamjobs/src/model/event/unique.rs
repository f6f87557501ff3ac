//! The parts of an event that decide whether two publications count as the same.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;

use crate::model::event::{EncodeError, json};

/// The fields of an event that decide whether two publications count as the same, as `#[event(unique = "doc")]` names
/// them.
///
/// `#[derive(Event)]` makes them. An event that implements the trait by hand makes them in
/// [`Event::unique`](crate::Event::unique):
///
/// ```
/// # use streamjobs::unique::UniqueFields;
/// # struct Import { doc: u64, version: u32 }
/// # impl Import {
/// fn unique(&self) -> Result<Option<UniqueFields>, streamjobs::EncodeError> {
///     let fields = UniqueFields::new().field("doc", &self.doc)?.field("version", &self.version)?;
///     Ok(Some(fields))
/// }
/// # }
/// # assert!(Import { doc: 7, version: 1 }.unique()?.is_some());
/// # Ok::<(), streamjobs::EncodeError>(())
/// ```
///
/// `Debug` does not show the values.
#[derive(Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct UniqueFields {
    parts: BytesMut,
    count: usize,
}

impl UniqueFields {
    /// No fields yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field. Its name, its value and its position all matter.
    ///
    /// The value counts as its type's `Serialize` writes it, in JSON; the order of the keys of a map makes no
    /// difference.
    ///
    /// # Errors
    ///
    /// When the value cannot be JSON: a number that is not finite, a map whose keys are not strings.
    pub fn field<T: Serialize + ?Sized>(
        mut self,
        name: &str,
        value: &T,
    ) -> Result<Self, EncodeError> {
        let text = json::to_bytes(value)
            .map_err(|error| EncodeError { encoding: "JSON", source: error.into() })?;
        put_part(&mut self.parts, name.as_bytes());
        put_part(&mut self.parts, &in_order(&text));
        self.count += 1;
        Ok(self)
    }

    /// The parts, each with its length in front; `None` without any field.
    pub(crate) fn parts(self) -> Option<Bytes> {
        (self.count > 0).then(|| self.parts.freeze())
    }
}

impl std::fmt::Debug for UniqueFields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UniqueFields").field("count", &self.count).finish_non_exhaustive()
    }
}

/// Adds a part. The length in front of each makes the concatenation unambiguous.
pub(crate) fn put_part(parts: &mut BytesMut, part: &[u8]) {
    parts.put_u64(u64::try_from(part.len()).unwrap_or(u64::MAX));
    parts.put_slice(part);
}

/// The same JSON with the members of each object in the order of their keys. A map of the standard library
/// has another order in each process.
fn in_order(text: &[u8]) -> Vec<u8> {
    let mut ordered = Vec::with_capacity(text.len());
    let mut rest = text;
    value(&mut rest, &mut ordered);
    ordered
}

/// Takes one value of the text, which serde_json wrote: it has no spaces.
fn value(rest: &mut &[u8], out: &mut Vec<u8>) {
    match rest.first() {
        Some(b'{') => object(rest, out),
        Some(b'[') => {
            out.push(b'[');
            step(rest);
            while !matches!(rest.first(), None | Some(b']')) {
                value(rest, out);
                if rest.first() == Some(&b',') {
                    out.push(b',');
                    step(rest);
                }
            }
            out.push(b']');
            step(rest);
        }
        Some(b'"') => out.extend_from_slice(string(rest)),
        _ => {
            let end = rest.iter().position(|byte| matches!(byte, b',' | b']' | b'}'));
            let (plain, after) = rest.split_at(end.unwrap_or(rest.len()));
            out.extend_from_slice(plain);
            *rest = after;
        }
    }
}

fn object(rest: &mut &[u8], out: &mut Vec<u8>) {
    let mut members = Vec::new();
    step(rest);
    while !matches!(rest.first(), None | Some(b'}')) {
        let mut member = string(rest).to_vec();
        let name = member.len();
        member.push(b':');
        // The colon.
        step(rest);
        value(rest, &mut member);
        members.push((name, member));
        if rest.first() == Some(&b',') {
            step(rest);
        }
    }
    step(rest);
    members.sort_by(|(a_name, a), (b_name, b)| a.get(..*a_name).cmp(&b.get(..*b_name)));
    let members = members.into_iter().map(|(_, member)| member).collect::<Vec<_>>();
    out.push(b'{');
    out.extend_from_slice(&members.join(&b','));
    out.push(b'}');
}

/// Takes a string with its quotes.
fn string<'t>(rest: &mut &'t [u8]) -> &'t [u8] {
    let mut is_escaped = false;
    let closes = |byte: &u8| {
        let closes = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        closes
    };
    let end = rest.iter().skip(1).position(closes).map_or(rest.len(), |end| end + 2);
    let (text, after) = rest.split_at(end);
    *rest = after;
    text
}

fn step(rest: &mut &[u8]) {
    *rest = rest.get(1..).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::*;

    fn ordered(text: &str) -> String {
        String::from_utf8(in_order(text.as_bytes())).unwrap()
    }

    #[test]
    fn members_are_put_in_order_at_any_depth_and_nothing_else_is_changed() {
        for text in ["1", "-1.5e3", "null", "[]", "{}", r#""a\"b\\""#, r#"[{"a":1},"x",[2,3]]"#] {
            assert_eq!(ordered(text), text);
        }
        let mixed = r#"{"b":{"z":[{"y":1,"x":"}\",{"}],"a":2},"a\"":0,"a":340282366920938463463374607431768211455}"#;
        let expected = r#"{"a":340282366920938463463374607431768211455,"a\"":0,"b":{"a":2,"z":[{"x":"}\",{","y":1}]}}"#;
        assert_eq!(ordered(mixed), expected);
    }

    #[test]
    fn names_values_and_places_of_fields_count() {
        let of = |pairs: &[(&str, &str)]| {
            let mut fields = UniqueFields::new();
            for (name, value) in pairs {
                fields = fields.field(name, value).unwrap();
            }
            fields.parts()
        };
        let all = [
            of(&[("a", "b"), ("c", "d")]),
            of(&[("c", "d"), ("a", "b")]),
            of(&[("a", "bc"), ("", "d")]),
            of(&[("a", "b")]),
            of(&[]),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(all.iter().skip(place + 1).all(|other| other != one), "{place}");
        }
        assert_eq!(of(&[]), None);
        let tree = BTreeMap::from([("a", 1), ("b", 2), ("c", 3)]);
        let hashed = HashMap::from([("b", 2), ("c", 3), ("a", 1)]);
        let parts = |fields: UniqueFields| fields.parts();
        let tree = parts(UniqueFields::new().field("m", &tree).unwrap());
        assert_eq!(tree, parts(UniqueFields::new().field("m", &hashed).unwrap()));
        assert!(UniqueFields::new().field("x", &f64::NAN).is_err());
    }

    #[test]
    fn debug_shows_no_value() {
        let fields = UniqueFields::new().field("x", "canary").unwrap();
        assert!(!format!("{fields:?}").contains("canary"));
    }
}
