//! What events hold, as it is shown: redacted, exact, and as text.

use std::fmt;
use std::sync::Arc;

use axum::body::Bytes;
use maud::{Markup, html};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::access::Access;
use crate::format::{Foreign, visible};

/// An event whose payload is about to be shown: for a redactor.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Shown<'a> {
    /// The stream that it was published to.
    pub stream: &'a str,
    /// The event type, if it says one.
    pub event_type: Option<&'a str>,
}

type Redact = dyn Fn(&Shown<'_>, &mut Value) + Send + Sync;

/// Takes out of payloads what nobody is to see.
#[derive(Clone, Default)]
pub(crate) struct Redactor(Option<Arc<Redact>>);

impl Redactor {
    pub(crate) fn new(redact: impl Fn(&Shown<'_>, &mut Value) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(redact)))
    }

    /// The fields of an entry for somebody who may or may not see payloads.
    pub(crate) fn show(&self, access: &Access, stream: &str, fields: &[(Bytes, Bytes)]) -> Markup {
        let fields = fields.iter().map(|(name, value)| (String::from_utf8_lossy(name), value));
        let (own, payload) = fields.partition::<Vec<_>, _>(|(name, _)| is_framework(name));
        let event_type = own.iter().find(|(name, _)| name == "type").map(|(_, value)| value);
        let event_type = event_type.and_then(|value| std::str::from_utf8(value).ok());
        html! {
            dl.fields {
                @for (name, value) in &own {
                    dt { (Foreign(name)) }
                    dd { (Foreign(&cut(&String::from_utf8_lossy(value)))) }
                }
                @if !access.sees_payloads() {
                    dt { "payload" }
                    dd.unknown { "You may not see payloads here." }
                } @else {
                    @for (name, value) in &payload {
                        dt { (Foreign(name)) }
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
        // A flat field is handed over under its name, so that one redactor does for both layouts.
        let mut payload = if name == "data" {
            match serde_json::from_slice::<Value>(value) {
                Ok(payload) => payload,
                // What cannot be read cannot be redacted.
                Err(_) => return "not JSON, so it cannot be redacted, and is not shown".to_owned(),
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

/// JSON over several lines, digit for digit as it was written; anything else as it is.
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

/// The beginning of a long text, and how long it is.
pub(crate) fn cut(text: &str) -> String {
    if text.len() <= SHOWN_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(SHOWN_MAX);
    format!("{}\n… {} bytes in all", text.get(..end).unwrap_or_default(), text.len())
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
    fn json_is_laid_out_digit_for_digit() {
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
    fn payloads_are_for_those_who_may_see_them() {
        let pairs = [("type", "order.placed"), ("data", "{\"card\":\"canary\"}"), ("sj-id", "e-1")];
        let (redactor, access) = (Redactor::default(), Access::read_only("alice"));
        let blind = shown(&redactor, &access, &pairs);
        assert!(blind.contains("order.placed") && blind.contains("e-1"), "{blind}");
        assert!(!blind.contains("canary"), "{blind}");
        assert!(shown(&redactor, &access.payloads(), &pairs).contains("canary"));
    }

    #[test]
    fn what_is_redacted_is_in_neither_layout() {
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
    fn a_long_value_is_cut_on_a_character() {
        let long = "é".repeat(SHOWN_MAX);
        let cut = cut(&long);
        assert!(cut.ends_with(&format!("… {} bytes in all", 2 * SHOWN_MAX)));
        assert!(cut.len() < SHOWN_MAX + 40);
    }
}
