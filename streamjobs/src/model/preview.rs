//! Previews: the beginnings of entries and dead letters, for lists that do not show whole payloads.

use std::fmt;

use bytes::Bytes;

use crate::model::attempts::HISTORY;
use crate::model::entry::{Entry, EntryAddress, EntryId};
use crate::model::name::EventId;
use crate::model::policy::Reason;
use crate::model::record::DeadLetter;

/// An entry with the beginnings of its values.
///
/// `Debug` shows no values.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntryPreview {
    /// Its id.
    pub id: EntryId,
    /// Its fields in their order; only the first ones if the entry has more than 256 KiB to show.
    pub fields: Vec<FieldPreview>,
    /// The size of the whole payload with its names, in bytes.
    pub payload_bytes: u64,
    /// The number of its partition; `None` if the stream has only one.
    pub partition: Option<u16>,
}

/// A field with the beginning of its value.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldPreview {
    /// Its name, cut after 1 KiB.
    pub name: Bytes,
    /// The beginning of its value.
    pub value: Bytes,
    /// The length of the whole value, in bytes.
    pub bytes: u64,
}

/// A dead letter as lists show it: without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetterSummary {
    /// Its id.
    pub id: EntryId,
    /// Why the job will not run again.
    pub reason: Reason,
    /// The last error.
    pub error: Option<String>,
    /// The event type; `None` if the fields have none.
    pub event_type: Option<String>,
    /// Failures that were recorded.
    pub attempts: u32,
    /// How often the entry was delivered.
    pub delivery_count: u64,
    /// The entry that was dead-lettered.
    pub entry_id: Option<EntryId>,
    /// The entry that was published.
    pub origin: Option<EntryId>,
    /// The event id.
    pub event_id: Option<EventId>,
    /// When the job was first delivered, by the server's clock in milliseconds since 1970.
    pub first_delivery: Option<u64>,
    /// When the last attempt started, by the server's clock in milliseconds since 1970.
    pub last_delivery: Option<u64>,
    /// The consumer that owned the entry.
    pub consumer: Option<String>,
    /// The size of its payload with its names, in bytes; zero where the payload was trimmed.
    pub payload_bytes: u64,
    /// The number of its partition; `None` if the stream has only one.
    pub partition: Option<u16>,
    fingerprint: String,
}

impl EntryPreview {
    /// The address of the entry, for calls that act on it.
    #[must_use]
    pub fn address(&self) -> EntryAddress {
        EntryAddress { id: self.id, partition: self.partition }
    }

    /// The event type, if the entry has one.
    #[must_use]
    pub fn event_type(&self) -> Option<&str> {
        let field = self.fields.iter().find(|field| field.name == "type")?;
        std::str::from_utf8(&field.value).ok()
    }

    /// The preview that a server gives of an entry, with this many bytes of each value of the
    /// payload.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn of_entry(entry: &Entry, value: usize) -> Self {
        let room = |name: &[u8]| match is_own(name) {
            true => (Some(OWN_VALUE_BYTES_MAX), false),
            false => (Some(value), name != HISTORY.as_bytes()),
        };
        Self::with(entry, room)
    }

    /// The preview that a server gives of a dead letter.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn of_letter(entry: &Entry) -> Self {
        let room = |name: &[u8]| match name {
            b"sj-dead-raw" => (Some(PACKED_BYTES_SHOWN), true),
            b"type" => (Some(OWN_VALUE_BYTES_MAX), false),
            b"sj-history" => (None, false),
            name if name.starts_with(b"sj-dead-") => (Some(OWN_VALUE_BYTES_MAX), false),
            _ => (None, true),
        };
        Self::with(entry, room)
    }

    #[cfg(any(test, feature = "testing"))]
    fn with(entry: &Entry, room: impl Fn(&[u8]) -> (Option<usize>, bool)) -> Self {
        let (mut fields, mut payload_bytes) = (Vec::new(), 0);
        for (name, value) in entry.fields() {
            let (room, is_payload) = room(name);
            if is_payload {
                payload_bytes += (name.len() + value.len()) as u64;
            }
            if let Some(room) = room {
                let shown = value.slice(..room.min(value.len()));
                let bytes = value.len() as u64;
                fields.push(FieldPreview { name: name.clone(), value: shown, bytes });
            }
        }
        Self { id: entry.id(), fields, payload_bytes, partition: entry.address().partition }
    }
}

impl FieldPreview {
    /// Whether the value is whole.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.value.len() as u64 == self.bytes
    }
}

