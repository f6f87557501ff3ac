//! The row of a dead letter.

use streamjobs::dead_letter::{DeadLetter, Reason};
use streamjobs::{EntryId, Fields};

use super::view;
use crate::time::Timestamp;
use crate::{key, text};

/// A row to write. Every dead letter has a row, whatever an operator may have changed in it.
#[derive(Clone)]
pub(super) struct LetterRow {
    pub(super) id: EntryId,
    pub(super) reason: Reason,
    pub(super) letter_id: String,
    pub(super) digest: [u8; 16],
    pub(super) event_id: Option<String>,
    /// The key of the event in the guard's table.
    pub(super) key: Option<String>,
    pub(super) event_type: Option<String>,
    pub(super) error: Option<String>,
    pub(super) fingerprint: String,
    pub(super) attempts: i32,
    pub(super) deliveries: i64,
    pub(super) consumer: Option<String>,
    pub(super) entry_id: Option<String>,
    pub(super) origin_id: Option<String>,
    pub(super) published_at: Option<Timestamp>,
    pub(super) first_delivery: Option<Timestamp>,
    pub(super) last_delivery: Option<Timestamp>,
    pub(super) dead_lettered_at: Timestamp,
    pub(super) payload: Option<String>,
    /// The past attempts, as an array.
    pub(super) history: Option<String>,
    pub(super) fields: Fields,
    /// The hash of the payload, as guards compute it.
    pub(super) payload_hash: [u8; 16],
}

impl LetterRow {
    pub(super) fn of(letter: DeadLetter) -> Self {
        let (digest, fingerprint) = (letter.digest(), letter.fingerprint());
        let event_type = letter.fields.iter().find(|(name, _)| name == "type");
        let event_type = event_type.map(|(_, value)| {
            text::clean(&String::from_utf8_lossy(value), NAME_BYTES_MAX).into_owned()
        });
        let error = letter.error.map(|error| text::clean(&error, ERROR_BYTES_MAX).into_owned());
        let consumer = letter.consumer.map(|name| text::clean(&name, NAME_BYTES_MAX).into_owned());
        Self {
            id: letter.id,
            reason: letter.reason,
            letter_id: letter.id.to_string(),
            digest,
            event_id: letter.event_id.as_ref().map(|id| id.as_str().to_owned()),
            key: letter.event_id.as_ref().map(key::of_event),
            fingerprint,
            event_type,
            error,
            attempts: i32::try_from(letter.attempts).unwrap_or(i32::MAX),
            deliveries: i64::try_from(letter.delivery_count).unwrap_or(i64::MAX),
            consumer,
            entry_id: letter.entry_id.map(|id| id.to_string()),
            origin_id: letter.origin.map(|id| id.to_string()),
            published_at: letter.origin.map(|id| Timestamp::from_millis(id.milliseconds())),
            first_delivery: letter.first_delivery.map(Timestamp::from_millis),
            last_delivery: letter.last_delivery.map(Timestamp::from_millis),
            dead_lettered_at: Timestamp::from_millis(letter.id.milliseconds()),
            payload: view::json(&letter.fields),
            history: view::history(&letter.history),
            payload_hash: key::payload_hash_of(&letter.fields),
            fields: letter.fields,
        }
    }

    /// The row without the parts that a database may refuse although the dead letter is valid: it
    /// has no payload and no past attempts as JSON, and only text that every encoding can store.
    pub(super) fn plain(&self) -> Self {
        let plain = |text: &Option<String>, bytes_max| {
            text.as_deref().map(|text| text::plain(text, bytes_max))
        };
        Self {
            event_id: plain(&self.event_id, NAME_BYTES_MAX),
            key: plain(&self.key, NAME_BYTES_MAX),
            event_type: plain(&self.event_type, NAME_BYTES_MAX),
            error: plain(&self.error, ERROR_BYTES_MAX),
            consumer: plain(&self.consumer, NAME_BYTES_MAX),
            payload: None,
            history: None,
            ..self.clone()
        }
    }

    /// The approximate size of the row in a request.
    pub(super) fn bytes(&self) -> usize {
        let fields = self.fields.iter().map(|(name, value)| name.len() + value.len());
        let json = [&self.payload, &self.history].into_iter().flatten();
        let payload = json.map(String::len).sum::<usize>();
        fields.sum::<usize>() + payload + self.error.as_ref().map_or(0, String::len) + ROW_BYTES
    }
}

/// The length to which errors are cut.
const ERROR_BYTES_MAX: usize = 4096;
/// The length to which names are cut: longer than any name that this framework accepts.
const NAME_BYTES_MAX: usize = 512;
/// An estimate for the other columns of a row.
const ROW_BYTES: usize = 256;
