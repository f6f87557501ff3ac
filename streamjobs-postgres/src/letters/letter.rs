//! One archived dead letter.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::Value;
use sqlx::Row;
use sqlx::postgres::PgRow;
use streamjobs::dead_letter::AttemptHistory;
use streamjobs::{EntryId, Fields};

use super::id::LetterId;
use super::selection::LetterState;
use crate::time::Timestamp;

/// A dead letter in the archive.
///
/// `Debug` shows everything except the payload.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct ArchivedLetter {
    /// The number of its row.
    pub id: LetterId,
    /// The stream that the event was published to.
    pub stream: String,
    /// The group whose job was dead-lettered.
    pub group: String,
    /// Its own entry in the group's dead-letter stream.
    pub dead_letter_id: Option<EntryId>,
    /// The event id; unknown if the payload was trimmed.
    pub event_id: Option<String>,
    /// The event type, if the entry has one.
    pub event_type: Option<String>,
    /// Why the job was dead-lettered: the name of a [`Reason`](streamjobs::dead_letter::Reason).
    pub reason: String,
    /// The last error with its causes, in one line.
    pub error: Option<String>,
    /// The fingerprint of its error: the same for errors that differ only in numbers, ids and
    /// quoted values.
    pub fingerprint: String,
    /// The number of failures recorded before it was dead-lettered.
    pub attempts: u32,
    /// How often the dead-lettered entry had been delivered.
    pub deliveries: u64,
    /// The consumer that had the entry.
    pub consumer: Option<String>,
    /// The entry that was dead-lettered.
    pub entry_id: Option<EntryId>,
    /// The entry that was published. After a retry it differs from the dead-lettered entry.
    pub origin: Option<EntryId>,
    /// When the event was published, by the clock of the Redis server.
    pub published_at: Option<SystemTime>,
    /// When the job was first delivered, by the clock of the Redis server.
    pub first_delivery: Option<SystemTime>,
    /// When the job was last delivered, by the clock of the Redis server.
    pub last_delivery: Option<SystemTime>,
    /// When the job was dead-lettered, by the clock of the Redis server. The column is `buried_at`.
    pub dead_lettered_at: SystemTime,
    /// When the row was written, by the clock of the database.
    pub archived_at: SystemTime,
    /// Whether the guard says that the job was done.
    pub known_done: bool,
    /// When the job was redriven, by the clock of the database.
    pub redriven_at: Option<SystemTime>,
    fields: Fields,
    payload: Option<Value>,
    history: AttemptHistory,
}

impl ArchivedLetter {
    /// The fields of the entry, byte for byte; empty if the payload was trimmed.
    #[must_use]
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The payload as JSON, if it has a form that Postgres accepts.
    #[must_use]
    pub fn payload(&self) -> Option<&Value> {
        self.payload.as_ref()
    }

    /// The last attempts at the job. Lists do not read them.
    #[must_use]
    pub fn history(&self) -> &AttemptHistory {
        &self.history
    }

    /// Its state. A dead letter that is both redriven and known as done counts as redriven.
    #[must_use]
    pub fn state(&self) -> LetterState {
        match (self.redriven_at, self.known_done) {
            (Some(_), _) => LetterState::Redriven,
            (None, true) => LetterState::KnownDone,
            (None, false) => LetterState::Open,
        }
    }

