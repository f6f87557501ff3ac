//! The handle to batches.

use std::time::Duration;

use sqlx::{Executor, PgConnection};
use streamjobs::{EventId, GroupName, Job, JobError};

use super::change::Change;
use super::error::BatchError;
use super::new_batch::{BatchId, NewBatch};
use super::status::{BatchStatus, StatusRow};
use crate::postgres::Postgres;
use crate::time::seconds;
use crate::{fault, members};

/// A handle to the batches of a schema. It is cheap to clone.
///
/// Functions whose names end with `_in` take the caller's connection: `&mut transaction`, or the `&mut Once` of a
/// handler. The transaction has to be `READ COMMITTED`, Postgres' default. On a connection without a transaction,
/// each call commits by itself.
#[derive(Clone, Debug)]
pub struct Batches {
    postgres: Postgres,
}

impl Postgres {
    /// A handle to the batches of this schema.
    #[must_use]
    pub fn batches(&self) -> Batches {
        Batches { postgres: self.clone() }
    }
}

impl Batches {
    /// Opens a batch. `false` if there already is a batch with this id, which stays as it is, with
    /// its own events.
    ///
    /// # Errors
    ///
    /// When the database refuses or cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped, the transaction may or may not contain the change: roll it back. A connection
    /// that was in no transaction may now be in a transaction that sqlx does not know of: close it.
    pub async fn open_in(
        &self,
        connection: &mut PgConnection,
        batch: &NewBatch,
    ) -> Result<bool, BatchError> {
        Ok(Change::Open(batch).make(&self.postgres, connection).await? == 1)
    }

    /// Adds a group's jobs on these events to an open batch, and returns how many were not members before. An event
    /// may be published before or after this call. If it is never published, its member never ends, and the batch
    /// does not complete.
    ///
    /// **Add members before their jobs can run**: before their events are published, or in the same transaction with
    /// [`Publisher`](crate::Publisher). The end of a job that is not a member yet is not recorded.
    ///
    /// Transactions that add to one batch do not wait for each other, or for members that end. A close waits until
    /// these transactions have ended.
    ///
    /// # Errors
    ///
    /// When there is no such batch, it is closed, or the transaction is not `READ COMMITTED`: in these cases nothing
    /// is changed, and the transaction can go on. Also when the database refuses or cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// As [`open_in`](Self::open_in).
    pub async fn add_in(
        &self,
        connection: &mut PgConnection,
        id: &BatchId,
        group: &GroupName,
        events: &[EventId],
    ) -> Result<u64, BatchError> {
        let events = events.iter().map(EventId::as_str).collect();
        Change::Add { id, group, events, by: None }.make(&self.postgres, connection).await
    }

    /// As [`add_in`](Self::add_in), for a job that is itself a member and has not ended. It also adds to a closed
    /// batch, which cannot complete before this job has ended. Call it in the job's own transaction, or before its
    /// end. A dead member that is redriven can add members too: its batch may have completed, but does not succeed
    /// before the new members have ended.
    ///
    /// # Errors
    ///
    /// As [`add_in`](Self::add_in); [`Closed`](BatchError::Closed) if the batch is closed and the job is not an
    /// unfinished or dead member of it.
    ///
    /// # Cancel safety
    ///
    /// As [`open_in`](Self::open_in).
    pub async fn add_from_in(
        &self,
        connection: &mut PgConnection,
        job: &Job,
        id: &BatchId,
        group: &GroupName,
        events: &[EventId],
    ) -> Result<u64, BatchError> {
        let events = events.iter().map(EventId::as_str).collect();
        Change::Add { id, group, events, by: Some(job) }.make(&self.postgres, connection).await
    }

    /// Closes a batch: from now on, only its unfinished members can add members, and it completes when the last of
    /// them has ended. If no unfinished member is left, it completes with this transaction. `false` if it was closed
    /// before.
    ///
    /// The call waits for transactions that have added members or ended a member. Make it last in your transaction,
    /// because ends of members wait until your transaction has ended.
    ///
    /// # Errors
    ///
    /// When there is no such batch, or the transaction is not `READ COMMITTED`; and when the database refuses or cannot
    /// be reached.
    ///
    /// # Cancel safety
    ///
    /// As [`open_in`](Self::open_in).
    pub async fn close_in(
        &self,
        connection: &mut PgConnection,
        id: &BatchId,
    ) -> Result<bool, BatchError> {
        Ok(Change::Close(id).make(&self.postgres, connection).await? == 1)
    }

