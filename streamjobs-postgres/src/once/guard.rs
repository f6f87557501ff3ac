//! The guard: a handler's effects and the guard row of its event, in one transaction.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sqlx::{Executor, PgConnection, Transaction};
use streamjobs::__proof::FailPoint;
use streamjobs::{Begin, Job, JobError, JobResource, Requirements};
use tokio::time::timeout;

use crate::guard_row::{GuardRow, ROWS_HIDDEN, are_rows_hidden, report_mismatch};
use crate::key::{self, ByEventId, GuardKey};
use crate::postgres::Postgres;
use crate::time::Timestamp;
use crate::{commit, fault};

/// A transaction in which a handler does its work once for each event.
///
/// Take it as `&mut Once`, and pass it to sqlx as a connection:
///
/// ```
/// use streamjobs::{Event, JobError, handler};
/// use streamjobs_postgres::Once;
/// # #[derive(Event, serde::Serialize, serde::Deserialize)]
/// # #[event(stream = "orders", type = "order.placed")]
/// # struct OrderPlaced { order_id: String, cents: i64 }
///
/// #[handler(group = "billing")]
/// async fn charge(order: OrderPlaced, tx: &mut Once) -> Result<(), JobError> {
///     sqlx::query("INSERT INTO charges (order_id, cents) VALUES ($1, $2)")
///         .bind(&order.order_id)
///         .bind(order.cents)
///         .execute(&mut **tx)
///         .await?;
///     Ok(())
/// }
/// ```
///
/// Before the handler runs, the transaction writes the guard row: this group has done this event.
/// When the handler returns `Ok`, guard row and effects commit together, and then the job is
/// acknowledged; otherwise both are rolled back. Only the runtime commits: a handler that begins a
/// transaction on this connection gets a savepoint.
///
/// # Delivery
///
/// What is written through this transaction happens exactly once for each group and event id, as
/// long as the guard row is kept and the database loses no committed transaction. Everything else
/// that the handler does happens at least once: see [`OnceMark`](crate::OnceMark) for mail and the
/// like.
///
/// Event ids count for a group across all of its streams: ids that an application chooses must be
/// unique over all streams that the group reads.
///
/// - A job that was done before is acknowledged without running.
/// - If another attempt is working on the event, the job waits for it, at most
///   [`lock_timeout`](crate::PostgresBuilder::lock_timeout), and is then skipped if the event was
///   done, or else runs.
/// - An attempt whose lease was lost does not commit.
/// - After a deadlock, a serialization failure or a lock timeout, and when the pool is exhausted or
///   the database unreachable, the job is snoozed for about a second, and no failure is counted. A
///   handler that decides for itself, with [`JobError::dead`] or [`JobError::retry_after`], keeps
///   its decision.
/// - While the guard's table cannot be used, for example because a right is missing or the table is
///   gone, jobs are snoozed for about ten seconds at a time, and the alert
///   [`JobsBlocked`](streamjobs::stream::Condition::JobsBlocked) says why. Errors of the handler's
///   own tables are failures.
/// - A handler that continues after a failed statement cannot commit: the attempt fails.
///
/// The transaction is `READ COMMITTED`, whatever the session's default is, and its commit waits for
/// the disk, whatever `synchronous_commit` is set to.
pub struct Once<K = ByEventId> {
    pub(crate) transaction: Transaction<'static, sqlx::Postgres>,
    pub(crate) postgres: Postgres,
    pub(crate) guarded: Guarded,
    pub(crate) key: PhantomData<fn() -> K>,
}

/// The jobs of a transaction.
pub(crate) struct Guarded {
    /// The job, or the first of several.
    pub(crate) job: Job,
    /// With several jobs, the key of each.
    pub(crate) keys: Vec<String>,
}

impl<K: GuardKey> JobResource for Once<K> {
    async fn begin(job: &Job) -> Result<Begin<Self>, JobError> {
        let postgres = Postgres::of(job)?;
        let begin = begin(&postgres, job);
        let late = "timed out before the guarded transaction began";
        let begun = timeout(postgres.timeout_before(job), begin).await;
        begun.unwrap_or_else(|_| Err(fault::later(late)))
    }

    async fn commit(self) -> Result<(), JobError> {
        commit(self).await
    }

    fn judge(&self, error: JobError) -> JobError {
        fault::judge(error)
    }

    async fn rollback(self) {
        // If this fails, the connection is lost, and the server rolls back by itself.
        let _ended = timeout(ROLLBACK_MAX, self.transaction.rollback()).await;
    }

    fn require(requirements: &mut Requirements) {
        requirements.state::<Postgres>();
    }
}

impl<K> Deref for Once<K> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.transaction
    }
}

impl<K> DerefMut for Once<K> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }
}

impl<K> fmt::Debug for Once<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}

