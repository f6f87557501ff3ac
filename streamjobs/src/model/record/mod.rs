//! What is stored for a job that leaves its entry: its retry, its dead letter, or its redrive.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::model::attempts::{AttemptEnd, AttemptHistory, Ended, HISTORY};
use crate::model::entry::{Delivery, Entry, EntryAddress, EntryId, Fields};
use crate::model::event::Envelope;
use crate::model::fingerprint::fingerprint;
use crate::model::name::EventId;
use crate::model::packed_fields::{pack, unpack};
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
    /// How this attempt ended; `None` if the handler did not run.
    pub(crate) run: Option<Run<'a>>,
}

/// A run of a handler after which its job is not done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    pub(crate) end: AttemptEnd,
    pub(crate) took: Duration,
    /// The consumer.
    pub(crate) process: &'a str,
}

impl Attempted<'_> {
    /// The entry that the lane gets when the retry is due. If this attempt has no error, the
    /// previous error stays. `due` is the server's clock in milliseconds. With `held`, the job
    /// keeps the place in its group's limit that its entry had.
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
        let error_known = error.or_else(|| entry.text(ERROR));
        if let Some(since) = self.since(error_known) {
            push(&mut fields, SINCE, since);
        }
        if let Some(error) = error_known {
            push(&mut fields, ERROR, cut(error));
        }
        if let Some(ended) = self.ended(error, due) {
            let lines = ended.lines(entry.text(HISTORY));
            fields.retain(|(name, _)| name != HISTORY.as_bytes());
            push(&mut fields, HISTORY, lines);
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
        if let Some(ended) = self.ended(error, None) {
            push(&mut letter, LAST_ATTEMPT, ended.line(entry.text(HISTORY)));
        }
        let forged = |(name, _): &(Bytes, Bytes)| name.starts_with(PREFIX.as_bytes());
        if entry.fields().len() > FIELDS_CARRIED_MAX || entry.fields().iter().any(forged) {
            // A script can pass on only a bounded number of values, and fields named like a dead letter's own fields
            // would be read as these. So entries of both kinds travel as one value.
            push(&mut letter, "sj-dead-raw", pack(entry.fields()));
        } else {
            // An older release would carry this field on into a redrive.
            let fields = entry.fields().iter().filter(|(name, _)| name != SINCE);
            letter.extend(fields.cloned());
        }
        letter
    }

    /// The record of this attempt, with its error if that is known.
    fn ended<'e>(&'e self, error: Option<&'e str>, retry_at: Option<u64>) -> Option<Ended<'e>> {
        let Run { end, took, process } = self.run?;
        Some(Ended {
            attempt: self.envelope.failures.saturating_add(1),
            end,
            began: self.started_at,
            took,
            process,
            delivery_count: self.delivery.delivery_count,
            retry_at,
            error,
        })
    }

    /// What the retry says of how long the job has waited for its first attempt; `None` if an error says that it began.
    fn since(&self, error: Option<&str>) -> Option<String> {
        let waits = waits_since(self.delivery, self.envelope).filter(|_| self.run.is_none());
        let since = || waits.map_or_else(|| BEGUN.to_owned(), |since| since.to_string());
        match error {
            Some(error) => error.starts_with(AWAITS_HANDLER).then(since),
            None => waits.is_none().then(since),
        }
    }

    /// Whether the job has to say that it began before it is released: without an error, its entry does not show it.
    pub(crate) fn began_now(&self) -> bool {
        self.run.is_some() && waits_since(self.delivery, self.envelope).is_some()
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
    /// The last attempts at the job, as far as they are known.
    pub history: AttemptHistory,
    stored: Fields,
}

