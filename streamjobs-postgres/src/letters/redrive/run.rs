//! Carrying redrives out until they end, and cancelling them.

use std::time::Duration;

use streamjobs::Client;

use super::Redrive;
use super::batch::{Batch, Step};
use super::pace::RetryBudget;
use super::report::redrive_columns;
use crate::fault;
use crate::letters::error::Interruption;
use crate::letters::scope::redrive_in_scope;
use crate::letters::{DeadLetters, QueryError, RedriveError, RedriveId};

impl DeadLetters {
    /// Carries out a redrive that was recorded, interrupted or stopped, with the settings of its
    /// request, and returns it when it has ended. If it has ended before, this returns it at once.
    ///
    /// Any number of processes may resume one redrive at the same time; each batch is carried out
    /// by one of them. After a stop, its count of failures starts again from zero, and the dead
    /// letters that failed are not tried again.
    ///
    /// # Errors
    ///
    /// When there is no such redrive, and [`RedriveError::Interrupted`] when the database refuses,
    /// or a server was unreachable for about 20 s.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves a request that can be resumed. No job is put back twice.
    ///
    /// # Delivery
    ///
    /// As [`Redriving::start`](super::Redriving::start).
    pub async fn resume(&self, id: RedriveId, client: &Client) -> Result<Redrive, RedriveError> {
        if self.change(id, RESUME, "resume a redrive of").await?.is_none()
            && self.change(id, LOAD, "read a redrive of").await?.is_none()
        {
            return Err(RedriveError::Unknown { id });
        }
        let batch = Batch { postgres: &self.postgres, client, id };
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
            tracing::debug!(redrive = id.get(), error = %interruption, "redrive interrupted");
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

    /// Cancels a redrive: after this returns, it puts no more jobs back. Returns the redrive in its
    /// current state. A redrive that has ended is not changed.
    ///
    /// # Errors
    ///
    /// When there is no such redrive, or the database refuses or cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped, the redrive may or may not be cancelled.
    pub async fn cancel(&self, id: RedriveId) -> Result<Redrive, RedriveError> {
        let cancelled = self.change(id, CANCEL, "cancel a redrive of").await?;
        let redrive = match cancelled {
            Some(cancelled) => Some(cancelled),
            None => self.change(id, LOAD, "read a redrive of").await?,
        };
        redrive.ok_or(RedriveError::Unknown { id })
    }

    /// Runs a statement that returns the redrive if it changed or found it.
    async fn change(
        &self,
        id: RedriveId,
        statement: &'static str,
        action: &'static str,
    ) -> Result<Option<Redrive>, QueryError> {
        let failed = |source| QueryError::database(action, source);
        let row = async {
            let mut transaction = self.postgres.begin_own().await?;
            let query = self.postgres.query(statement).bind(id.get()).bind(self.scope.streams());
            let row = query.fetch_optional(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(row)
        };
        let row = row.await.map_err(failed)?;
        row.as_ref().map(Redrive::of).transpose().map_err(failed)
    }
}

/// The longest time for one batch.
const STEP_MAX: Duration = Duration::from_secs(90);

const LOAD: &str = concat!(
    "SELECT ",
    redrive_columns!(),
    " FROM streamjobs.redrives WHERE id = $1 AND ",
    redrive_in_scope!("$2")
);

/// Before: the redrive may be in any state. After: a stopped redrive runs again. A running batch
/// has the row locked, so the statement waits until the batch has ended.
const RESUME: &str = concat!(
    "UPDATE streamjobs.redrives SET state = 'running', finished_at = NULL, failures = 0
     WHERE id = $1 AND state = 'stopped' AND ",
    redrive_in_scope!("$2"),
    " RETURNING ",
    redrive_columns!(),
);

/// As [`RESUME`], for a cancel.
const CANCEL: &str = concat!(
    "UPDATE streamjobs.redrives SET state = 'cancelled', finished_at = now()
     WHERE id = $1 AND state IN ('running', 'stopped') AND ",
    redrive_in_scope!("$2"),
    " RETURNING ",
    redrive_columns!(),
);
