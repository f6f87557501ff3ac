//! What is stored of a job that leaves its entry: waiting for a retry, dead, or redriven.

use std::fmt;
use std::str::FromStr;

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::model::entry::{Delivery, Entry, EntryId, Fields};
use crate::model::event::Envelope;
use crate::model::fingerprint::fingerprint;
use crate::model::name::EventId;
use crate::model::policy::Reason;

/// What is known about a job when it leaves its entry.
#[derive(Debug)]
pub(crate) struct Attempted<'a> {
    pub(crate) delivery: &'a Delivery,
    pub(crate) envelope: &'a Envelope,
    /// The server's clock when this attempt was taken up, in milliseconds.
    pub(crate) taken_up: u64,
    /// Failures recorded for the job, the present one included if it is one.
    pub(crate) failures: u32,
}

impl Attempted<'_> {
    /// The entry that the lane will hold when the job's back-off is over. Without an error of this
    /// attempt, the last one stays.
    /// `due` is when that should be, by the server's clock in milliseconds.
    pub(crate) fn retry(&self, error: Option<&str>, due: Option<u64>) -> Fields {
        let entry = &self.delivery.entry;
        let mut fields = carried(entry.fields());
        push(&mut fields, "sj-id", self.envelope.event_id.as_str().to_owned());
        push(&mut fields, "sj-attempt", self.failures.to_string());
        push(&mut fields, "sj-origin", self.origin().to_string());
        push(&mut fields, "sj-first", self.first().to_string());
        if let Some(due) = due {
            push(&mut fields, DUE, due.to_string());
        }
        if let Some(error) = error.or_else(|| entry.text("sj-error")) {
            push(&mut fields, "sj-error", cut(error));
        }
        fields
    }

    /// The job's dead letter: notes about its end, then its fields as they were.
    pub(crate) fn dead_letter(
        &self,
        reason: Reason,
        error: Option<&str>,
        consumer: &str,
    ) -> Fields {
        let entry = &self.delivery.entry;
        let mut letter = Fields::new();
        push(&mut letter, "sj-dead-reason", reason.as_str());
        let last_error = error.or_else(|| entry.text("sj-error"));
        if let Some(error) = last_error {
            push(&mut letter, "sj-dead-error", error.to_owned());
        }
        push(&mut letter, "sj-dead-attempts", self.failures.to_string());
        push(&mut letter, "sj-dead-deliveries", self.delivery.delivery_count.to_string());
        push(&mut letter, "sj-dead-entry", entry.id().to_string());
        push(&mut letter, "sj-dead-source", self.delivery.inlet.as_str());
        push(&mut letter, "sj-dead-origin", self.origin().to_string());
        push(&mut letter, "sj-dead-first", self.first().to_string());
        push(&mut letter, "sj-dead-last", self.taken_up.to_string());
        push(&mut letter, "sj-dead-consumer", consumer.to_owned());
        push(&mut letter, "sj-dead-event", self.envelope.event_id.as_str().to_owned());
        let forged = |(name, _): &(Bytes, Bytes)| name.starts_with(NOTES.as_bytes());
        if entry.fields().len() > FIELDS_CARRIED_MAX || entry.fields().iter().any(forged) {
            // A script can only pass a bounded number of values on, and fields that are called as
            // our notes would be read as such: these travel as one value.
            push(&mut letter, "sj-dead-raw", pack(entry.fields()));
        } else {
            letter.extend(entry.fields().iter().cloned());
        }
        letter
    }

    fn origin(&self) -> EntryId {
        self.envelope.origin.unwrap_or(self.delivery.entry.id())
    }

    fn first(&self) -> u64 {
        let known = self.delivery.entry.text("sj-first").and_then(|text| text.parse().ok());
        known.unwrap_or(self.taken_up)
    }
}

/// A job that will not be run again, with its reason.
///
/// `Debug` shows everything but the payload.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The dead letter's own id, whose milliseconds are the time of the burial.
    pub id: EntryId,
    /// Why the job was buried.
    pub reason: Reason,
    /// The last error that is known.
    pub error: Option<String>,
    /// Failures recorded before the burial.
    pub attempts: u32,
    /// How often the buried entry had been delivered.
    pub delivery_count: u64,
    /// The entry that was buried.
    pub entry_id: Option<EntryId>,
    /// The entry that was published; another one than the buried entry after a retry.
    pub origin: Option<EntryId>,
    /// The identity of the event; unknown where the payload was trimmed.
    pub event_id: Option<EventId>,
    /// When the job was first taken up, by the server's clock in milliseconds since 1970.
    pub first_delivery: Option<u64>,
    /// When the job was last taken up, by the server's clock in milliseconds since 1970.
    pub last_delivery: Option<u64>,
    /// The consumer that had the entry.
    pub consumer: Option<String>,
    /// The fields of the entry, byte for byte; none where the payload was trimmed.
    pub fields: Fields,
    stored: Fields,
}

