//! The envelope: the fields that streamjobs adds to a payload.

use bytes::Bytes;

use crate::model::entry::{Entry, EntryId, Fields};
use crate::model::event::{DecodeError, arena};
use crate::model::name::{EventId, StreamName};
use crate::model::trace::TraceContext;

/// What an entry holds in addition to its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    /// The event id.
    pub(crate) event_id: EventId,
    /// Failures recorded so far.
    pub(crate) failures: u32,
    /// The entry that was published, for retries and redrives.
    pub(crate) origin: Option<EntryId>,
}

/// A payload as an entry holds it.
///
/// `Debug` does not show it. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy)]
pub enum Payload<'a> {
    /// One `data` field with JSON.
    Json(&'a [u8]),
    /// Flat fields: all fields of the entry. `type` and those with the prefix `sj-` are not part of
    /// the payload.
    Fields(&'a [(Bytes, Bytes)]),
}

impl std::fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Json(_) => "Json(..)",
            Self::Fields(_) => "Fields(..)",
        })
    }
}

impl Envelope {
    /// Reads the envelope of an entry. An entry that another client wrote gets an id derived from its
    /// stream, entry id and content; fields of the envelope that cannot be read count as absent.
    pub(crate) fn of(stream: &StreamName, entry: &Entry) -> Self {
        let (mut id, mut attempt, mut origin) = (None, None, None);
        for (name, value) in entry.fields() {
            let place = match name.as_ref() {
                own if !own.starts_with(PREFIX.as_bytes()) => continue,
                own if own == ID.as_bytes() => &mut id,
                own if own == ATTEMPT.as_bytes() => &mut attempt,
                own if own == ORIGIN.as_bytes() => &mut origin,
                _ => continue,
            };
            // Of several fields with one name, the first counts.
            place.get_or_insert(value);
        }
        let own = id.and_then(|id| EventId::read(std::str::from_utf8(id).ok()?).ok());
        Self {
            event_id: own.unwrap_or_else(|| derived_id(stream, entry)),
            failures: attempt
                .and_then(|count| std::str::from_utf8(count).ok()?.parse().ok())
                .unwrap_or(0),
            origin: origin.and_then(|id| EntryId::from_ascii(id)),
        }
    }

    /// Finds the payload of an entry.
    ///
    /// # Errors
    ///
    /// When the entry has two payloads, two types, or more fields than an event may have.
    pub(crate) fn payload(entry: &Entry) -> Result<Payload<'_>, DecodeError> {
        let fields = entry.fields();
        // Fields of the envelope do not count: a retry adds some.
        let (mut count, mut own, mut data) = (0, [0_u32; 3], None);
        for (name, value) in fields {
            count += usize::from(is_payload(name));
            for (known, times) in [TYPE, DATA, ID].iter().zip(&mut own) {
                *times += u32::from(name == known.as_bytes());
            }
            if data.is_none() && name == DATA.as_bytes() {
                data = Some(value);
            }
        }
        if count > FIELDS_MAX {
            return Err(DecodeError::new(format!(
                "the payload has {count} fields; an event has at most {FIELDS_MAX}"
            )));
        }
        if let Some((name, _)) = [TYPE, DATA, ID].iter().zip(own).find(|(_, times)| *times > 1) {
            return Err(DecodeError::new(format!("the entry has two fields `{name}`")));
        }
        Ok(match data {
            Some(data) => Payload::Json(data),
            None => Payload::Fields(fields),
        })
    }

    /// The fields of a new event: type, payload, then the envelope as far as it is set.
    pub(crate) fn entry(
        event_type: &'static str,
        payload: Fields,
        id: &EventId,
        key: Option<String>,
        trace: Option<&TraceContext>,
    ) -> Fields {
        let mut fields = payload;
        fields.reserve(FIELDS_ADDED);
        let name = |name: &'static str| Bytes::from_static(name.as_bytes());
        fields.insert(0, (name(TYPE), name(event_type)));
        fields.push((name(ID), arena::copied(id.as_str().as_bytes())));
        fields.extend(key.map(|key| (name(KEY), key.into())));
        if let Some(trace) = trace {
            trace.write(&mut fields);
        }
        fields
    }
}

/// Whether the name is reserved, so that no part of a flat payload may have it.
pub(super) fn is_reserved(name: &[u8]) -> bool {
    name == DATA.as_bytes() || !is_payload(name)
}