impl DeadLetter {
    /// Its address, for calls that act on it.
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
    /// If a dead letter has no error, or its error says nothing about its job, the name comes from
    /// its reason and event type. A release may change this rule; new dead letters then no longer
    /// match old ones.
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
        let history = AttemptHistory::of(entry.text(HISTORY), entry.text(LAST_ATTEMPT));
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
            history,
            stored: entry.fields().to_vec(),
        }
    }

    /// The entry that a redrive puts into the lane; `None` without a payload.
    pub(crate) fn redriven(&self) -> Option<Fields> {
        let mut fields = redriven(&self.fields, self.event_id.as_ref(), self.origin)?;
        self.history.carry(&mut fields);
        Some(fields)
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
    // The job has freed its lock, which another event may have now.
    fields.retain(|(name, _)| name != REDRIVEN.as_bytes() && name != LOCK);
    if let Some(event_id) = event_id {
        push(&mut fields, "sj-id", event_id.as_str().to_owned());
    }
    if let Some(origin) = origin {
        push(&mut fields, "sj-origin", origin.to_string());
    }
    Some(fields)
}

/// How long a job has waited for its first attempt, at this time of the server's clock in milliseconds; `None` if it
/// began before. For a redriven job, the wait begins with the redrive.
pub(crate) fn waited(delivery: &Delivery, envelope: &Envelope, now: u64) -> Option<Duration> {
    let since = waits_since(delivery, envelope)?;
    Some(Duration::from_millis(now.saturating_sub(since)))
}

/// Since when a job waits for its first attempt, by the server's clock in milliseconds: since its publication, or
/// since its redrive. `None` if it began before.
fn waits_since(delivery: &Delivery, envelope: &Envelope) -> Option<u64> {
    let entry = &delivery.entry;
    let entered = entry.id().milliseconds();
    if !delivery.inlet.is_lane() {
        return Some(entered);
    }
    if has_begun(entry) {
        return None;
    }
    let awaits_handler = match entry.text(ERROR) {
        None => false,
        Some(error) if envelope.failures == 0 && error.starts_with(AWAITS_HANDLER) => true,
        Some(_) => return None,
    };
    let published = || envelope.origin.map_or(entered, EntryId::milliseconds);
    if !has_event_id(entry) {
        // Without an event id, the job waited in a line: a redriven job has one.
        return Some(published());
    }
    let told = entry.text(SINCE).and_then(|text| text.parse().ok());
    // A job without that time was redriven, or was stored by a release that does not write the time.
    Some(told.unwrap_or_else(|| if awaits_handler { published() } else { entered }))
}

/// Whether the entry says in its own field that the job began, and not by an error.
fn has_begun(entry: &Entry) -> bool {
    entry.text(SINCE) == Some(BEGUN)
}

fn has_event_id(entry: &Entry) -> bool {
    entry.text("sj-id").is_some_and(|id| !id.is_empty())
}

/// The number of the last mark that no longer cancels the job, because the job was redriven after
/// it.
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

/// Fields that a retry or a redrive writes anew.
const REWRITTEN: [&str; 8] = ["sj-id", "sj-attempt", "sj-origin", FIRST, ERROR, DUE, HELD, SINCE];
/// Since when a job in the lane has waited for its first attempt.
const SINCE: &str = "sj-since";
/// The value of [`SINCE`] once the handler has run. Older releases read it as an absent value.
const BEGUN: &str = "begun";
const FIRST: &str = "sj-first";
const ERROR: &str = "sj-error";
const DUE: &str = "sj-due";
/// The entry whose place in a limit the job keeps while it waits for its retry.
const HELD: &str = "sj-held";
const REDRIVEN: &str = "sj-redriven";
/// The attempt after which a job became a dead letter.
pub(crate) const LAST_ATTEMPT: &str = "sj-dead-attempt";
/// The prefix of a dead letter's own fields.
const PREFIX: &str = "sj-dead-";
/// The most fields that a script carries in one call, where Lua would allow about 4,000. A dead letter
/// of an entry with more fields holds them in one packed value, and cannot be redriven.
pub(crate) const FIELDS_CARRIED_MAX: usize = 1_000;
const CARRIED_ERROR_BYTES_MAX: usize = 512;
/// The UUID name space of digests of dead letters.
const DIGESTS: Uuid = Uuid::from_u128(0x8f0e_6f2c_53b1_5d0a_9a6b_6f10_2c1d_7e03);

#[cfg(test)]
mod tests;