impl fmt::Debug for EntryPreview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryPreview")
            .field("id", &self.id)
            .field("payload_bytes", &self.payload_bytes)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for FieldPreview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FieldPreview").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl DeadLetterSummary {
    /// The address of the dead letter, for calls that act on it.
    #[must_use]
    pub fn address(&self) -> EntryAddress {
        EntryAddress { id: self.id, partition: self.partition }
    }

    /// As [`DeadLetter::fingerprint`](crate::dead_letter::DeadLetter::fingerprint).
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Reads the preview of a stored dead letter, as [`DeadLetter::of`] reads a whole one.
    pub(crate) fn of(preview: EntryPreview) -> Self {
        let (payload_bytes, partition) = (preview.payload_bytes, preview.partition);
        let fields = preview.fields.into_iter().map(|field| (field.name, field.value)).collect();
        let letter = DeadLetter::of(&Entry::new(preview.id, fields).in_partition(partition));
        Self { payload_bytes, ..letter.summary() }
    }
}

impl DeadLetter {
    /// The dead letter without its payload, as lists show it.
    #[must_use]
    pub fn summary(&self) -> DeadLetterSummary {
        let given = self.fields.iter().filter(|(name, _)| name != HISTORY.as_bytes());
        let sizes = given.map(|(name, value)| (name.len() + value.len()) as u64);
        let own = self.event_type().map_or(0, |value| ("type".len() + value.len()) as u64);
        DeadLetterSummary {
            id: self.id,
            reason: self.reason,
            error: self.error.clone(),
            event_type: self.event_type().map(str::to_owned),
            attempts: self.attempts,
            delivery_count: self.delivery_count,
            entry_id: self.entry_id,
            origin: self.origin,
            event_id: self.event_id.clone(),
            first_delivery: self.first_delivery,
            last_delivery: self.last_delivery,
            consumer: self.consumer.clone(),
            payload_bytes: sizes.sum::<u64>().saturating_sub(own),
            partition: self.partition,
            fingerprint: self.fingerprint(),
        }
    }
}

/// Whether a field is the framework's own, and not from the application.
#[cfg(any(test, feature = "testing"))]
fn is_own(name: &[u8]) -> bool {
    let is_given =
        [b"sj-dead-raw", HISTORY.as_bytes()].contains(&name) || name.starts_with(b"sj-header-");
    name == b"type" || name.starts_with(b"sj-") && !is_given
}

/// How many bytes of one of the framework's own values a preview shows: more than any stored error
/// has.
pub(crate) const OWN_VALUE_BYTES_MAX: usize = 64 * 1024;
/// How much of a dead letter's packed fields is shown. The event type is the first of these fields.
#[cfg(any(test, feature = "testing"))]
const PACKED_BYTES_SHOWN: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_has_beginnings_and_sizes_and_debug_shows_no_value() {
        let fields = vec![
            ("type".into(), "order.placed".into()),
            ("data".into(), "canary".into()),
            ("sj-id".into(), "e-1".into()),
            ("sj-header-user".into(), "canary".into()),
        ];
        let preview = EntryPreview::of_entry(&Entry::new(EntryId::new(1, 0), fields), 3);
        let shown = preview.fields.iter().map(|field| (&field.value[..], field.bytes));
        let expected: [(&[u8], u64); 4] =
            [(b"order.placed", 12), (b"can", 6), (b"e-1", 3), (b"can", 6)];
        assert_eq!(shown.collect::<Vec<_>>(), expected);
        assert_eq!((preview.event_type(), preview.payload_bytes), (Some("order.placed"), 30));
        assert_eq!(preview.fields.iter().filter(|field| !field.is_whole()).count(), 2);
        assert!(!format!("{preview:?} {:?}", preview.fields).contains("can"));
    }

    #[test]
    fn the_summary_of_a_letter_says_what_the_letter_says_but_its_payload() {
        let fields = vec![
            ("sj-dead-reason".into(), "exhausted".into()),
            ("sj-dead-error".into(), "order 7 failed".into()),
            ("sj-dead-attempts".into(), "5".into()),
            ("sj-dead-entry".into(), "1-1".into()),
            ("sj-trace".into(), "t".into()),
            ("type".into(), "order.placed".into()),
            ("data".into(), "canary".into()),
        ];
        let entry = Entry::new(EntryId::new(1, 0), fields);
        let (letter, summary) =
            (DeadLetter::of(&entry), DeadLetterSummary::of(EntryPreview::of_letter(&entry)));
        assert_eq!(summary.fingerprint(), letter.fingerprint());
        assert_eq!(summary.event_type.as_deref(), letter.event_type());
        assert_eq!((summary.id, summary.reason, summary.attempts), (letter.id, letter.reason, 5));
        assert_eq!((&summary.error, summary.entry_id), (&letter.error, letter.entry_id));
        assert_eq!(summary.payload_bytes, 10 + 9, "with the field of the trace");
        assert_eq!(letter.summary(), summary);
    }
}
