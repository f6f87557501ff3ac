//! Deleting letters: those of one event for good, and old ones in batches.

use std::time::Duration;

use streamjobs::EventId;

use super::{DeadLetters, QueryError};
use crate::schema::READ_COMMITTED;
use crate::time::seconds;

impl DeadLetters {
    /// Deletes everything the archive knows of one event, as a request for privacy asks for: its
    /// letters with their payloads and errors, and its id in the records of redrives. Returns how
    /// many letters there were.
    ///
    /// What is elsewhere stays there: the event in its stream, dead letters that are still in
    /// Redis and come into the archive later, and the guard's row, which holds its id and no payload
    /// and is pruned with age. Texts that people wrote into a request, and paths and words that
    /// they searched for, stay as well.
    ///
    /// # Errors
    ///
    /// When the database refuses or cannot be reached. Nothing is deleted then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether it was deleted: all of it or nothing.
    pub async fn forget(&self, event_id: &EventId) -> Result<u64, QueryError> {
        let schema = self.postgres.schema();
        let deleted = async {
            let mut transaction = self.postgres.pool().begin_with(READ_COMMITTED).await?;
            let mut letters = 0;
            // In the order in which a batch of a redrive takes its locks: none waits for the other.
            for statement in [FORGET_SELECTIONS, FORGET_LETTERS, FORGET_OUTCOMES] {
                let query = sqlx::query(schema.sql(statement)).bind(event_id.as_str());
                let changed = query.execute(&mut *transaction).await?.rows_affected();
                if statement == FORGET_LETTERS {
                    letters = changed;
                }
            }
            transaction.commit().await?;
            Ok(letters)
        };
        deleted.await.map_err(|source| QueryError::database("forget an event in", source))
    }

    /// Deletes letters that were buried, and came into the archive, longer ago than this: at most
    /// `batch` of them, the oldest first. Returns how many: fewer than `batch` when none is left.
    ///
    /// A letter that waits to be put back is deleted as well; its redrive skips it. Several may
    /// prune at once: each takes other letters. Large batches hold locks and write ahead for long,
    /// small ones cost a round trip each; 5,000 take some tens of milliseconds.
    ///
    /// # Errors
    ///
    /// When the database refuses or cannot be reached. Nothing is deleted then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether the batch was deleted.
    pub async fn prune(&self, older_than: Duration, batch: u32) -> Result<u64, QueryError> {
        let deleted = self.delete_older(older_than, batch).await;
        deleted.map_err(|source| QueryError::database("prune", source))
    }

    /// As [`prune`](Self::prune), for a sweep that meets the same errors at other tables.
    pub(crate) async fn delete_older(
        &self,
        than: Duration,
        batch: u32,
    ) -> Result<u64, sqlx::Error> {
        let delete = sqlx::query(self.postgres.schema().sql(PRUNE));
        let delete = delete.bind(seconds(than)).bind(i64::from(batch));
        Ok(delete.execute(self.postgres.pool()).await?.rows_affected())
    }
}

const FORGET_LETTERS: &str = "DELETE FROM streamjobs.dead_letters WHERE event_id = $1";

const FORGET_OUTCOMES: &str =
    "UPDATE streamjobs.redrive_letters SET event_id = NULL, error = NULL WHERE event_id = $1";

const FORGET_SELECTIONS: &str =
    "UPDATE streamjobs.redrives SET selection = jsonb_set(selection, '{event_id}', '\"forgotten\"')
     WHERE selection ->> 'event_id' = $1";

/// Both times count: a letter that came into the archive late, as after a long outage, is not
/// deleted before somebody could see it.
const PRUNE: &str = "DELETE FROM streamjobs.dead_letters WHERE id IN (
         SELECT id FROM streamjobs.dead_letters
         WHERE buried_at < now() - make_interval(secs => $1)
           AND archived_at < now() - make_interval(secs => $1)
         ORDER BY buried_at
         LIMIT $2
         FOR UPDATE SKIP LOCKED
     )";