impl DeadLetter {
    /// The event type, if the payload is known and says one.
    #[must_use]
    pub fn event_type(&self) -> Option<&str> {
        let value = self.fields.iter().find(|(name, _)| name == "type").map(|(_, value)| value)?;
        std::str::from_utf8(value).ok()
    }

    /// A digest of everything that is stored of the letter, without its id: the same in every
    /// process and every release.
    ///
    /// Ids can be given out twice, after a failover or a flush. Two letters with the same id and
    /// the same digest are one.
    #[must_use]
    pub fn digest(&self) -> [u8; 16] {
        Uuid::new_v5(&DIGESTS, &pack(&self.stored)).into_bytes()
    }

    /// One short name for all failures of one kind: 16 characters, the same for letters whose errors
    /// differ only in numbers, ids, quoted values, addresses and paths.
    ///
    /// A letter whose error says nothing about its job, or that has none, is known by its reason and
    /// its event type. The rule may change with a release, which parts new letters from old ones.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(self.reason, self.event_type(), self.error.as_deref())
    }

    /// Reads a stored dead letter; total, since an operator may have written anything there.
    pub(crate) fn of(entry: &Entry) -> Self {
        let number = |name: &str| entry.text(name).and_then(|text| u64::from_str(text).ok());
        let id = |name: &str| entry.text(name).and_then(|text| EntryId::from_str(text).ok());
        let fields = match entry.field("sj-dead-raw") {
            Some(raw) => unpack(raw),
            None => entry
                .fields()
                .iter()
                .filter(|(name, _)| !name.starts_with(NOTES.as_bytes()))
                .cloned()
                .collect(),
        };
        Self {
            id: entry.id(),
            reason: entry
                .text("sj-dead-reason")
                .and_then(Reason::parse)
                .unwrap_or(Reason::Undecodable),
            error: entry.text("sj-dead-error").map(str::to_owned),
            attempts: number("sj-dead-attempts")
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or(0),
            delivery_count: number("sj-dead-deliveries").unwrap_or(0),
            entry_id: id("sj-dead-entry"),
            origin: id("sj-dead-origin").or(id("sj-dead-entry")),
            event_id: entry.text("sj-dead-event").and_then(|text| EventId::new(text).ok()),
            first_delivery: number("sj-dead-first"),
            last_delivery: number("sj-dead-last"),
            consumer: entry.text("sj-dead-consumer").map(str::to_owned),
            fields,
            stored: entry.fields().to_vec(),
        }
    }

    /// The entry that the lane will hold when this job is run again; none without a payload.
    pub(crate) fn redriven(&self) -> Option<Fields> {
        redriven(&self.fields, self.event_id.as_ref(), self.origin)
    }
}

impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("id", &self.id)
            .field("reason", &self.reason)
            .field("error", &self.error)
            .field("attempts", &self.attempts)
            .field("delivery_count", &self.delivery_count)
            .field("entry_id", &self.entry_id)
            .field("origin", &self.origin)
            .field("event_id", &self.event_id)
            .field("consumer", &self.consumer)
            .finish_non_exhaustive()
    }
}

/// The entry that the lane will hold when a job is run again whose entry had these fields; none where
/// there is nothing to run, or more than a script hands on.
pub(crate) fn redriven(
    fields: &[(Bytes, Bytes)],
    event_id: Option<&EventId>,
    origin: Option<EntryId>,
) -> Option<Fields> {
    if fields.is_empty() || fields.len() > FIELDS_CARRIED_MAX {
        return None;
    }
    let mut fields = carried(fields);
    if let Some(event_id) = event_id {
        push(&mut fields, "sj-id", event_id.as_str().to_owned());
    }
    if let Some(origin) = origin {
        push(&mut fields, "sj-origin", origin.to_string());
    }
    Some(fields)
}

