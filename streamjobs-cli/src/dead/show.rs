//! One dead letter as text and as JSON.

use std::io;

use serde_json::{Value, json};
use streamjobs::EntryId;
use streamjobs::dead_letter::{DeadLetter, DeadLetterSummary};

use crate::output::{Output, time};
use crate::{attempts, fields};

/// All details of a letter, including its payload.
pub(super) fn show(letter: &DeadLetter, output: &mut Output) -> io::Result<()> {
    if output.is_json() {
        let mut document = summary(&letter.summary());
        if let Value::Object(document) = &mut document {
            document.insert("history".to_owned(), attempts::document(&letter.history));
            document.insert("fields".to_owned(), fields::document(&letter.fields));
        }
        return output.document(&document);
    }
    let shown = |id: Option<EntryId>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let at = |milliseconds: Option<u64>| milliseconds.map_or_else(|| "-".to_owned(), time);
    let text = |text: Option<&str>| text.unwrap_or("-").to_owned();
    output.pairs([
        ("id", letter.address().to_string()),
        ("dead-lettered", time(letter.id.milliseconds())),
        ("reason", letter.reason.as_str().to_owned()),
        ("error", text(letter.error.as_deref())),
        ("attempts", letter.attempts.to_string()),
        ("deliveries", letter.delivery_count.to_string()),
        ("last entry", shown(letter.entry_id)),
        ("original entry", shown(letter.origin)),
        ("event id", text(letter.event_id.as_ref().map(AsRef::as_ref))),
        ("first delivered", at(letter.first_delivery)),
        ("last delivered", at(letter.last_delivery)),
        ("consumer", text(letter.consumer.as_deref())),
    ])?;
    fields::print("field ", &letter.fields, output)?;
    attempts::print("attempts", &letter.history, output)
}

/// The details of a letter without its payload.
pub(super) fn summary(letter: &DeadLetterSummary) -> Value {
    let id = |id: Option<EntryId>| id.map(|id| id.to_string());
    json!({
        "id": letter.address().to_string(),
        "dead_lettered_ms": letter.id.milliseconds(),
        "reason": letter.reason.as_str(),
        "error": letter.error,
        "type": letter.event_type,
        "attempts": letter.attempts,
        "deliveries": letter.delivery_count,
        "entry": id(letter.entry_id),
        "origin": id(letter.origin),
        "event_id": letter.event_id.as_ref().map(AsRef::<str>::as_ref),
        "first_delivery_ms": letter.first_delivery,
        "last_delivery_ms": letter.last_delivery,
        "consumer": letter.consumer,
        "payload_bytes": letter.payload_bytes,
    })
}
