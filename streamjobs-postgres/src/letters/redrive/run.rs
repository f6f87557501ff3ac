//! Carrying requests out until they end, and calling them off.

use std::time::Duration;

use streamjobs::Client;

use super::Redrive;
use super::batch::{Batch, Step};
use super::pace::RetryBudget;
use super::report::redrive_columns;
use crate::fault;
use crate::letters::error::Interruption;
use crate::letters::{DeadLetters, QueryError, RedriveError, RedriveId};
use crate::schema::READ_COMMITTED;

impl DeadLetters {
    /// Carries a request out that was recorded, interrupted or stopped, with the settings that it
    /// was asked for with. One that ended is answered with its end.
    ///
    /// Any number of processes may resume one request: a batch belongs to one of them. One that was
    /// stopped by failures may have as many again; those that failed are not tried again.
    ///
    /// # Errors
    ///
    /// When there is no such request, and [`RedriveError::Interrupted`] when the database refuses, or
    /// a server could not be reached for about 20 s.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves a request that can be resumed. No job is put back twice.
    ///
    /// # Delivery
    ///
    /// As [`Redriving::start`](super::Redriving::start).
    pub async fn resume(&self, id: RedriveId, client: &Client) -> Result<Redrive, RedriveError> {
        self.change(id, RESUME, "resume a redrive of").await?;
        let batch = Batch::new(&self.postgres, client, id);
        let mut budget = RetryBudget::default();
        loop {
            let interruption = match fault::within(STEP_MAX, batch.step()).await {
                Ok(Step::Continue(pause)) => {
                    budget.reset();
                    tokio::time::sleep(pause).await;
                    continue;
                }
                Ok(Step::Ended) => break,
                Ok(Step::Unknown) => return Err(RedriveError::Unknown { id }),
                Ok(Step::Unreachable(error)) => Interruption::Redis(error),
                Err(error) if fault::is_transient(&error) => Interruption::Database(error),
                Err(error) => {
                    let source = Interruption::Database(error);
                    return Err(RedriveError::Interrupted { id, source });
                }
            };
            tracing::debug!(redrive = id.get(), error = %interruption, "redrive held up");
            match budget.next(fastrand::f64()) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(RedriveError::Interrupted { id, source: interruption }),
            }
        }
        let redrive = self.change(id, LOAD, "read a redrive of").await?;
        let redrive = redrive.ok_or(RedriveError::Unknown { id })?;
        let Redrive { by, state, done, failed, skipped, .. } = &redrive;
        tracing::info!(redrive = id.get(), by, ?state, done, failed, skipped, "redrive ended");
        Ok(redrive)
    }

    /// Calls a request off: when this returns, nothing more is put back for it. Returns the request
    /// as it stands. One that ended before is left as it is.
    ///
    /// # Errors
    ///
    /// When there is no such request, or the database refuses or cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether the request was called off.
    pub async fn cancel(&self, id: RedriveId) -> Result<Redrive, RedriveError> {
        let cancelled = self.change(id, CANCEL, "cancel a redrive of").await?;
        let standing = match cancelled {
            Some(cancelled) => Some(cancelled),
            None => self.change(id, LOAD, "read a redrive of").await?,
        };
        standing.ok_or(RedriveError::Unknown { id })
    }

    /// Runs a statement that answers with the request, if it changed or found it.
    async fn change(
        &self,
        id: RedriveId,
        statement: &'static str,
        action: &'static str,
    ) -> Result<Option<Redrive>, QueryError> {
        let failed = |source| QueryError::database(action, source);
        let row = async {
            let mut transaction = self.postgres.pool().begin_with(READ_COMMITTED).await?;
            let query = sqlx::query(self.postgres.schema().sql(statement)).bind(id.get());
            let row = query.fetch_optional(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(row)
        };
        let row = row.await.map_err(failed)?;
        row.as_ref().map(Redrive::of).transpose().map_err(failed)
    }
}

/// Longer than anything in a batch may take.
const STEP_MAX: Duration = Duration::from_secs(90);

const LOAD: &str =
    concat!("SELECT ", redrive_columns!(), " FROM streamjobs.redrives WHERE id = $1");

/// Before: the request may be in any state. After: one that was stopped runs again. A batch that is
/// being carried out holds the row, so that this waits for its end.
const RESUME: &str = concat!(
    "UPDATE streamjobs.redrives SET state = 'running', finished_at = NULL, failures = 0
     WHERE id = $1 AND state = 'stopped' RETURNING ",
    redrive_columns!(),
);

/// As [`RESUME`], for one that is called off.
const CANCEL: &str = concat!(
    "UPDATE streamjobs.redrives SET state = 'cancelled', finished_at = now()
     WHERE id = $1 AND state IN ('running', 'stopped') RETURNING ",
    redrive_columns!(),
);