/// When the back-off of a job was over that stands in the lane, by the server's clock in
/// milliseconds; none for a job that did not wait for one.
pub(crate) fn due(entry: &Entry) -> Option<u64> {
    entry.text(DUE).and_then(|text| text.parse().ok())
}

/// The fields of an entry without those that this crate writes anew.
fn carried(fields: &[(Bytes, Bytes)]) -> Fields {
    let ours = |name: &Bytes| REWRITTEN.iter().any(|ours| name == ours.as_bytes());
    fields.iter().filter(|(name, _)| !ours(name)).cloned().collect()
}

fn push(fields: &mut Fields, name: &'static str, value: impl Into<Bytes>) {
    fields.push((Bytes::from_static(name.as_bytes()), value.into()));
}

/// An error text short enough to travel with a job.
fn cut(error: &str) -> String {
    let mut end = error.len().min(CARRIED_ERROR_BYTES_MAX);
    while !error.is_char_boundary(end) {
        end -= 1;
    }
    error.get(..end).unwrap_or_default().to_owned()
}

/// All fields as one value: each part as its length, a colon and its bytes.
fn pack(fields: &[(Bytes, Bytes)]) -> Bytes {
    let mut packed = BytesMut::new();
    for part in fields.iter().flat_map(|(name, value)| [name, value]) {
        packed.put_slice(part.len().to_string().as_bytes());
        packed.put_u8(b':');
        packed.put_slice(part);
    }
    packed.freeze()
}

/// Reads what [`pack`] wrote, as far as it is whole.
fn unpack(packed: &Bytes) -> Fields {
    let mut parts = Vec::new();
    let mut rest = packed.clone();
    while let Some(colon) = rest.iter().position(|byte| *byte == b':') {
        let length = std::str::from_utf8(&rest.split_to(colon))
            .ok()
            .and_then(|text| text.parse::<usize>().ok());
        let _colon = rest.split_to(1);
        match length {
            Some(length) if length <= rest.len() => parts.push(rest.split_to(length)),
            _ => break,
        }
    }
    let mut parts = parts.into_iter();
    std::iter::from_fn(|| Some((parts.next()?, parts.next()?))).collect()
}

