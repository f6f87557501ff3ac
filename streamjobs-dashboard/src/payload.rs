//! Renders the fields of entries: payloads are redacted, shown exactly, and escaped.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use axum::body::Bytes;
use maud::{Markup, html};
use serde::de::IgnoredAny;
use serde_json::Value;
use streamjobs::stream::FieldPreview;

use crate::access::Access;
use crate::format::{Untrusted, beginning, visible};

/// The event whose payload a redactor gets.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Shown<'a> {
    /// The stream that it was published to.
    pub stream: &'a str,
    /// The event type, if the entry has one.
    pub event_type: Option<&'a str>,
}

type Redact = dyn Fn(&Shown<'_>, &mut Value) + Send + Sync;

/// A field as the server sent it.
struct ShownField<'a> {
    name: Cow<'a, str>,
    /// The value, or its beginning.
    value: &'a [u8],
    /// The length of the whole value.
    bytes: u64,
}

/// Removes confidential parts of payloads.
#[derive(Clone, Default)]
pub(crate) struct Redactor(Option<Arc<Redact>>);

impl Redactor {
    pub(crate) fn new(redact: impl Fn(&Shown<'_>, &mut Value) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(redact)))
    }

    /// The fields of an entry. Without permission to see payloads, only this crate's own fields.
    pub(crate) fn show(&self, access: &Access, stream: &str, fields: &[(Bytes, Bytes)]) -> Markup {
        let fields = fields.iter().map(|(name, value)| ShownField {
            name: String::from_utf8_lossy(name),
            value,
            bytes: value.len() as u64,
        });
        self.show_fields(access, stream, fields)
    }

    /// Like [`show`](Self::show), for an entry of a list. The server has sent only the beginnings
    /// of its values.
    pub(crate) fn show_preview(
        &self,
        access: &Access,
        stream: &str,
        fields: &[FieldPreview],
    ) -> Markup {
        let fields = fields.iter().map(|field| ShownField {
            name: String::from_utf8_lossy(&field.name),
            value: &field.value,
            bytes: field.bytes,
        });
        self.show_fields(access, stream, fields)
    }

    fn show_fields<'a>(
        &self,
        access: &Access,
        stream: &str,
        fields: impl Iterator<Item = ShownField<'a>>,
    ) -> Markup {
        // Errors may quote payloads. Past attempts, which contain errors, are shown in a table of their own.
        let is_shown =
            |name: &str| name != "sj-history" && (access.sees_payloads() || name != "sj-error");
        let fields = fields.filter(|field| is_shown(&field.name));
        let (own, payload) = fields.partition::<Vec<_>, _>(|field| is_framework(&field.name));
        let event_type = own.iter().find(|field| field.name == "type").map(|field| field.value);
        let event_type = event_type.and_then(|value| std::str::from_utf8(value).ok());
        html! {
            dl.fields {
                @for field in &own {
                    dt { (Untrusted(&field.name)) }
                    dd { (Untrusted(&cut(&String::from_utf8_lossy(field.value)))) }
                }
                @if !access.sees_payloads() {
                    dt { "payload" }
                    dd.unknown { "You do not have permission to see payloads." }
                } @else {
                    @for field in &payload {
                        dt { (Untrusted(&field.name)) }
                        dd { pre { (self.value(&Shown { stream, event_type }, field)) } }
                    }
                }
            }
        }
    }

    /// One field of a payload.
    fn value(&self, shown: &Shown<'_>, field: &ShownField<'_>) -> String {
        let (name, value) = (&*field.name, field.value);
        let text = String::from_utf8_lossy(value);
        let is_whole = field.bytes == value.len() as u64;
        let Some(redact) = &self.0 else {
            return match is_whole {
                true => visible(&cut(&pretty(&text))),
                // The value may have been cut within a character.
                false => {
                    let beginning = visible(text.trim_end_matches('\u{fffd}'));
                    format!("{beginning}\n… {} bytes in total", field.bytes)
                }
            };
        };
        if !is_whole {
            return format!(
                "not shown: lists redact values of at most {SHOWN_MAX} bytes, and this has {}",
                field.bytes
            );
        }
        match left(redact, shown, field) {
            Ok(Some(Value::String(text))) if name != "data" => visible(&cut(&text)),
            Ok(Some(value)) => visible(&cut(&pretty(&value.to_string()))),
            Ok(None) => "redacted".to_owned(),
            Err(_) => "not shown: the payload is not JSON and cannot be redacted".to_owned(),
        }
    }

    /// Whether a field contains a text, in the part that the visitor sees.
    pub(crate) fn contains(
        &self,
        access: &Access,
        stream: &str,
        fields: &[FieldPreview],
        text: &str,
    ) -> bool {
        let fields = fields.iter().map(|field| ShownField {
            name: String::from_utf8_lossy(&field.name),
            value: &field.value,
            bytes: field.bytes,
        });
        self.contained(access, stream, &fields.collect::<Vec<_>>(), text)
    }