/// Whether a field is part of a flat payload.
pub(super) fn is_payload(name: &[u8]) -> bool {
    name != TYPE.as_bytes() && !name.starts_with(PREFIX.as_bytes())
}

/// The event id of an entry without one. It is the same for every delivery of the entry. It stays the same after the
/// job has waited in a line, because the line adds the id of the published entry as a field.
fn derived_id(stream: &StreamName, entry: &Entry) -> EventId {
    let mut content = Vec::new();
    let mut part = |bytes: &[u8]| {
        // The length in front of each part makes the concatenation unambiguous.
        content.extend_from_slice(&bytes.len().to_be_bytes());
        content.extend_from_slice(bytes);
    };
    part(stream.as_str().as_bytes());
    let origin = entry.text(ORIGIN).map(str::to_owned);
    part(origin.unwrap_or_else(|| entry.id().to_string()).as_bytes());
    for (name, value) in entry.fields().iter().filter(|(name, _)| name != ORIGIN.as_bytes()) {
        part(name);
        part(value);
    }
    EventId::of_content(&content)
}

const TYPE: &str = "type";
const DATA: &str = "data";
const PREFIX: &str = "sj-";
const ID: &str = "sj-id";
const KEY: &str = "sj-key";
const ATTEMPT: &str = "sj-attempt";
const ORIGIN: &str = "sj-origin";
/// The most fields that publishing adds to a payload.
pub(super) const FIELDS_ADDED: usize = 4;
/// The most fields of a payload. An entry with more is not an event: it was put into the stream by mistake.
pub(super) const FIELDS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fields: &[(&'static str, &'static str)]) -> Entry {
        let fields = fields.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Entry::new(EntryId::new(1, 0), fields.collect())
    }

    fn stream() -> StreamName {
        StreamName::new("orders").unwrap()
    }

    #[test]
    fn fields_have_one_order_and_only_what_is_set_is_written() {
        let names = |key: Option<String>, trace: Option<&TraceContext>| {
            let id = EventId::new("e").unwrap();
            let fields = Envelope::entry("t", vec![("data".into(), "{}".into())], &id, key, trace);
            fields.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(None, None), ["type", "data", "sj-id"]);
        let trace = TraceContext::from_ids([1; 16], [2; 8], 1).unwrap();
        assert_eq!(
            names(Some("k".into()), Some(&trace)),
            ["type", "data", "sj-id", "sj-key", "sj-trace"]
        );
    }

    #[test]
    fn an_entry_of_another_client_has_a_stable_derived_id() {
        let id = |entry: &Entry| Envelope::of(&stream(), entry).event_id;
        let one = entry(&[("a", "b"), ("c", "d")]);
        assert_eq!(id(&one), id(&one.clone()));
        assert_ne!(id(&one), id(&entry(&[("a", "bc"), ("", "d")])), "parts are kept apart");
        let elsewhere = Entry::new(EntryId::new(2, 0), one.fields().to_vec());
        assert_ne!(id(&one), id(&elsewhere));
        let bad = entry(&[("sj-id", ""), ("sj-attempt", "x"), ("sj-origin", "y")]);
        let read = Envelope::of(&stream(), &bad);
        assert_eq!((read.failures, read.origin, read.event_id.as_str().len()), (0, None, 36));
    }

    #[test]
    fn two_payloads_and_too_many_fields_are_refused() {
        assert!(matches!(Envelope::payload(&entry(&[("a", "1")])), Ok(Payload::Fields(_))));
        assert!(matches!(Envelope::payload(&entry(&[("data", "1")])), Ok(Payload::Json(b"1"))));
        assert!(Envelope::payload(&entry(&[("data", "1"), ("data", "2")])).is_err());
        assert!(Envelope::payload(&entry(&[("type", "1"), ("type", "2")])).is_err());
        let wide = Envelope::payload(&entry(&[("x", ""); 65])).map(|_| ()).unwrap_err();
        assert!(wide.to_string().contains("65 fields"), "{wide}");
        let ours = [("x", ""); 64].into_iter().chain([("type", "t"), ("sj-id", "e")]);
        assert!(Envelope::payload(&entry(&ours.collect::<Vec<_>>())).is_ok());
    }
}
