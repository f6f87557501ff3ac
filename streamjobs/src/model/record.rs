//! What is stored of a job that leaves its entry: its retry, its dead letter, or its redrive.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::model::entry::{Delivery, Entry, EntryAddress, EntryId, Fields};
use crate::model::event::Envelope;
use crate::model::fingerprint::fingerprint;
use crate::model::name::EventId;
use crate::model::policy::{AWAITS_HANDLER, Reason};
use crate::model::unique::LOCK;

/// What is known about a job when it leaves its entry.
#[derive(Debug)]
pub(crate) struct Attempted<'a> {
    pub(crate) delivery: &'a Delivery,
    pub(crate) envelope: &'a Envelope,
    /// The server's clock when this attempt started, in milliseconds.
    pub(crate) started_at: u64,
    /// Failures recorded for the job, this attempt included if it failed.
    pub(crate) failures: u32,
}

impl Attempted<'_> {
    /// The entry that the lane holds when the retry is due. Without an error of this attempt, the
    /// previous error stays. `due` is the server's clock in milliseconds.
    /// With `held`, the job keeps the place in its group's limit that its entry had.
    pub(crate) fn retry(&self, error: Option<&str>, due: Option<u64>, held: bool) -> Fields {
        let entry = &self.delivery.entry;
        let mut fields = carried(entry.fields());
        push(&mut fields, "sj-id", self.envelope.event_id.as_str().to_owned());
        push(&mut fields, "sj-attempt", self.failures.to_string());
        push(&mut fields, "sj-origin", self.origin().to_string());
        push(&mut fields, FIRST, self.first().to_string());
        if let Some(due) = due {
            push(&mut fields, DUE, due.to_string());
        }
        if held {
            let source = if self.delivery.inlet.is_lane() { 'l' } else { 's' };
            push(&mut fields, HELD, format!("{source}:{}", entry.id()));
        }
        if let Some(error) = error.or_else(|| entry.text(ERROR)) {
            push(&mut fields, ERROR, cut(error));
        }
        fields
    }

    /// The job's dead letter: fields about its end, then the fields of its entry.
    pub(crate) fn dead_letter(
        &self,
        reason: Reason,
        error: Option<&str>,
        consumer: &str,
    ) -> Fields {
        let entry = &self.delivery.entry;
        let mut letter = Fields::new();
        push(&mut letter, "sj-dead-reason", reason.as_str());
        let last_error = error.or_else(|| entry.text(ERROR));
        if let Some(error) = last_error {
            push(&mut letter, "sj-dead-error", error.to_owned());
        }
        push(&mut letter, "sj-dead-attempts", self.failures.to_string());
        push(&mut letter, "sj-dead-deliveries", self.delivery.delivery_count.to_string());
        push(&mut letter, "sj-dead-entry", entry.id().to_string());
        push(&mut letter, "sj-dead-source", self.delivery.inlet.as_str());
        push(&mut letter, "sj-dead-origin", self.origin().to_string());
        push(&mut letter, "sj-dead-first", self.first().to_string());
        push(&mut letter, "sj-dead-last", self.started_at.to_string());
        push(&mut letter, "sj-dead-consumer", consumer.to_owned());
        push(&mut letter, "sj-dead-event", self.envelope.event_id.as_str().to_owned());
        let forged = |(name, _): &(Bytes, Bytes)| name.starts_with(PREFIX.as_bytes());
        if entry.fields().len() > FIELDS_CARRIED_MAX || entry.fields().iter().any(forged) {
            // A script can pass on a bounded number of values only, and fields with the names of a
            // dead letter's own fields would be read as those: such entries travel as one value.
            push(&mut letter, "sj-dead-raw", pack(entry.fields()));
        } else {
            letter.extend(entry.fields().iter().cloned());
        }
        letter
    }

    fn origin(&self) -> EntryId {
        self.envelope.origin.unwrap_or(self.delivery.entry.id())
    }

    /// The server's clock when the first attempt started, in milliseconds.
    pub(crate) fn first(&self) -> u64 {
        let known = self.delivery.entry.text(FIRST).and_then(|text| text.parse().ok());
        known.unwrap_or(self.started_at)
    }
}

/// A job that will not run again, stored with its reason.
///
/// `Debug` shows everything but the payload.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The id of the dead letter; its milliseconds are the time when it was stored.
    pub id: EntryId,
    /// Why the job became a dead letter.
    pub reason: Reason,
    /// The last known error.
    pub error: Option<String>,
    /// Failures recorded for the job.
    pub attempts: u32,
    /// How often the entry was delivered.
    pub delivery_count: u64,
    /// The entry of the last attempt.
    pub entry_id: Option<EntryId>,
    /// The entry that was published. After a retry it differs from `entry_id`.
    pub origin: Option<EntryId>,
    /// The event id; `None` where the payload was trimmed.
    pub event_id: Option<EventId>,
    /// When the first attempt started, by the server's clock in milliseconds since 1970.
    pub first_delivery: Option<u64>,
    /// When the last attempt started, by the server's clock in milliseconds since 1970.
    pub last_delivery: Option<u64>,
    /// The consumer that owned the entry.
    pub consumer: Option<String>,
    /// The fields of the entry, byte for byte; empty where the payload was trimmed.
    pub fields: Fields,
    /// The number of its partition; `None` if the stream has only one.
    pub partition: Option<u16>,
    stored: Fields,
}