    fn contained(
        &self,
        access: &Access,
        stream: &str,
        fields: &[ShownField<'_>],
        text: &str,
    ) -> bool {
        let event_type = fields.iter().find(|field| field.name == "type").map(|field| field.value);
        let event_type = event_type.and_then(|value| std::str::from_utf8(value).ok());
        let shown = Shown { stream, event_type };
        fields.iter().any(|field| {
            let value = String::from_utf8_lossy(field.value);
            if is_framework(&field.name) {
                // The same rule as for showing fields.
                let is_hidden = field.name == "sj-history"
                    || field.name == "sj-error" && !access.sees_payloads();
                return !is_hidden && value.contains(text);
            }
            if !access.sees_payloads() {
                return false;
            }
            let Some(redact) = &self.0 else { return value.contains(text) };
            if field.bytes > field.value.len() as u64 {
                return false;
            }
            match left(redact, &shown, field) {
                Ok(Some(Value::String(left))) => left.contains(text),
                Ok(Some(left)) => left.to_string().contains(text),
                Ok(None) | Err(_) => false,
            }
        })
    }
}

/// What a redactor leaves of a whole field, if anything. A payload that is not JSON cannot be redacted.
fn left(
    redact: &Arc<Redact>,
    shown: &Shown<'_>,
    field: &ShownField<'_>,
) -> serde_json::Result<Option<Value>> {
    let name = &*field.name;
    if name == "data" {
        let mut payload = serde_json::from_slice::<Value>(field.value)?;
        redact(shown, &mut payload);
        return Ok(Some(payload));
    }
    // A flat field is passed as an object with one member, so that one redactor fits both encodings.
    let text = String::from_utf8_lossy(field.value).into_owned();
    let mut payload = Value::Object([(name.to_owned(), Value::String(text))].into_iter().collect());
    redact(shown, &mut payload);
    Ok(payload.get(name).cloned())
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Redactor").field(&self.0.is_some()).finish()
    }
}

/// Whether a field is one of streamjobs' own. Headers belong to the application, as its payload does.
fn is_framework(name: &str) -> bool {
    name == "type" || name.starts_with("sj-") && !name.starts_with("sj-header-")
}

/// JSON over several lines, with numbers exactly as written. Other text is unchanged.
pub(crate) fn pretty(text: &str) -> String {
    if !text.trim_start().starts_with(['{', '['])
        || serde_json::from_str::<IgnoredAny>(text).is_err()
    {
        return text.to_owned();
    }
    let (mut lines, mut depth, mut quoted, mut escaped) = (String::new(), 0_usize, false, false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if quoted {
            lines.push(character);
            quoted = escaped || character != '"';
            escaped = character == '\\' && !escaped;
            continue;
        }
        match character {
            '"' => {
                quoted = true;
                lines.push('"');
            }
            '{' | '[' => {
                while characters.next_if(|next| next.is_whitespace()).is_some() {}
                lines.push(character);
                if characters.peek().is_some_and(|next| !matches!(next, '}' | ']')) {
                    depth += 1;
                    new_line(&mut lines, depth);
                }
            }
            '}' | ']' => {
                if !lines.ends_with(['{', '[']) {
                    depth = depth.saturating_sub(1);
                    new_line(&mut lines, depth);
                }
                lines.push(character);
            }
            ',' => {
                lines.push(',');
                new_line(&mut lines, depth);
            }
            ':' => lines.push_str(": "),
            space if space.is_whitespace() => {}
            other => lines.push(other),
        }
    }
    lines
}

fn new_line(lines: &mut String, depth: usize) {
    lines.push('\n');
    lines.push_str(&"  ".repeat(depth.min(DEPTH_SHOWN)));
}

/// The beginning of a long text, with its full length.
pub(crate) fn cut(text: &str) -> String {
    if text.len() <= SHOWN_MAX {
        return text.to_owned();
    }
    format!("{}\n… {} bytes in total", beginning(text, SHOWN_MAX), text.len())
}