    /// Ends the membership of a job that is done, in a transaction of its own: for handlers without a guard, which
    /// call it as the last thing. [`EndMember`](super::EndMember) does this around a handler. The call can be
    /// repeated.
    ///
    /// # Errors
    ///
    /// When the database refuses or cannot be reached, or the handler's timeout is near. Return it from the handler:
    /// the job is snoozed, or fails, and runs again.
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped, the job may or may not have ended as a member.
    pub async fn end(&self, job: &Job) -> Result<(), JobError> {
        let ended = async {
            let mut transaction = self.postgres.begin_limited().await?;
            let (group, id) = (job.group(), job.event_id().as_str());
            members::end(&self.postgres, &mut transaction, group, &[(id, false)]).await?;
            (&mut *transaction).execute(self.postgres.commit()).await?;
            Ok(())
        };
        fault::within(self.postgres.timeout_before(job), ended).await.map_err(fault::own_error)
    }

    /// Ends a member by hand, in this batch alone. It is for a member whose job cannot end it any more: the payload
    /// was trimmed, the scheduled event was cancelled, the dead letter was purged before an archive stored it, or no
    /// such job ever comes. `dead` says that the work is not done, as for a dead letter: the batch completes without
    /// it, but does not succeed before the member is ended again as done, by a run or by this call.
    ///
    /// `false` if it changed nothing: there is no such member, or it had already ended in this way or as done. The
    /// call does not keep the job from running. If the job runs, a member that was ended as done stays done.
    ///
    /// Like every end, the call locks the row of the batch, so make it last in its transaction.
    ///
    /// # Errors
    ///
    /// When the transaction is not `READ COMMITTED`; and when the database refuses or cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// As [`open_in`](Self::open_in).
    pub async fn end_in(
        &self,
        connection: &mut PgConnection,
        id: &BatchId,
        group: &GroupName,
        event_id: &EventId,
        dead: bool,
    ) -> Result<bool, BatchError> {
        let change = Change::End { id, group, event: event_id.as_str(), dead };
        Ok(change.make(&self.postgres, connection).await? == 1)
    }

    /// The status of a batch; `None` if there is no such batch.
    ///
    /// # Errors
    ///
    /// When the database refuses or cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn status(&self, id: &BatchId) -> Result<Option<BatchStatus>, sqlx::Error> {
        let read = async {
            let mut reading = self.postgres.begin_reading().await?;
            let row = self.postgres.query_as::<StatusRow>(STATUS).bind(id.as_str());
            row.fetch_optional(&mut *reading).await
        };
        let row = fault::within(self.postgres.timeout(), read).await?;
        Ok(row.map(BatchStatus::of))
    }

    /// Batches that were opened this long ago and have not completed, oldest first: at most `limit`, and never more
    /// than 1,000. Such a batch was never closed, or has members whose jobs wait, were lost, or never came.
    ///
    /// # Errors
    ///
    /// When the database refuses or cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn unfinished(
        &self,
        older_than: Duration,
        limit: u32,
    ) -> Result<Vec<BatchStatus>, sqlx::Error> {
        let read = async {
            let mut reading = self.postgres.begin_reading().await?;
            let rows = self.postgres.query_as::<StatusRow>(UNFINISHED).bind(seconds(older_than));
            rows.bind(i64::from(limit.min(PAGE_MAX))).fetch_all(&mut *reading).await
        };
        let rows = fault::within(self.postgres.timeout(), read).await?;
        Ok(rows.into_iter().map(BatchStatus::of).collect())
    }
}

macro_rules! status {
    ($batches:literal) => {
        concat!(
            "SELECT batch.id, batch.opened_at, batch.changed_at, batch.closed_at, batch.completed_at,
                 batch.succeeded_at, counted.members, counted.unfinished, counted.dead
             FROM ",
            $batches,
            " CROSS JOIN LATERAL (
                 SELECT count(*) AS members, count(*) FILTER (WHERE ended_at IS NULL) AS unfinished,
                     count(*) FILTER (WHERE dead) AS dead
                 FROM streamjobs.batch_members AS member WHERE member.batch_id = batch.id) AS counted
             ORDER BY batch.opened_at"
        )
    };
}

const STATUS: &str = status!("(SELECT * FROM streamjobs.batches WHERE id = $1) AS batch");
const UNFINISHED: &str = status!(
    "(SELECT * FROM streamjobs.batches
      WHERE completed_at IS NULL AND opened_at < clock_timestamp() - make_interval(secs => $1)
      ORDER BY opened_at LIMIT $2) AS batch"
);

const PAGE_MAX: u32 = 1_000;
