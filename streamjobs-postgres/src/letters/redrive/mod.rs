//! Redriving dead letters: a request is recorded once, carried out in batches, and reported.

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

pub use self::plan::RedrivePlan;
pub(super) use self::report::REDRIVES;
pub use self::report::{LetterOutcome, OutcomeState, Redrive, RedriveState};

/// Who requests a redrive, and why. It is stored in the audit table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    by: String,
    why: String,
}

impl Request {
    /// A request by a person or a program, for a reason: each 1 to 1,000 bytes, such as a user name
    /// and a ticket.
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

/// A builder for a redrive.
#[derive(Clone, Debug)]
#[must_use = "a redrive does nothing before it is started"]
pub struct Redriving {
    letters: DeadLetters,
    selection: Selection,
    request: Request,
    again: bool,
    rate: Option<NonZeroU32>,
    stop_after: Option<NonZeroU32>,
}

impl DeadLetters {
    /// A builder for a redrive of the selected dead letters: one (by its id), some, or all open
    /// ones ([`Selection::new`]).
    pub fn redrive(&self, selection: Selection, request: Request) -> Redriving {
        let (letters, selection) = (self.clone(), self.scope.of(&selection));
        Redriving { letters, selection, request, again: false, rate: None, stop_after: None }
    }
}

impl Redriving {
    /// The maximum number of jobs put back per second, over all processes that work on the request.
    /// By default it is unlimited, which may be more than the handlers can do. New events of the
    /// group do not wait behind redriven jobs, but share the group's slots with them.
    pub fn rate(mut self, per_second: NonZeroU32) -> Self {
        self.rate = Some(per_second);
        self
    }

    /// Stops after this many dead letters could not be redriven, for example because their group
    /// does not exist any more. By default all of them are tried.
    ///
    /// An unreachable server does not count as a failure: see [`start`](Self::start).
    pub fn stop_after(mut self, failures: NonZeroU32) -> Self {
        self.stop_after = Some(failures);
        self
    }

    /// Redrives dead letters even if they were redriven before, or are known as done. They must be
    /// named by [`Selection::ids`].
    ///
    /// # Delivery
    ///
    /// A job that was done runs again. Guarded effects still happen once.
    pub fn again(mut self) -> Self {
        self.again = true;
        self.selection = self.selection.state(LetterState::All);
        self
    }

    /// Records the request, with a row for each dead letter that matches now, and puts no job back.
    /// [`DeadLetters::resume`] carries it out, in this process or in another process.
    ///
    /// # Errors
    ///
    /// When the request or the selection is invalid, or the database refuses or cannot be reached.
    /// In these cases nothing is written, except that the request may have been recorded if the database's reply was
    /// lost.
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped, either the whole request or nothing is recorded.
    pub async fn record(&self) -> Result<RedriveId, RedriveError> {
        self.check().await?;
        let recorded = self.write().await;
        Ok(recorded.map_err(|source| QueryError::database("record a redrive in", source))?)
    }

    /// Records the request and carries it out, oldest dead letters first, until all were tried, the
    /// limit of failures is reached, or the request is [cancelled](DeadLetters::cancel).
    ///
    /// Dead letters that are archived later are not part of it. While a server is unreachable, the
    /// redrive retries for about 20 s.
    ///
    /// # Errors
    ///
    /// As [`record`](Self::record), and [`RedriveError::Interrupted`] if a server was unreachable
    /// for too long. The progress is recorded, and [`DeadLetters::resume`] continues.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves a request that can be resumed. No job is put back twice.
    ///
    /// # Delivery
    ///
    /// Each job is put back once per request, under its own event id and with its failures reset,
    /// even if processes or servers crash: Redis remembers for 7 days which jobs it put back. A
    /// request that is resumed later than that may put up to 100 jobs back a second time.
    pub async fn start(&self, client: &Client) -> Result<Redrive, RedriveError> {
        let id = self.record().await?;
        self.letters.resume(id, client).await
    }

    async fn check(&self) -> Result<(), RedriveError> {
        self.request.check()?;
        let may_repeat = self.again && self.selection.is_by_id();
        if !(self.selection.is_open() || may_repeat) {
            return Err(RedriveError::NotOpen);
        }
        Ok(self.letters.check(&self.selection).await?)
    }

    async fn write(&self) -> Result<RedriveId, sqlx::Error> {
        let (postgres, bound) = (&self.letters.postgres, |bound: Option<NonZeroU32>| {
            bound.map(|bound| i64::from(bound.get()))
        });
        let mut transaction = postgres.begin_limited().await?;
        let row = postgres
            .query(RECORD)
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
        let query = self.selection.bind(postgres.query(RECORD_LETTERS));
        let letters = query.bind(id).execute(&mut *transaction).await?.rows_affected();
        postgres
            .query(RECORD_COUNT)
            .bind(id)
            .bind(i64::try_from(letters).unwrap_or(i64::MAX))
            .execute(&mut *transaction)
            .await?;
        // The audit row must be on disk before the first job is put back, whatever the session's
        // default is.
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
     SELECT $15, l.id, l.event_id FROM streamjobs.dead_letters l WHERE ",
    matching!(),
);

const RECORD_COUNT: &str = "UPDATE streamjobs.redrives SET letters = $2 WHERE id = $1";
