//! Requests to put jobs back, and what became of them.

use std::str::FromStr;
use std::time::SystemTime;

use serde_json::Value;
use sqlx::Row;
use sqlx::postgres::PgRow;
use streamjobs::EntryId;

use crate::letters::counts::number;
use crate::letters::{DeadLetters, LetterId, QueryError, RedriveId};
use crate::time::Timestamp;

/// A request to put jobs back, as its audit row has it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Redrive {
    /// Its number.
    pub id: RedriveId,
    /// Who asked.
    pub by: String,
    /// Why.
    pub why: String,
    /// Which letters were asked for: a stored [`Selection`](crate::letters::Selection).
    pub selection: Value,
    /// When it was asked for, by the clock of the database.
    pub requested_at: SystemTime,
    /// Where it stands.
    pub state: RedriveState,
    /// When it ended, by the clock of the database.
    pub finished_at: Option<SystemTime>,
    /// How many letters it is about.
    pub letters: u64,
    /// How many jobs were put back.
    pub done: u64,
    /// How many could not be.
    pub failed: u64,
    /// How many were deleted, or put back by another request, before their turn came.
    pub skipped: u64,
}

/// Where a request to put jobs back stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RedriveState {
    /// Some letters wait. Whether a process works on them is not known here: it can be resumed at
    /// any time.
    Running,
    /// Every letter had its turn.
    Finished,
    /// As many failed as were allowed to. It can be resumed.
    Stopped,
    /// Somebody called it off.
    Cancelled,
}

/// What became of one letter in one request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LetterOutcome {
    /// The letter's number; the letter itself may be pruned.
    pub letter: LetterId,
    /// The letter's event.
    pub event_id: Option<String>,
    /// What became of it.
    pub state: OutcomeState,
    /// The job's new entry; none where it was put back and the answer was lost.
    pub entry_id: Option<EntryId>,
    /// Why it failed or was skipped.
    pub error: Option<String>,
    /// When, by the clock of the database.
    pub changed_at: Option<SystemTime>,
}

/// What became of a letter in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OutcomeState {
    /// Its turn has not come.
    Waiting,
    /// Its job was put back.
    Done,
    /// Its job could not be put back. The letter is as it was.
    Failed,
    /// There was nothing to do any more.
    Skipped,
}

impl Redrive {
    /// How many letters wait for their turn.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.letters.saturating_sub(self.done + self.failed + self.skipped)
    }

    pub(super) fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        let state = match row.try_get::<&str, _>("state")? {
            "finished" => RedriveState::Finished,
            "stopped" => RedriveState::Stopped,
            "cancelled" => RedriveState::Cancelled,
            _ => RedriveState::Running,
        };
        Ok(Self {
            id: RedriveId::new(row.try_get("id")?),
            by: row.try_get("requested_by")?,
            why: row.try_get("reason")?,
            selection: row.try_get("selection")?,
            requested_at: row.try_get::<Timestamp, _>("requested_at")?.0,
            state,
            finished_at: row.try_get::<Option<Timestamp>, _>("finished_at")?.map(|time| time.0),
            letters: number(row, "letters")?,
            done: number(row, "done")?,
            failed: number(row, "failed")?,
            skipped: number(row, "skipped")?,
        })
    }
}

impl OutcomeState {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

impl LetterOutcome {
    fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        let state = match row.try_get::<&str, _>("state")? {
            "done" => OutcomeState::Done,
            "failed" => OutcomeState::Failed,
            "skipped" => OutcomeState::Skipped,
            _ => OutcomeState::Waiting,
        };
        let entry_id = row.try_get::<Option<&str>, _>("entry_id")?;
        Ok(Self {
            letter: LetterId::new(row.try_get("letter_id")?),
            event_id: row.try_get("event_id")?,
            state,
            entry_id: entry_id.and_then(|text| EntryId::from_str(text).ok()),
            error: row.try_get("error")?,
            changed_at: row.try_get::<Option<Timestamp>, _>("changed_at")?.map(|time| time.0),
        })
    }
}

impl DeadLetters {
    /// Requests to put jobs back with their progress, the last one first: those before the given
    /// one, at most `limit` and at most 1,000.
    ///
    /// # Errors
    ///
    /// When the database refuses or cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn redrives(
        &self,
        before: Option<RedriveId>,
        limit: usize,
    ) -> Result<Vec<Redrive>, QueryError> {
        let rows = sqlx::query(self.postgres.schema().sql(REDRIVES))
            .bind(before.map_or(i64::MAX, RedriveId::get))
            .bind(page(limit))
            .fetch_all(self.postgres.pool())
            .await;
        let redrives = rows.and_then(|rows| rows.iter().map(Redrive::of).collect());
        redrives.map_err(|source| QueryError::database("list the redrives of", source))
    }

    /// What became of the letters of a request, by their numbers: those after the given one, at
    /// most `limit` and at most 1,000.
    ///
    /// # Errors
    ///
    /// When the database refuses or cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn outcomes(
        &self,
        redrive: RedriveId,
        after: Option<LetterId>,
        limit: usize,
    ) -> Result<Vec<LetterOutcome>, QueryError> {
        let rows = sqlx::query(self.postgres.schema().sql(OUTCOMES))
            .bind(redrive.get())
            .bind(after.map_or(i64::MIN, LetterId::get))
            .bind(page(limit))
            .fetch_all(self.postgres.pool())
            .await;
        let outcomes = rows.and_then(|rows| rows.iter().map(LetterOutcome::of).collect());
        outcomes.map_err(|source| QueryError::database("list the outcomes of a redrive in", source))
    }
}

fn page(limit: usize) -> i64 {
    i64::try_from(limit.clamp(1, PAGE_MAX)).unwrap_or(i64::MAX)
}

/// The columns that make a [`Redrive`].
macro_rules! redrive_columns {
    () => {
        "id, requested_by, reason, selection, requested_at, state, finished_at,
         letters, done, failed, skipped"
    };
}
pub(super) use redrive_columns;

const REDRIVES: &str = concat!(
    "SELECT ",
    redrive_columns!(),
    " FROM streamjobs.redrives WHERE id < $1 ORDER BY id DESC LIMIT $2",
);
const OUTCOMES: &str = "SELECT letter_id, event_id, state, entry_id, error, changed_at
     FROM streamjobs.redrive_letters
     WHERE redrive_id = $1 AND letter_id > $2
     ORDER BY letter_id
     LIMIT $3";
const PAGE_MAX: usize = 1_000;