/// Fields that a retry or a redrive writes anew.
const REWRITTEN: [&str; 6] = ["sj-id", "sj-attempt", "sj-origin", "sj-first", "sj-error", DUE];
const DUE: &str = "sj-due";
/// How the names of a dead letter's notes begin.
const NOTES: &str = "sj-dead-";
/// What a script hands on in one call; it could hand on 4,000. Entries with more fields are buried
/// with all of them in one packed value, and are not run again.
pub(crate) const FIELDS_CARRIED_MAX: usize = 1_000;
const CARRIED_ERROR_BYTES_MAX: usize = 512;
/// The name space of digests of dead letters.
const DIGESTS: Uuid = Uuid::from_u128(0x8f0e_6f2c_53b1_5d0a_9a6b_6f10_2c1d_7e03);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::entry::Inlet;

    fn field(name: &'static str, value: &'static str) -> (Bytes, Bytes) {
        (Bytes::from_static(name.as_bytes()), Bytes::from_static(value.as_bytes()))
    }

    fn delivery(fields: Fields) -> Delivery {
        Delivery {
            inlet: Inlet::STREAM,
            entry: Entry::new(EntryId::new(5, 1), fields),
            delivery_count: 2,
        }
    }

    fn envelope() -> Envelope {
        Envelope { event_id: EventId::new("e-1").unwrap(), failures: 0, origin: None }
    }

    fn letter(fields: Fields) -> DeadLetter {
        let (delivery, envelope) = (delivery(fields), envelope());
        let attempted =
            Attempted { delivery: &delivery, envelope: &envelope, taken_up: 77, failures: 3 };
        let stored = attempted.dead_letter(Reason::Exhausted, Some("no"), "web-1");
        DeadLetter::of(&Entry::new(EntryId::new(9, 0), stored))
    }

    #[test]
    fn a_dead_letter_keeps_the_fields_byte_for_byte_and_says_why() {
        let fields = vec![field("type", "t"), field("data", "\0\u{7f}"), field("sj-id", "e-1")];
        let letter = letter(fields.clone());
        assert_eq!(letter.fields, fields);
        assert_eq!(
            (letter.reason, letter.attempts, letter.delivery_count),
            (Reason::Exhausted, 3, 2)
        );
        assert_eq!(
            (letter.entry_id, letter.origin),
            (Some(EntryId::new(5, 1)), Some(EntryId::new(5, 1)))
        );
        assert_eq!((letter.first_delivery, letter.last_delivery), (Some(77), Some(77)));
        assert_eq!(letter.event_type(), Some("t"));
        assert!(!format!("{letter:?}").contains('\u{7f}'));
    }

    #[test]
    fn an_entry_with_too_many_fields_is_kept_whole() {
        let fields = (0..=FIELDS_CARRIED_MAX).map(|_| field("", ":1:")).collect::<Fields>();
        let letter = letter(fields.clone());
        assert_eq!(letter.fields, fields);
        assert_eq!(letter.redriven(), None);
    }

    #[test]
    fn fields_called_as_our_notes_are_kept_byte_for_byte() {
        for name in ["sj-dead-", "sj-dead-raw", "sj-dead-error", "sj-dead-of-another"] {
            let fields = vec![field("type", "t"), field(name, "1:a1:b")];
            let letter = letter(fields.clone());
            assert_eq!(letter.fields, fields);
            assert_eq!((letter.error.as_deref(), letter.event_type()), (Some("no"), Some("t")));
            assert_eq!(letter.redriven().unwrap()[..2], fields);
        }
    }

    #[test]
    fn a_retry_carries_identity_failures_origin_and_first_time() {
        let fields = vec![
            field("type", "t"),
            field("data", "{}"),
            field("sj-key", "alice"),
            field("sj-first", "11"),
            field("sj-attempt", "1"),
        ];
        let (delivery, envelope) = (delivery(fields), envelope());
        let attempted =
            Attempted { delivery: &delivery, envelope: &envelope, taken_up: 77, failures: 2 };
        let entry = Entry::new(EntryId::new(6, 0), attempted.retry(Some("no"), Some(99)));
        let texts = ["type", "data", "sj-id", "sj-key", "sj-attempt", "sj-origin", "sj-first"]
            .map(|name| entry.text(name));
        assert_eq!(
            texts,
            [Some("t"), Some("{}"), Some("e-1"), Some("alice"), Some("2"), Some("5-1"), Some("11")]
        );
        assert_eq!(entry.fields().iter().filter(|(name, _)| name == "sj-attempt").count(), 1);
        assert_eq!(due(&entry), Some(99));
        let again = Attempted { delivery: &Delivery { entry, ..delivery.clone() }, ..attempted };
        let released = Entry::new(EntryId::new(7, 0), again.retry(None, None));
        assert_eq!(due(&released), None, "an old time is not carried on");
    }

    #[test]
    fn a_redriven_job_keeps_its_id_and_forgets_its_failures() {
        let fields = vec![
            field("type", "t"),
            field("data", "{}"),
            field("sj-id", "e-1"),
            field("sj-attempt", "4"),
        ];
        let entry = Entry::new(EntryId::new(6, 0), letter(fields).redriven().unwrap());
        assert_eq!(
            (entry.text("sj-id"), entry.text("sj-origin"), entry.text("sj-attempt")),
            (Some("e-1"), Some("5-1"), None)
        );
    }

    #[test]
    fn a_digest_tells_letters_apart_and_never_changes() {
        let stored = vec![field("sj-dead-reason", "rejected"), field("type", "t")];
        let digest = |id, fields: &Fields| DeadLetter::of(&Entry::new(id, fields.clone())).digest();
        let one = digest(EntryId::new(1, 0), &stored);
        assert_eq!(one, digest(EntryId::new(2, 0), &stored), "the id is not part of it");
        assert_eq!(Uuid::from_bytes(one).to_string(), "a2c576ad-5651-5c55-aaab-151ef7512333");
        let mut notes = stored.clone();
        notes.push(field("sj-dead-error", "x"));
        assert_ne!(one, digest(EntryId::new(1, 0), &notes));
        assert_ne!(letter(stored.clone()).digest(), letter(stored[1..].to_vec()).digest());
    }

    #[test]
    fn damaged_letters_are_read_as_far_as_they_go() {
        for raw in ["", "x", "3:ab", "1:a", "99999999999999999999:a", "1:a1:b2:c"] {
            let entry = Entry::new(EntryId::new(1, 0), vec![field("sj-dead-raw", raw)]);
            let letter = DeadLetter::of(&entry);
            assert!(letter.fields.len() <= 1, "{raw}");
        }
    }
}