impl DeadLetter {
    /// Where it is, for what acts on it.
    #[must_use]
    pub fn address(&self) -> EntryAddress {
        EntryAddress { id: self.id, partition: self.partition }
    }

    /// The event type, if the fields have one.
    #[must_use]
    pub fn event_type(&self) -> Option<&str> {
        let value = self.fields.iter().find(|(name, _)| name == "type").map(|(_, value)| value)?;
        std::str::from_utf8(value).ok()
    }

    /// A digest of all stored fields, without the id: the same in every process and every release.
    ///
    /// After a failover or a flush, the server can assign an id again. Two dead letters with the same
    /// id and the same digest are the same.
    #[must_use]
    pub fn digest(&self) -> [u8; 16] {
        Uuid::new_v5(&DIGESTS, &pack(&self.stored)).into_bytes()
    }

    /// One short name for all failures of one kind: 16 characters, the same for dead letters whose
    /// errors differ only in numbers, ids, quoted values, addresses and paths.
    ///
    /// A dead letter without an error, or whose error says nothing about its job, is named by its
    /// reason and event type. A release may change the rule; then new dead letters no longer match
    /// old ones.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(self.reason, self.event_type(), self.error.as_deref())
    }

    /// Reads a stored dead letter. It never fails, since an operator may have written anything there.
    pub(crate) fn of(entry: &Entry) -> Self {
        let number = |name: &str| entry.text(name).and_then(|text| u64::from_str(text).ok());
        let id = |name: &str| entry.text(name).and_then(|text| EntryId::from_str(text).ok());
        let carried =
            entry.fields().iter().filter(|(name, _)| !name.starts_with(PREFIX.as_bytes()));
        let reason = entry.text("sj-dead-reason").and_then(Reason::parse);
        let attempts = number("sj-dead-attempts").and_then(|count| u32::try_from(count).ok());
        Self {
            id: entry.id(),
            reason: reason.unwrap_or(Reason::Undecodable),
            error: entry.text("sj-dead-error").map(str::to_owned),
            attempts: attempts.unwrap_or(0),
            delivery_count: number("sj-dead-deliveries").unwrap_or(0),
            entry_id: id("sj-dead-entry"),
            origin: id("sj-dead-origin").or(id("sj-dead-entry")),
            event_id: entry.text("sj-dead-event").and_then(|text| EventId::new(text).ok()),
            first_delivery: number("sj-dead-first"),
            last_delivery: number("sj-dead-last"),
            consumer: entry.text("sj-dead-consumer").map(str::to_owned),
            fields: entry.field("sj-dead-raw").map_or_else(|| carried.cloned().collect(), unpack),
            partition: entry.address().partition,
            stored: entry.fields().to_vec(),
        }
    }

    /// The entry that a redrive puts into the lane; `None` without a payload.
    pub(crate) fn redriven(&self) -> Option<Fields> {
        redriven(&self.fields, self.event_id.as_ref(), self.origin)
    }
}

impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("id", &self.address())
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

/// The entry that a redrive of a job with these fields puts into the lane; `None` where there are no
/// fields, or more than a script can carry.
pub(crate) fn redriven(
    fields: &[(Bytes, Bytes)],
    event_id: Option<&EventId>,
    origin: Option<EntryId>,
) -> Option<Fields> {
    if fields.is_empty() || fields.len() > FIELDS_CARRIED_MAX {
        return None;
    }
    let mut fields = carried(fields);
    // The job has freed its lock, which may be another event's now.
    fields.retain(|(name, _)| name != REDRIVEN.as_bytes() && name != LOCK);
    if let Some(event_id) = event_id {
        push(&mut fields, "sj-id", event_id.as_str().to_owned());
    }
    if let Some(origin) = origin {
        push(&mut fields, "sj-origin", origin.to_string());
    }
    Some(fields)
}

/// How long a job has waited for its first attempt, at this time of the server's clock in milliseconds;
/// `None` if it began before. The time of a redriven job begins with the redrive.
pub(crate) fn waited(delivery: &Delivery, envelope: &Envelope, now: u64) -> Option<Duration> {
    let entry = &delivery.entry;
    let last_error = entry.text(ERROR).filter(|_| delivery.inlet.is_lane());
    let since = match last_error {
        // Published, or redriven.
        None => entry.id(),
        Some(error) if envelope.failures == 0 && error.starts_with(AWAITS_HANDLER) => {
            envelope.origin.unwrap_or(entry.id())
        }
        Some(_) => return None,
    };
    Some(Duration::from_millis(now.saturating_sub(since.milliseconds())))
}

