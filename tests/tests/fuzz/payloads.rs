//! Payloads as `#[derive(Event)]` reads them: JSON text and flat fields.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use streamjobs::Event;
use streamjobs::Payload;

use crate::fuzzer::{FenceResult, fuzz};
use crate::{fields_of, quotes_nothing};

/// One field of each kind that a payload can have.
#[derive(Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Wide {
    id: String,
    count: u64,
    change: i64,
    price: f64,
    sign: char,
    paid: bool,
    note: Option<String>,
    lines: Vec<String>,
    marks: BTreeMap<String, i32>,
    kind: Kind,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Plain,
    Gift { to: String },
}

/// As [`Wide`], written as flat fields.
#[derive(Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.flat", encoding = "fields")]
struct Flat {
    id: String,
    count: u64,
    price: f64,
    paid: bool,
    note: Option<String>,
    lines: Vec<String>,
    kind: Kind,
}

/// Variants by their event types.
#[derive(Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(stream = "orders")]
enum Any {
    #[event(type = "any.placed")]
    Placed { id: String, count: i32 },
    #[event(type = "any.closed")]
    Closed,
}

/// Reads an event, and what is written of it again.
fn again<E: Event + PartialEq + std::fmt::Debug>(
    event_type: &str,
    payload: Payload<'_>,
) -> FenceResult {
    let event = match E::decode(event_type, payload) {
        Ok(event) => event,
        Err(error) => {
            let text = error.to_string();
            quotes_nothing(&text)?;
            if text.len() > 10_000 {
                return Err(format!("an error of {} bytes", text.len()));
            }
            return Ok(text.chars().filter(|letter| !letter.is_ascii_digit()).take(80).collect());
        }
    };
    let fields = event.encode().map_err(|error| format!("read, and not to be written: {error}"))?;
    let data = fields.iter().find(|(name, _)| name == "data").map(|(_, value)| value.clone());
    let payload = data.as_ref().map_or(Payload::Fields(&fields), |data| Payload::Json(data));
    match E::decode(event_type, payload) {
        Ok(second) if second == event => Ok("read".to_owned()),
        Ok(second) => Err(format!("{event:?} came back as {second:?}")),
        Err(error) => Err(format!("{event:?} cannot be read again: {error}")),
    }
}

#[test]
fn json_is_read_again_as_it_was_written_and_errors_quote_nothing() {
    fuzz("json", |input| {
        let wide = again::<Wide>("order.placed", Payload::Json(input))?;
        let placed = again::<Any>("any.placed", Payload::Json(input))?;
        let closed = again::<Any>("any.closed", Payload::Json(input))?;
        Ok(format!("{wide};{placed};{closed}"))
    });
}

#[test]
fn flat_fields_are_read_again_as_they_were_written_and_errors_quote_nothing() {
    fuzz("flat-fields", |input| {
        let fields = fields_of(input);
        // The names are the writer's own and may be shown.
        let named = fields
            .iter()
            .any(|(name, _): &(Bytes, Bytes)| name.windows(6).any(|part| part == b"canary"));
        if named {
            return Ok("names".to_owned());
        }
        let flat = again::<Flat>("order.flat", Payload::Fields(&fields))?;
        let placed = again::<Any>("any.placed", Payload::Fields(&fields))?;
        Ok(format!("{flat};{placed}"))
    });
}
