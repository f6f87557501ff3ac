//! Renders the fields of entries: payloads are redacted, exact, and escaped.

use std::fmt;
use std::sync::Arc;

use axum::body::Bytes;
use maud::{Markup, html};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::access::Access;
use crate::format::{Untrusted, beginning, visible};

/// The event whose payload a redactor is called for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Shown<'a> {
    /// The stream that it was published to.
    pub stream: &'a str,
    /// The event type, if the entry has one.
    pub event_type: Option<&'a str>,
}

type Redact = dyn Fn(&Shown<'_>, &mut Value) + Send + Sync;

/// Removes confidential parts of payloads.
#[derive(Clone, Default)]
pub(crate) struct Redactor(Option<Arc<Redact>>);

impl Redactor {
    pub(crate) fn new(redact: impl Fn(&Shown<'_>, &mut Value) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(redact)))
    }

    /// The fields of an entry. Without permission to see payloads, only the framework's own fields.
    pub(crate) fn show(&self, access: &Access, stream: &str, fields: &[(Bytes, Bytes)]) -> Markup {
        let fields = fields.iter().map(|(name, value)| (String::from_utf8_lossy(name), value));
        let (own, payload) = fields.partition::<Vec<_>, _>(|(name, _)| is_framework(name));
        let event_type = own.iter().find(|(name, _)| name == "type").map(|(_, value)| value);
        let event_type = event_type.and_then(|value| std::str::from_utf8(value).ok());
        html! {
            dl.fields {
                @for (name, value) in &own {
                    dt { (Untrusted(name)) }
                    dd { (Untrusted(&cut(&String::from_utf8_lossy(value)))) }
                }
                @if !access.sees_payloads() {
                    dt { "payload" }
                    dd.unknown { "You do not have permission to see payloads." }
                } @else {
                    @for (name, value) in &payload {
                        dt { (Untrusted(name)) }
                        dd { pre { (self.value(&Shown { stream, event_type }, name, value)) } }
                    }
                }
            }
        }
    }

    /// One field of a payload.
    fn value(&self, shown: &Shown<'_>, name: &str, value: &[u8]) -> String {
        let text = String::from_utf8_lossy(value);
        let Some(redact) = &self.0 else { return visible(&cut(&pretty(&text))) };
        // A flat field is passed as an object with one member, so that one redactor fits both encodings.
        let mut payload = if name == "data" {
            match serde_json::from_slice::<Value>(value) {
                Ok(payload) => payload,
                // What cannot be parsed cannot be redacted.
                Err(_) => {
                    return "not shown: the payload is not JSON and cannot be redacted".to_owned();
                }
            }
        } else {
            Value::Object(
                [(name.to_owned(), Value::String(text.into_owned()))].into_iter().collect(),
            )
        };
        redact(shown, &mut payload);
        let left = if name == "data" { Some(&payload) } else { payload.get(name) };
        match left {
            Some(Value::String(text)) if name != "data" => visible(&cut(text)),
            Some(value) => visible(&cut(&pretty(&value.to_string()))),
            None => "redacted".to_owned(),
        }
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Redactor").field(&self.0.is_some()).finish()
    }
}

fn is_framework(name: &str) -> bool {
    name == "type" || name.starts_with("sj-")
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

/// Bytes of one value that a page shows.
const SHOWN_MAX: usize = 16 * 1024;
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
    fn a_long_value_is_cut_at_a_character() {
        let long = "é".repeat(SHOWN_MAX);
        let cut = cut(&long);
        assert!(cut.ends_with(&format!("… {} bytes in total", 2 * SHOWN_MAX)));
        assert!(cut.len() < SHOWN_MAX + 40);
    }
}