/// The number of the last mark that does not cancel the job, because it was redriven since.
pub(crate) fn redriven_after(entry: &Entry) -> u64 {
    entry.text(REDRIVEN).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// When the retry of an entry in the lane was due, by the server's clock in milliseconds; `None` for
/// an entry that is not a retry.
pub(crate) fn due(entry: &Entry) -> Option<u64> {
    entry.text(DUE).and_then(|text| text.parse().ok())
}

/// The fields of an entry without those that a retry writes anew.
fn carried(fields: &[(Bytes, Bytes)]) -> Fields {
    let ours = |name: &Bytes| REWRITTEN.iter().any(|ours| name == ours.as_bytes());
    fields.iter().filter(|(name, _)| !ours(name)).cloned().collect()
}

fn push(fields: &mut Fields, name: &'static str, value: impl Into<Bytes>) {
    fields.push((Bytes::from_static(name.as_bytes()), value.into()));
}

/// An error, cut so that it can travel with a job.
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

/// Reads what [`pack`] wrote; what follows a damaged part is dropped.
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
const REWRITTEN: [&str; 7] = ["sj-id", "sj-attempt", "sj-origin", FIRST, ERROR, DUE, HELD];
const FIRST: &str = "sj-first";
const ERROR: &str = "sj-error";
const DUE: &str = "sj-due";
/// Which entry had the place in a limit that the job keeps while it waits for its retry.
const HELD: &str = "sj-held";
const REDRIVEN: &str = "sj-redriven";
/// The prefix of a dead letter's own fields.
const PREFIX: &str = "sj-dead-";
/// The most fields that a script carries in one call, where Lua would allow about 4,000. A dead letter
/// of an entry with more fields holds them in one packed value, and cannot be redriven.
pub(crate) const FIELDS_CARRIED_MAX: usize = 1_000;
const CARRIED_ERROR_BYTES_MAX: usize = 512;
/// The UUID name space of digests of dead letters.
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
            Attempted { delivery: &delivery, envelope: &envelope, started_at: 77, failures: 3 };
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
    fn fields_named_as_those_of_a_dead_letter_are_kept_byte_for_byte() {
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
            Attempted { delivery: &delivery, envelope: &envelope, started_at: 77, failures: 2 };
        let entry = Entry::new(EntryId::new(6, 0), attempted.retry(Some("no"), Some(99), false));
        let texts = ["type", "data", "sj-id", "sj-key", "sj-attempt", "sj-origin", "sj-first"]
            .map(|name| entry.text(name));
        assert_eq!(
            texts,
            [Some("t"), Some("{}"), Some("e-1"), Some("alice"), Some("2"), Some("5-1"), Some("11")]
        );
        assert_eq!(entry.fields().iter().filter(|(name, _)| name == "sj-attempt").count(), 1);
        assert_eq!(due(&entry), Some(99));
        let again = Attempted { delivery: &Delivery { entry, ..delivery.clone() }, ..attempted };
        let released = Entry::new(EntryId::new(7, 0), again.retry(None, None, false));
        assert_eq!(due(&released), None, "an old time is not carried on");
    }

    #[test]
    fn a_redriven_job_keeps_its_id_and_forgets_its_failures() {
        let fields = vec![
            field("type", "t"),
            field("data", "{}"),
            field("sj-id", "e-1"),
            field("sj-unique", "5f work"),
            field("sj-attempt", "4"),
        ];
        let entry = Entry::new(EntryId::new(6, 0), letter(fields).redriven().unwrap());
        assert_eq!(
            (entry.text("sj-id"), entry.text("sj-origin"), entry.text("sj-attempt")),
            (Some("e-1"), Some("5-1"), None)
        );
        assert_eq!(entry.text("sj-unique"), None, "it frees no lock");
    }

    #[test]
    fn a_digest_distinguishes_dead_letters_and_never_changes() {
        let stored = vec![field("sj-dead-reason", "rejected"), field("type", "t")];
        let digest = |id, fields: &Fields| DeadLetter::of(&Entry::new(id, fields.clone())).digest();
        let one = digest(EntryId::new(1, 0), &stored);
        assert_eq!(one, digest(EntryId::new(2, 0), &stored), "the id is not part of it");
        assert_eq!(Uuid::from_bytes(one).to_string(), "a2c576ad-5651-5c55-aaab-151ef7512333");
        let mut changed = stored.clone();
        changed.push(field("sj-dead-error", "x"));
        assert_ne!(one, digest(EntryId::new(1, 0), &changed));
        assert_ne!(letter(stored.clone()).digest(), letter(stored[1..].to_vec()).digest());
    }

    #[test]
    fn damaged_dead_letters_are_read_up_to_the_damage() {
        for raw in ["", "x", "3:ab", "1:a", "99999999999999999999:a", "1:a1:b2:c"] {
            let entry = Entry::new(EntryId::new(1, 0), vec![field("sj-dead-raw", raw)]);
            let letter = DeadLetter::of(&entry);
            assert!(letter.fields.len() <= 1, "{raw}");
        }
    }
}
