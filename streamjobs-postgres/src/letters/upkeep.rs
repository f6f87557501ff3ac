//! Deleting dead letters: all of one event, and old ones in batches.

use std::time::Duration;

use sqlx::Row;
use streamjobs::EventId;

use super::scope::redrive_in_scope;
use super::{DeadLetters, QueryError};
use crate::time::seconds;

impl DeadLetters {
    /// Deletes everything that the archive has of one event, for example for a privacy request: its
    /// dead letters with payloads and errors, and its id in the records of redrives. Returns the
    /// number of deleted dead letters.
    ///
    /// It does not delete the event in its stream, dead letters that are still in Redis and are
    /// archived later, or the guard row, which has the event id and no payload and is pruned by
    /// age. Texts of redrive requests, and the paths and words that they searched for, stay as
    /// well.
    ///
    /// # Errors
    ///
    /// When the database refuses or cannot be reached. In these cases nothing is deleted.
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped, either everything or nothing is deleted.
    pub async fn forget(&self, event_id: &EventId) -> Result<u64, QueryError> {
        let deleted = async {
            let mut transaction = self.postgres.begin_limited().await?;
            // In the order in which a batch of a redrive takes its locks, so that they cannot
            // deadlock.
            let of_event =
                |statement| self.postgres.query(statement).bind(event_id.as_str().to_owned());
            let selections = of_event(FORGET_SELECTIONS).bind(self.scope.streams());
            selections.execute(&mut *transaction).await?;
            let letters = of_event(FORGET_LETTERS).bind(self.scope.streams());
            let letters = letters.fetch_all(&mut *transaction).await?;
            let ids = letters.iter().map(|row| row.try_get::<i64, _>(0));
            let ids = ids.collect::<Result<Vec<_>, sqlx::Error>>()?;
            let outcomes = of_event(FORGET_OUTCOMES).bind((!self.scope.is_all()).then_some(&ids));
            outcomes.execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(ids.len() as u64)
        };
        deleted.await.map_err(|source| QueryError::database("forget an event in", source))
    }

    /// Deletes dead letters that were dead-lettered, and archived, longer ago than this: at most
    /// `batch` of them, the oldest first. Returns the number deleted: fewer than `batch` when no
    /// more are left.
    ///
    /// A dead letter that waits in a redrive is deleted as well, and the redrive skips it. Several
    /// processes may prune at once: each deletes other rows. Large batches hold locks for long;
    /// small batches cost a round trip each. A batch of 5,000 takes some tens of milliseconds.
    ///
    /// # Errors
    ///
    /// When the database refuses or cannot be reached. In these cases nothing is deleted.
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped, the batch may or may not be deleted.
    pub async fn prune(&self, older_than: Duration, batch: u32) -> Result<u64, QueryError> {
        let deleted = self.delete_older(older_than, batch).await;
        deleted.map_err(|source| QueryError::database("prune", source))
    }

    /// As [`prune`](Self::prune), for the pruner, which has the same error type for all tables.
    pub(crate) async fn delete_older(
        &self,
        than: Duration,
        batch: u32,
    ) -> Result<u64, sqlx::Error> {
        let mut transaction = self.postgres.begin_own().await?;
        let delete = self.postgres.query(PRUNE).bind(seconds(than)).bind(i64::from(batch));
        let delete = delete.bind(self.scope.streams());
        let deleted = delete.execute(&mut *transaction).await?.rows_affected();
        transaction.commit().await?;
        Ok(deleted)
    }
}

const FORGET_LETTERS: &str = "DELETE FROM streamjobs.dead_letters
     WHERE event_id = $1 AND ($2::text[] IS NULL OR stream = ANY ($2)) RETURNING id";

/// Those of the letters $2, or all, also of letters that were pruned.
const FORGET_OUTCOMES: &str = "UPDATE streamjobs.redrive_letters SET event_id = NULL, error = NULL
     WHERE event_id = $1 AND ($2::bigint[] IS NULL OR letter_id = ANY ($2))";

const FORGET_SELECTIONS: &str = concat!(
    "UPDATE streamjobs.redrives SET selection = jsonb_set(selection, '{event_id}', '\"forgotten\"')
     WHERE selection ->> 'event_id' = $1 AND ",
    redrive_in_scope!("$2"),
);

/// Both `buried_at` and `archived_at` have to be longer ago than the given age. So a dead letter that was archived
/// late, for example after a long outage, still stays visible for that whole age.
const PRUNE: &str = "DELETE FROM streamjobs.dead_letters WHERE id IN (
         SELECT id FROM streamjobs.dead_letters
         WHERE buried_at < now() - make_interval(secs => $1)
           AND archived_at < now() - make_interval(secs => $1)
           AND ($3::text[] IS NULL OR stream = ANY ($3))
         ORDER BY buried_at
         LIMIT $2
         FOR UPDATE SKIP LOCKED
     )";
