//! The changes of a batch, in the caller's transaction.

use sqlx::PgConnection;
use streamjobs::{EncodedEvent, GroupName, Job};

use super::error::BatchError;
use super::new_batch::{BatchId, NewBatch};
use crate::postgres::Postgres;
use crate::{members, statement};

/// One change of a batch.
pub(super) enum Change<'a> {
    Open(&'a NewBatch),
    Add {
        id: &'a BatchId,
        group: &'a GroupName,
        events: Vec<&'a str>,
        /// The member whose job adds these members, if it is a member that adds.
        by: Option<&'a Job>,
    },
    Close(&'a BatchId),
    /// Ends a member by hand.
    End {
        id: &'a BatchId,
        group: &'a GroupName,
        event: &'a str,
        dead: bool,
    },
}

impl Change<'_> {
    /// Makes the change, in a transaction of its own if the connection is in none, and returns how many rows it
    /// affects.
    pub(super) async fn make(
        &self,
        postgres: &Postgres,
        connection: &mut PgConnection,
    ) -> Result<u64, BatchError> {
        let failed =
            |source| BatchError::Database { schema: postgres.schema().to_string(), source };
        if statement::is_in_transaction(connection).await.map_err(failed)? {
            return self.make_in(postgres, connection).await;
        }
        let mut transaction = statement::begin_on(connection).await.map_err(failed)?;
        let made = self.make_in(postgres, &mut transaction).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(made)
    }

    async fn make_in(
        &self,
        postgres: &Postgres,
        connection: &mut PgConnection,
    ) -> Result<u64, BatchError> {
        let failed =
            |source| BatchError::Database { schema: postgres.schema().to_string(), source };
        match self {
            Self::Open(batch) => open(postgres, connection, batch).await.map_err(failed),
            Self::Close(id) => {
                self.check(postgres, connection, id).await?;
                close(postgres, connection, id).await.map_err(failed)
            }
            Self::End { id, group, event, dead } => {
                check_isolation(postgres, connection, id).await?;
                let ends = [(*event, *dead)];
                let of = (Some(id.as_str()), *group);
                let ended = members::end_of(postgres, connection, of, &ends).await;
                ended.map(u64::from).map_err(failed)
            }
            Self::Add { id, group, events, .. } => {
                self.check(postgres, connection, id).await?;
                let add = postgres.query(ADD).bind(id.as_str()).bind(group.as_str()).bind(events);
                let added = add.execute(connection).await.map_err(failed)?;
                Ok(added.rows_affected())
            }
        }
    }

    /// Takes the lock that keeps the batch from completing meanwhile, and refuses changes that are not possible.
    ///
    /// When an unfinished or dead member adds, its own row is locked, so that no other transaction can end this
    /// member. Any other addition locks the batch's row in a mode that it shares with other additions and with ends
    /// of members, but not with a close, which locks the row exclusively.
    async fn check(
        &self,
        postgres: &Postgres,
        connection: &mut PgConnection,
        id: &BatchId,
    ) -> Result<(), BatchError> {
        let failed =
            |source| BatchError::Database { schema: postgres.schema().to_string(), source };
        let id_text = || id.to_string();
        check_isolation(postgres, connection, id).await?;
        if let Self::Add { by: Some(job), .. } = self {
            let member = postgres.query_scalar::<bool>(MEMBER).bind(id.as_str());
            let member = member.bind(job.group().as_str()).bind(job.event_id().as_str());
            let member = member.fetch_optional(&mut *connection).await.map_err(failed)?;
            if member == Some(true) {
                return Ok(());
            }
        }
        let lock = if matches!(self, Self::Close(_)) { LOCK_ALONE } else { LOCK_SHARED };
        let closed = postgres.query_scalar::<bool>(lock).bind(id.as_str());
        match closed.fetch_optional(connection).await.map_err(failed)? {
            None => Err(BatchError::Missing { id: id_text() }),
            Some(true) if matches!(self, Self::Add { .. }) => {
                Err(BatchError::Closed { id: id_text() })
            }
            Some(_) => Ok(()),
        }
    }
}