/// How many bytes of one value a page shows. A list reads no more of it.
pub(crate) const SHOWN_MAX: usize = 16 * 1024;
const DEPTH_SHOWN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use streamjobs::Fields;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let owned = |text: &str| text.to_owned().into();
        pairs.iter().map(|(name, value)| (owned(name), owned(value))).collect()
    }

    fn shown(redactor: &Redactor, access: &Access, pairs: &[(&str, &str)]) -> String {
        redactor.show(access, "orders", &fields(pairs)).into_string()
    }

    #[test]
    fn json_is_indented_and_its_numbers_stay_exact() {
        let text = r#"{"a":12345678901234567890.10,"b":[],"c":{ },"d":["x, {y}: \"z\\",null]}"#;
        assert_eq!(
            pretty(text),
            "{\n  \"a\": 12345678901234567890.10,\n  \"b\": [],\n  \"c\": {},\n  \"d\": [\n    \
             \"x, {y}: \\\"z\\\\\",\n    null\n  ]\n}"
        );
        for other in ["plain", "{broken", "12", "", "[1,2"] {
            assert_eq!(pretty(other), other);
        }
    }

    #[test]
    fn payloads_need_their_permission() {
        let pairs = [("type", "order.placed"), ("data", "{\"card\":\"canary\"}"), ("sj-id", "e-1")];
        let (redactor, access) = (Redactor::default(), Access::read_only("alice"));
        let without = shown(&redactor, &access, &pairs);
        assert!(without.contains("order.placed") && without.contains("e-1"), "{without}");
        assert!(!without.contains("canary"), "{without}");
        assert!(shown(&redactor, &access.payloads(), &pairs).contains("canary"));
    }

    #[test]
    fn redaction_applies_to_both_encodings() {
        let redactor = Redactor::new(|shown, payload| {
            assert_eq!((shown.stream, shown.event_type), ("orders", Some("paid")));
            if let Some(card) = payload.get_mut("card") {
                *card = json!("…");
            }
            if let Some(object) = payload.as_object_mut() {
                object.remove("pin");
            }
        });
        let access = Access::read_only("alice").payloads();
        let data = [("type", "paid"), ("data", "{\"card\":\"canary\",\"pin\":\"canary\",\"n\":1}")];
        let flat = [("type", "paid"), ("card", "canary"), ("pin", "canary"), ("n", "1")];
        let broken = [("type", "paid"), ("data", "{\"card\":\"canary\"")];
        for pairs in [data.as_slice(), &flat, &broken] {
            let seen = shown(&redactor, &access, pairs);
            assert!(!seen.contains("canary"), "{seen}");
        }
        assert!(shown(&redactor, &access, &flat).contains("redacted"));
    }

    #[test]
    fn only_what_is_seen_can_be_found() {
        let pairs = [
            ("type", "order.placed"),
            ("sj-key", "alice"),
            ("sj-error", "no canary"),
            ("data", "{\"card\":\"4242\",\"n\":1}"),
            ("note", "for 4242"),
        ];
        let fields = |cut: u64| {
            let field = |(name, value): &(&'static str, &'static str)| ShownField {
                name: (*name).into(),
                value: value.as_bytes(),
                bytes: value.len() as u64 + cut,
            };
            pairs.iter().map(field).collect::<Vec<_>>()
        };
        let (blind, seeing) = (Access::read_only("a"), Access::read_only("a").payloads());
        let redactor = Redactor::new(|_, payload| {
            for name in ["card", "note"] {
                if let Some(secret) = payload.get_mut(name) {
                    *secret = json!("…");
                }
            }
        });
        let found = |redactor: &Redactor, access: &Access, cut, text: &str| {
            redactor.contained(access, "orders", &fields(cut), text)
        };
        let plain = Redactor::default();
        for text in ["order.pl", "alice"] {
            assert!(found(&plain, &blind, 0, text) && found(&redactor, &seeing, 9, text), "{text}");
        }
        for text in ["4242", "canary", "\"n\":1", "for"] {
            assert!(!found(&plain, &blind, 0, text) && found(&plain, &seeing, 9, text), "{text}");
        }
        assert!(found(&redactor, &seeing, 0, "\"n\":1"));
        for (cut, text) in [(0, "4242"), (0, "for"), (9, "\"n\":1")] {
            assert!(!found(&redactor, &seeing, cut, text), "{text}");
        }
    }

    #[test]
    fn a_value_that_a_list_has_only_the_beginning_of_is_not_shown_where_it_is_redacted() {
        let cut = |bytes| ShownField { name: "data".into(), value: b"{\"card\":\"canary", bytes };
        let access = Access::read_only("alice").payloads();
        let seen = |redactor: &Redactor| {
            redactor.show_fields(&access, "orders", [cut(20_000)].into_iter()).into_string()
        };
        let plain = seen(&Redactor::default());
        assert!(plain.contains("canary\n… 20000 bytes in total"), "{plain}");
        let redacted = seen(&Redactor::new(|_, _| {}));
        assert!(!redacted.contains("canary"), "{redacted}");
        assert!(redacted.contains("at most 16384 bytes, and this has 20000"), "{redacted}");
    }

    #[test]
    fn a_long_value_is_cut_at_a_character() {
        let long = "é".repeat(SHOWN_MAX);
        let cut = cut(&long);
        assert!(cut.ends_with(&format!("… {} bytes in total", 2 * SHOWN_MAX)));
        assert!(cut.len() < SHOWN_MAX + 40);
    }
}
