//! Putting jobs back for their groups: asked for once, carried out in batches, and told.

mod batch;
mod job;
mod pace;
mod plan;
mod report;
mod run;

use std::num::NonZeroU32;

use sqlx::types::Json;
use sqlx::{Executor, Row};
use streamjobs::Client;
use uuid::Uuid;

use super::selection::matching;
use super::{DeadLetters, LetterState, QueryError, RedriveError, RedriveId, Selection};
use crate::schema::READ_COMMITTED;

pub use self::plan::RedrivePlan;
pub use self::report::{LetterOutcome, OutcomeState, Redrive, RedriveState};

/// Who wants jobs to be put back, and why. It stays in the audit table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    by: String,
    why: String,
}

impl Request {
    /// Who asks and why: each 1 to 1,000 bytes, such as a user's name and a ticket.
    pub fn new(by: impl Into<String>, why: impl Into<String>) -> Self {
        Self { by: by.into(), why: why.into() }
    }

    fn check(&self) -> Result<(), RedriveError> {
        for (part, text) in [("by", &self.by), ("why", &self.why)] {
            if text.trim().is_empty() || text.len() > TEXT_BYTES_MAX || text.contains('\0') {
                return Err(RedriveError::Request { part, max: TEXT_BYTES_MAX });
            }
        }
        Ok(())
    }
}

/// A redrive that is being put together; nothing has happened yet.
#[derive(Clone, Debug)]
#[must_use = "nothing is put back until it is started"]
pub struct Redriving {
    letters: DeadLetters,
    selection: Selection,
    request: Request,
    again: bool,
    rate: Option<NonZeroU32>,
    stop_after: Option<NonZeroU32>,
}

impl DeadLetters {
    /// Begins to describe a redrive of the letters of a selection: one (by its id), some, or all
    /// that are open ([`Selection::new`]).
    pub fn redrive(&self, selection: Selection, request: Request) -> Redriving {
        let letters = self.clone();
        Redriving { letters, selection, request, again: false, rate: None, stop_after: None }
    }
}

impl Redriving {
    /// At most how many jobs a second are put back, by all processes that work on the request
    /// together. By default as many as the servers take, which may be more than the handlers can
    /// do: the group's new events wait behind none of them, but share its slots with them.
    pub fn rate(mut self, per_second: NonZeroU32) -> Self {
        self.rate = Some(per_second);
        self
    }

    /// Stops when this many jobs could not be put back, as when their group is gone. By default
    /// each letter has its turn.
    ///
    /// A server that cannot be reached is no failure: see [`start`](Self::start).
    pub fn stop_after(mut self, failures: NonZeroU32) -> Self {
        self.stop_after = Some(failures);
        self
    }

    /// Puts the letters back even if that was done before, or if the guard knows their jobs as
    /// done. They must be named by [`Selection::ids`].
    ///
    /// # Delivery
    ///
    /// A job that was done runs again. Guarded effects still happen once.
    pub fn again(mut self) -> Self {
        self.again = true;
        self.selection = self.selection.state(LetterState::All);
        self
    }

    /// Writes the request down, with one row for each letter that matches now, and puts nothing
    /// back: [`DeadLetters::resume`] does, in this process or in another one.
    ///
    /// # Errors
    ///
    /// When the request or the selection cannot be asked for, or the database refuses or cannot be
    /// reached. Nothing is written then, unless the answer was lost.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether the request was written: all of it or nothing.
    pub async fn record(&self) -> Result<RedriveId, RedriveError> {
        self.check().await?;
        let recorded = self.write().await;
        Ok(recorded.map_err(|source| QueryError::database("record a redrive in", source))?)
    }

    /// Writes the request down and carries it out, oldest letters first, until each had its turn,
    /// as many failed as may, or somebody [cancels](DeadLetters::cancel) it.
    ///
    /// Letters that are archived meanwhile are not part of it. While a server cannot be reached it
    /// is tried for about 20 s.
    ///
    /// # Errors
    ///
    /// As [`record`](Self::record), and [`RedriveError::Interrupted`] when a server could not be
    /// reached for too long. What was put back is noted, and [`DeadLetters::resume`] goes on.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves a request that can be resumed. No job is put back twice.
    ///
    /// # Delivery
    ///
    /// Each job is put back once for a request, under its own event id and with its failures
    /// forgotten, also when processes or servers die in the middle: the server remembers for 7 days
    /// what it put back. A request that is resumed later than that may put up to 100 jobs back that
    /// it put back before.
    pub async fn start(&self, client: &Client) -> Result<Redrive, RedriveError> {
        let id = self.record().await?;
        self.letters.resume(id, client).await
    }

    async fn check(&self) -> Result<(), RedriveError> {
        self.request.check()?;
        let reaches_further = !self.selection.is_open();
        if reaches_further && !(self.again && self.selection.is_by_id()) {
            return Err(RedriveError::NotOpen);
        }
        Ok(self.letters.check(&self.selection).await?)
    }

    async fn write(&self) -> Result<RedriveId, sqlx::Error> {
        let (postgres, bound) = (&self.letters.postgres, |bound: Option<NonZeroU32>| {
            bound.map(|bound| i64::from(bound.get()))
        });
        let mut transaction = postgres.pool().begin_with(READ_COMMITTED).await?;
        let row = sqlx::query(postgres.schema().sql(RECORD))
            .bind(&self.request.by)
            .bind(&self.request.why)
            .bind(Json(&self.selection))
            .bind(self.again)
            .bind(bound(self.rate))
            .bind(bound(self.stop_after))
            .bind(Uuid::now_v7().to_string())
            .fetch_one(&mut *transaction)
            .await?;
        let id = row.try_get::<i64, _>("id")?;
        let query = self.selection.bind(sqlx::query(postgres.schema().sql(RECORD_LETTERS)));
        let letters = query.bind(id).execute(&mut *transaction).await?.rows_affected();
        sqlx::query(postgres.schema().sql(RECORD_COUNT))
            .bind(id)
            .bind(i64::try_from(letters).unwrap_or(i64::MAX))
            .execute(&mut *transaction)
            .await?;
        // Jobs go back next; who asked for that is on disk by then, whatever the session's default is.
        (&mut *transaction).execute(postgres.commit()).await?;
        Ok(RedriveId::new(id))
    }
}

const TEXT_BYTES_MAX: usize = 1_000;

const RECORD: &str = "INSERT INTO streamjobs.redrives
         (requested_by, reason, selection, again, rate, stop_after, token)
     VALUES ($1, $2, $3, $4, $5, $6, $7)
     RETURNING id";

const RECORD_LETTERS: &str = concat!(
    "INSERT INTO streamjobs.redrive_letters (redrive_id, letter_id, event_id)
     SELECT $14, l.id, l.event_id FROM streamjobs.dead_letters l WHERE ",
    matching!(),
);

const RECORD_COUNT: &str = "UPDATE streamjobs.redrives SET letters = $2 WHERE id = $1";