/// Commits the guard rows and the handler's effects.
pub(crate) async fn commit<K>(mut once: Once<K>) -> Result<(), JobError> {
    FailPoint::GuardBeforeCommit.reached();
    let commit = once.transaction.execute(once.postgres.commit());
    let limit = once.postgres.limits().timeout();
    commit::confirmed(&once.guarded.job, limit, commit).await.map_err(explain)?;
    FailPoint::GuardAfterCommit.reached();
    Ok(())
}

fn begin<K: GuardKey>(
    postgres: &Postgres,
    job: &Job,
) -> impl Future<Output = Result<Begin<Once<K>>, JobError>> + Send {
    // Before the first await, so that the future borrows nothing from the payload.
    let key = key::of_job::<K>(job);
    async move {
        let key = key?;
        let mut transaction = postgres.begin_own().await.map_err(fault::own_error)?;
        let hash = key::payload_hash(job.entry());
        if insert(postgres, job, &key, &hash, &mut transaction).await? {
            FailPoint::GuardAfterInsert.reached();
            let postgres = postgres.clone();
            return Ok(Begin::Run(Once {
                transaction,
                postgres,
                guarded: Guarded { job: job.clone(), keys: Vec::new() },
                key: PhantomData,
            }));
        }
        let found = GuardRow::load(postgres, job.group(), &key, &mut transaction).await;
        let Some(found) = found.map_err(fault::own_error)? else {
            let hidden = are_rows_hidden(postgres, &mut transaction).await;
            if hidden.map_err(fault::own_error)? {
                return Err(fault::blocked(ROWS_HIDDEN));
            }
            // The row that caused the conflict has been rolled back or pruned since.
            return Err(fault::later("another attempt at this event was rolled back just now"));
        };
        match found {
            GuardRow { done: true, hash: before, .. } => {
                if before != hash {
                    report_mismatch(job);
                }
                Ok(Begin::AlreadyDone)
            }
            GuardRow { remaining, .. } => {
                let delay = remaining.clamp(fault::PAUSE, RUNNING_MAX);
                Err(JobError::later(delay, "another attempt is working on this event"))
            }
        }
    }
}

/// Writes the guard row, unless there is one. Waits for a transaction that wrote it and has not
/// ended.
async fn insert(
    postgres: &Postgres,
    job: &Job,
    key: &str,
    hash: &[u8],
    transaction: &mut PgConnection,
) -> Result<bool, JobError> {
    let origin = job.origin().unwrap_or(job.entry_id());
    let limits = postgres.limits();
    let inserted = postgres
        .query(INSERT)
        .bind(job.group().as_str())
        .bind(key)
        .bind(job.stream().as_str())
        .bind(origin.to_string())
        .bind(Timestamp::from_millis(origin.milliseconds()))
        .bind(hash)
        .bind(&limits.lock.setting)
        .bind(&limits.statement.setting)
        .bind(&limits.idle.setting)
        .execute(transaction)
        .await
        .map_err(fault::own_error)?;
    Ok(inserted.rows_affected() == 1)
}

/// Whether an earlier statement of the transaction has failed.
pub(super) fn is_aborted(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.as_deref() == Some(ABORTED)
}

/// What an error of the commit means.
fn explain(error: sqlx::Error) -> JobError {
    if is_aborted(&error) {
        return JobError::retry(IGNORED_ERROR);
    }
    fault::job_error(error)
}

/// The limits of the transaction are set in the same statement, to save a round trip. The functions
/// that set them are volatile, so they run although their results are unused, and they run before
/// the insert, which may have to wait. An unfinished row that has expired is taken over by the
/// transaction that then does the work.
const INSERT: &str = "\
INSERT INTO streamjobs.once AS guard
    (group_name, key, stream, entry_id, published_at, payload_hash, done_at)
SELECT $1, $2, $3, $4, $5, $6, now()
FROM (SELECT set_config('lock_timeout', $7, true),
             set_config('statement_timeout', $8, true),
             set_config('idle_in_transaction_session_timeout', $9, true)) AS limits
ON CONFLICT (group_name, key) DO UPDATE
    SET done_at = EXCLUDED.done_at, stream = EXCLUDED.stream, entry_id = EXCLUDED.entry_id,
        published_at = EXCLUDED.published_at, payload_hash = EXCLUDED.payload_hash,
        owner = NULL, expires_at = NULL
    WHERE guard.done_at IS NULL AND guard.expires_at <= clock_timestamp()";

/// The server's error code for every statement that follows a failed statement in a transaction.
pub(super) const ABORTED: &str = "25P02";
pub(super) const IGNORED_ERROR: &str =
    "the transaction was rolled back: a statement failed and the handler ignored its error";
const ROLLBACK_MAX: Duration = Duration::from_secs(5);
/// The longest time after which a job checks again whether another attempt has ended.
pub(crate) const RUNNING_MAX: Duration = Duration::from_secs(5);