    /// Reads a row of [`columns!`]. A value that was written by hand and is invalid becomes `None`.
    pub(super) fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        let text = |column: &str| row.try_get::<Option<String>, _>(column);
        let entry = |column: &str| {
            let text = row.try_get::<Option<String>, _>(column)?;
            Ok::<_, sqlx::Error>(text.and_then(|text| EntryId::from_str(&text).ok()))
        };
        let time = |column: &str| {
            let time = row.try_get::<Option<Timestamp>, _>(column)?;
            Ok::<_, sqlx::Error>(time.map(|time| time.0))
        };
        Ok(Self {
            id: LetterId::new(row.try_get("id")?),
            stream: row.try_get("stream")?,
            group: row.try_get("group_name")?,
            dead_letter_id: entry("letter_id")?,
            event_id: text("event_id")?,
            event_type: text("event_type")?,
            reason: row.try_get("reason")?,
            error: text("error")?,
            fingerprint: row.try_get("fingerprint")?,
            attempts: u32::try_from(row.try_get::<i32, _>("attempts")?).unwrap_or(0),
            deliveries: u64::try_from(row.try_get::<i64, _>("deliveries")?).unwrap_or(0),
            consumer: text("consumer")?,
            entry_id: entry("entry_id")?,
            origin: entry("origin_id")?,
            published_at: time("published_at")?,
            first_delivery: time("first_delivery")?,
            last_delivery: time("last_delivery")?,
            dead_lettered_at: row.try_get::<Timestamp, _>("buried_at")?.0,
            archived_at: row.try_get::<Timestamp, _>("archived_at")?.0,
            known_done: row.try_get("known_done")?,
            redriven_at: time("redriven_at")?,
            fields: fields(row)?,
            payload: text("payload")?.and_then(|text| serde_json::from_str(&text).ok()),
            history: history(row)?,
        })
    }
}

impl fmt::Debug for ArchivedLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchivedLetter")
            .field("id", &self.id)
            .field("stream", &self.stream)
            .field("group", &self.group)
            .field("dead_letter_id", &self.dead_letter_id)
            .field("event_id", &self.event_id)
            .field("event_type", &self.event_type)
            .field("reason", &self.reason)
            .field("error", &self.error)
            .field("fingerprint", &self.fingerprint)
            .field("attempts", &self.attempts)
            .field("deliveries", &self.deliveries)
            .field("consumer", &self.consumer)
            .field("entry_id", &self.entry_id)
            .field("origin", &self.origin)
            .field("dead_lettered_at", &self.dead_lettered_at)
            .field("known_done", &self.known_done)
            .field("redriven_at", &self.redriven_at)
            .finish_non_exhaustive()
    }
}

/// The fields of a row that has `field_names` and `field_values`.
pub(super) fn fields(row: &PgRow) -> Result<Fields, sqlx::Error> {
    let names = row.try_get::<Vec<Vec<u8>>, _>("field_names")?;
    let values = row.try_get::<Vec<Vec<u8>>, _>("field_values")?;
    let field = |(name, value)| (Bytes::from(name), Bytes::from(value));
    Ok(names.into_iter().zip(values).map(field).collect())
}

/// The past attempts of a row that has `history`. A value that was written by hand and is not such an array counts as
/// none.
pub(super) fn history(row: &PgRow) -> Result<AttemptHistory, sqlx::Error> {
    let text = row.try_get::<Option<&str>, _>("history")?;
    let lines = text.and_then(|text| serde_json::from_str::<Vec<Value>>(text).ok());
    let lines = lines.unwrap_or_default().iter().map(Value::to_string).collect::<Vec<_>>();
    Ok(AttemptHistory::from_text(&lines.join("\n")))
}

/// The columns of an [`ArchivedLetter`], of the table `l`.
///
/// The payload is read as text: a row written by hand can have a number that no client can parse,
/// which must not make the whole page fail.
macro_rules! columns {
    () => {
        concat!(
            columns!(without payload),
            ", l.field_names, l.field_values, l.payload::text AS payload, l.history::text AS history"
        )
    };
    (without payload) => {
        "l.id, l.stream, l.group_name, l.letter_id, l.event_id, l.event_type, l.reason, l.error,
         l.fingerprint, l.attempts, l.deliveries, l.consumer, l.entry_id, l.origin_id,
         l.published_at, l.first_delivery, l.last_delivery, l.buried_at, l.archived_at,
         l.known_done, l.redriven_at"
    };
}
pub(super) use columns;
