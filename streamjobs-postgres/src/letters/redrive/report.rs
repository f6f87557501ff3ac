//! The progress and the outcomes of redrives.

use std::str::FromStr;
use std::time::SystemTime;

use serde_json::Value;
use sqlx::Row;
use sqlx::postgres::PgRow;
use streamjobs::EntryId;

use crate::letters::counts::number;
use crate::letters::scope::redrive_in_scope;
use crate::letters::{DeadLetters, LetterId, QueryError, RedriveId};
use crate::time::Timestamp;

/// A redrive, as its audit row describes it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Redrive {
    /// Its number.
    pub id: RedriveId,
    /// Who requested it.
    pub by: String,
    /// Why it was requested.
    pub why: String,
    /// The selection: a serialized [`Selection`](crate::letters::Selection).
    pub selection: Value,
    /// When it was requested, by the clock of the database.
    pub requested_at: SystemTime,
    /// Its state.
    pub state: RedriveState,
    /// When it ended, by the clock of the database.
    pub finished_at: Option<SystemTime>,
    /// The number of dead letters in it.
    pub letters: u64,
    /// The number of jobs put back.
    pub done: u64,
    /// The number of jobs that could not be put back.
    pub failed: u64,
    /// The number of dead letters that were deleted, or redriven by another request, before this
    /// redrive reached them.
    pub skipped: u64,
}

/// The state of a redrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RedriveState {
    /// Some dead letters wait. A process may or may not be working on them: it can be resumed at
    /// any time.
    Running,
    /// All dead letters were tried.
    Finished,
    /// It reached the limit of failures. It can be resumed.
    Stopped,
    /// It was cancelled.
    Cancelled,
}

/// The outcome of one dead letter in a redrive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LetterOutcome {
    /// The number of the dead letter, which may have been pruned since.
    pub letter: LetterId,
    /// Its event.
    pub event_id: Option<String>,
    /// Its state in this redrive.
    pub state: OutcomeState,
    /// The job's new entry; `None` if it was put back and the reply was lost.
    pub entry_id: Option<EntryId>,
    /// Why it failed or was skipped.
    pub error: Option<String>,
    /// When the state last changed, by the clock of the database.
    pub changed_at: Option<SystemTime>,
}

/// The state of a dead letter in a redrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OutcomeState {
    /// It was not tried yet.
    Waiting,
    /// Its job was put back.
    Done,
    /// Its job could not be put back. The dead letter is unchanged.
    Failed,
    /// It was deleted, or redriven by another request, before this redrive reached it.
    Skipped,
}

impl Redrive {
    /// The number of dead letters that were not tried yet.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.letters.saturating_sub(self.done + self.failed + self.skipped)
    }

    pub(in crate::letters) fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
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
    /// Redrives with their progress, newest first: those before the given redrive, at most `limit`,
    /// and never more than 1,000.
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
        let failed = |source| QueryError::database("list the redrives of", source);
        let mut reading = self.postgres.begin_reading().await.map_err(failed)?;
        let query = self.postgres.query(REDRIVES);
        let query = query.bind(before.map_or(i64::MAX, RedriveId::get)).bind(page(limit));
        let query = query.bind(self.scope.streams());
        let rows = query.fetch_all(&mut *reading).await.map_err(failed)?;
        rows.iter().map(Redrive::of).collect::<Result<_, _>>().map_err(failed)
    }

    /// The outcomes of the dead letters of a redrive, by their numbers: those after the given
    /// number, at most `limit`, and never more than 1,000.
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
        let failed = |source| QueryError::database("list the outcomes of a redrive in", source);
        let mut reading = self.postgres.begin_reading().await.map_err(failed)?;
        let query = self.postgres.query(OUTCOMES).bind(redrive.get());
        let query = query.bind(after.map_or(i64::MIN, LetterId::get)).bind(page(limit));
        let query = query.bind(self.scope.streams());
        let rows = query.fetch_all(&mut *reading).await.map_err(failed)?;
        rows.iter().map(LetterOutcome::of).collect::<Result<_, _>>().map_err(failed)
    }
}

fn page(limit: usize) -> i64 {
    i64::try_from(limit.clamp(1, PAGE_MAX)).unwrap_or(i64::MAX)
}

/// The columns of a [`Redrive`].
macro_rules! redrive_columns {
    () => {
        "id, requested_by, reason, selection, requested_at, state, finished_at,
         letters, done, failed, skipped"
    };
}
pub(super) use redrive_columns;

pub(in crate::letters) const REDRIVES: &str = concat!(
    "SELECT ",
    redrive_columns!(),
    " FROM streamjobs.redrives WHERE id < $1 AND ",
    redrive_in_scope!("$3"),
    " ORDER BY id DESC LIMIT $2",
);
const OUTCOMES: &str = concat!(
    "SELECT letter_id, event_id, state, entry_id, error, changed_at
     FROM streamjobs.redrive_letters
     WHERE redrive_id = $1 AND letter_id > $2
         AND EXISTS (SELECT FROM streamjobs.redrives WHERE id = $1 AND ",
    redrive_in_scope!("$4"),
    ")
     ORDER BY letter_id
     LIMIT $3",
);
const PAGE_MAX: usize = 1_000;