/// Refuses a transaction in which a statement would not see what was committed before it began.
async fn check_isolation(
    postgres: &Postgres,
    connection: &mut PgConnection,
    id: &BatchId,
) -> Result<(), BatchError> {
    let failed = |source| BatchError::Database { schema: postgres.schema().to_string(), source };
    let isolation = postgres.query_scalar::<bool>(ISOLATION).fetch_one(connection).await;
    match isolation.map_err(failed)? {
        true => Ok(()),
        false => Err(BatchError::Isolation { id: id.to_string() }),
    }
}

async fn open(
    postgres: &Postgres,
    connection: &mut PgConnection,
    batch: &NewBatch,
) -> Result<u64, sqlx::Error> {
    let opened = postgres.query(OPEN).bind(batch.id.as_str()).execute(&mut *connection).await?;
    if opened.rows_affected() == 0 {
        return Ok(0);
    }
    for (kind, event) in [("completed", &batch.completed), ("succeeded", &batch.succeeded)] {
        if let Some(event) = event {
            write_event(postgres, connection, (&batch.id, kind), event).await?;
        }
    }
    Ok(1)
}

async fn write_event(
    postgres: &Postgres,
    connection: &mut PgConnection,
    (id, kind): (&BatchId, &str),
    event: &EncodedEvent,
) -> Result<(), sqlx::Error> {
    let names = event.fields().iter().map(|(name, _)| &name[..]).collect::<Vec<_>>();
    let values = event.fields().iter().map(|(_, value)| &value[..]).collect::<Vec<_>>();
    postgres
        .query(WRITE_EVENT)
        .bind(id.as_str())
        .bind(kind)
        .bind(event.stream().as_str())
        .bind(event.event_id().as_str())
        .bind(names)
        .bind(values)
        .execute(connection)
        .await
        .map(drop)
}

/// Closes a batch whose row this transaction has locked exclusively.
async fn close(
    postgres: &Postgres,
    connection: &mut PgConnection,
    id: &BatchId,
) -> Result<u64, sqlx::Error> {
    let closed = postgres.query(CLOSE).bind(id.as_str()).execute(&mut *connection).await?;
    members::settle(postgres, connection, &[id.to_string()]).await?;
    Ok(closed.rows_affected())
}

const ISOLATION: &str = "SELECT current_setting('transaction_isolation') = 'read committed'";

const OPEN: &str = "INSERT INTO streamjobs.batches (id) VALUES ($1) ON CONFLICT DO NOTHING";

const WRITE_EVENT: &str = "INSERT INTO streamjobs.batch_events
    (batch_id, kind, stream, event_id, field_names, field_values) VALUES ($1, $2, $3, $4, $5, $6)";

/// Whether the member may still add: a dead member may too, because it may run again, and its batch
/// cannot succeed before that.
const MEMBER: &str = "SELECT ended_at IS NULL OR dead FROM streamjobs.batch_members
    WHERE batch_id = $1 AND group_name = $2 AND event_id = $3 FOR UPDATE";

/// A close waits for this lock, and this lock waits for a close, which is visible afterwards. This lock is compatible
/// with the lock that an end of a member takes. Otherwise two members that have both added members and then end would
/// wait for each other.
const LOCK_SHARED: &str =
    "SELECT closed_at IS NOT NULL FROM streamjobs.batches WHERE id = $1 FOR KEY SHARE";

const LOCK_ALONE: &str =
    "SELECT closed_at IS NOT NULL FROM streamjobs.batches WHERE id = $1 FOR UPDATE";

/// Adds members in the order of their ids, so that two transactions that add the same members cannot deadlock.
const ADD: &str = "INSERT INTO streamjobs.batch_members (batch_id, group_name, event_id)
    SELECT $1, $2, event_id FROM unnest($3::text[]) AS event (event_id) ORDER BY event_id
    ON CONFLICT DO NOTHING";

const CLOSE: &str = "UPDATE streamjobs.batches SET closed_at = clock_timestamp()
    WHERE id = $1 AND closed_at IS NULL";
