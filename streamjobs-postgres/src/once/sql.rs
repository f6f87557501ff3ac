//! The guard as one statement, for transactions of other database libraries.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use serde_json::json;
use streamjobs::__proof::FailPoint;
use streamjobs::error::BoxError;
use streamjobs::{Begin, Job, JobError};
use tokio::time::timeout;

use super::guard::{ABORTED, IGNORED_ERROR, RUNNING_MAX};
use crate::guard_row::report_mismatch;
use crate::key::{self, GuardKey};
use crate::postgres::Postgres;
use crate::text::hex;
use crate::time::Timestamp;
use crate::{commit, fault};

/// The guard for a transaction that another library has begun, such as SeaORM or diesel-async.
///
/// [`Once`](crate::Once) is a transaction of sqlx. This type does the same for a
/// [`JobResource`](streamjobs::JobResource) of your own with another kind of transaction. It is one statement with
/// one text argument, and its answer is one row with one text column. [The page on other libraries][page] has
/// complete resources for SeaORM and diesel-async.
///
/// 1. [`begin`](Self::begin) runs your future, which begins a transaction in `READ COMMITTED` and runs
///    [`sql`](Self::sql) with [`argument`](Self::argument) as its first statement.
/// 2. [`commit`](Self::commit) runs your future, which runs [`before_commit`](Self::before_commit) and commits.
/// 3. [`judge`](Self::judge) distinguishes errors of the database from errors of the job.
///
/// The schema, the limits and the durability are those of the [`Postgres`] among the states of the runtime, which has
/// checked the schema: let the resource [require](streamjobs::JobResource::require) it. The transactions must be in the
/// same database.
///
/// # Delivery
///
/// As with [`Once`](crate::Once): guard row and effects commit together or not at all, once for each group and event
/// id. A second attempt waits for the transaction of the first, at most
/// [`lock_timeout`](crate::PostgresBuilder::lock_timeout). In an isolation level stricter than `READ COMMITTED`, the
/// statement fails with 40001 where it would otherwise find the row that the first attempt committed, and the job is
/// snoozed.
///
/// [page]: https://github.com/streamjobs/streamjobs/blob/main/docs/orm.md
pub struct GuardSql {
    postgres: Postgres,
    job: Job,
    sql: String,
    argument: String,
    sqlstate: SqlState,
}

/// The [error code](https://www.postgresql.org/docs/current/errcodes-appendix.html) of an error of a database library.
///
/// The function is called with an error and then with its sources, until it returns a code. Return `08006` for a lost
/// connection and for a pool without a free connection. Return `None` for an error that is not an error of the
/// library, or whose code the library does not give.
pub type SqlState = fn(&(dyn Error + 'static)) -> Option<String>;

impl GuardSql {
    /// The guard of a job, by its event id (`K` = [`ByEventId`](crate::ByEventId)) or by a key of your own.
    ///
    /// # Errors
    ///
    /// The errors of the key, and a permanent error if the runtime has no [`Postgres`] state.
    pub fn for_job<K: GuardKey>(job: &Job, sqlstate: SqlState) -> Result<Self, JobError> {
        let postgres = Postgres::of(job)?;
        let origin = job.origin().unwrap_or(job.entry_id());
        let limits = postgres.limits();
        let argument = json!({
            "group": job.group().as_str(),
            "key": key::of_job::<K>(job)?,
            "stream": job.stream().as_str(),
            "entry": origin.to_string(),
            "published": Timestamp::bounded(origin.milliseconds()),
            "payload": hex(&key::payload_hash(job.entry())),
            "lock_timeout": limits.lock.setting,
            "statement_timeout": limits.statement.setting,
            "idle_timeout": limits.idle.setting,
        });
        let (sql, argument) = (postgres.schema().text(BEGIN), argument.to_string());
        Ok(Self { postgres, job: job.clone(), sql, argument, sqlstate })
    }

    /// The first statement of the transaction. It takes one argument, a text, and returns one row of one column, a
    /// text: `run` if the handler has to run. It waits for another transaction that writes the guard row of this event.
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The argument of [`sql`](Self::sql): JSON with the job's group, event id, stream, entry and the hash of its
    /// payload, and the limits of the transaction. Its fields may change with a version of this crate.
    #[must_use]
    pub fn argument(&self) -> &str {
        &self.argument
    }

    /// The last request of the transaction: two statements in one text, without an argument. Send it as text, not
    /// prepared.
    ///
    /// It makes the commit wait for the disk, whatever the session's default is. It also fails in cases where
    /// Postgres would answer the commit as if it had succeeded: when an earlier statement failed and the handler
    /// ignored that, and when the handler has ended the transaction with a `ROLLBACK` or `COMMIT` of its own.
    #[must_use]
    pub fn before_commit(&self) -> &'static str {
        self.postgres.before_commit()
    }

    /// Waits for a future that begins the transaction, runs [`sql`](Self::sql), and returns the answer and the
    /// transaction. Returns whether the handler has to run; if not, the transaction is dropped.
    ///
    /// # Errors
    ///
    /// The job is snoozed for about a second after a conflict, an outage or an error without a code, and for about
    /// ten seconds while something has to be repaired. Other errors are failures.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when its time is over, which is shorter than the handler's timeout. A connection whose
    /// `BEGIN` was not answered must not be used for anything else: run `BEGIN` in a task of its own if the library
    /// does not ensure that.
    pub async fn begin<T, E: Into<BoxError>>(
        &self,
        work: impl Future<Output = Result<(String, T), E>>,
    ) -> Result<Begin<T>, JobError> {
        let Ok(begun) = timeout(self.postgres.timeout_before(&self.job), work).await else {
            return Err(fault::later("timed out before the guarded transaction began"));
        };
        let (answer, transaction) = begun.map_err(|error| {
            let error = error.into();
            match self.code(&*error) {
                None => fault::later(error),
                Some(code) => fault::own_code(&code, error),
            }
        })?;
        match answer.split_once(' ').unwrap_or((&answer, "")) {
            ("run", "") => {
                FailPoint::GuardAfterInsert.reached();
                Ok(Begin::Run(transaction))
            }
            ("done", rest) => {
                if rest == "differs" {
                    report_mismatch(&self.job);
                }
                Ok(Begin::AlreadyDone)
            }
            ("running", rest) => {
                let remaining = Duration::from_millis(rest.parse().unwrap_or(0));
                let delay = remaining.clamp(fault::PAUSE, RUNNING_MAX);
                Err(JobError::later(delay, "another attempt is working on this event"))
            }
            _ => {
                Err(JobError::retry("what was returned is not the answer of the guard's statement"))
            }
        }
    }

    /// Waits for a future that runs [`before_commit`](Self::before_commit) and commits the transaction.
    ///
    /// # Errors
    ///
    /// The job is snoozed after a conflict or an outage, and if no reply comes within `statement_timeout` plus 5 s.
    /// In the last case the commit may be stored, and the next attempt finds its guard row. Other errors are
    /// failures.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the commit may be stored.
    pub async fn commit<E: Into<BoxError>>(
        &self,
        work: impl Future<Output = Result<(), E>>,
    ) -> Result<(), JobError> {
        FailPoint::GuardBeforeCommit.reached();
        let Some(reply) = commit::reply(&self.job, self.postgres.limits().timeout(), work).await
        else {
            return Err(fault::later(commit::LATE));
        };
        reply.map_err(|error| {
            let error = error.into();
            match self.code(&*error).as_deref() {
                Some(ABORTED) => JobError::retry(IGNORED_ERROR),
                Some(code) if fault::is_transient_code(code) => fault::later(error),
                _ => JobError::retry(error),
            }
        })?;
        FailPoint::GuardAfterCommit.reached();
        Ok(())
    }

    /// Decides what the error of a handler, or of another resource, means. If it is a conflict or an outage of the
    /// database, and the handler did not decide otherwise, the returned error snoozes the job for about a second.
    #[must_use]
    pub fn judge(&self, error: JobError) -> JobError {
        let code = self.code(error.cause());
        let is_transient = code.is_some_and(|code| fault::is_transient_code(&code));
        if error.is_retry() && is_transient { fault::snoozed(error) } else { error }
    }

    fn code(&self, error: &(dyn Error + 'static)) -> Option<String> {
        fault::find_cause(error, self.sqlstate)
    }
}

impl fmt::Debug for GuardSql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardSql").finish_non_exhaustive()
    }
}

/// Writes the guard row, unless it says that the event was done.
///
/// One row is returned in any case, with what was true when the guard row was locked, so no other statement has to
/// examine a conflict. A row that this statement has written, or taken over from a dead attempt, has both times; a
/// row that says that the event was done loses the second time. If row-level security hides the row, the statement
/// fails.
///
/// The limits are set in the same statement, before the insert that may have to wait.
const BEGIN: &str = "\
INSERT INTO streamjobs.once AS guard
    (group_name, key, stream, entry_id, published_at, payload_hash, done_at, expires_at)
SELECT job ->> 'group', job ->> 'key', job ->> 'stream', job ->> 'entry',
       timestamptz 'epoch' + (job ->> 'published')::bigint * interval '1 millisecond',
       decode(job ->> 'payload', 'hex'), now(), now()
FROM (SELECT $1::text::json AS job) AS argument,
     LATERAL (SELECT set_config('lock_timeout', job ->> 'lock_timeout', true),
                     set_config('statement_timeout', job ->> 'statement_timeout', true),
                     set_config('idle_in_transaction_session_timeout', job ->> 'idle_timeout', true)
             ) AS limits
ON CONFLICT (group_name, key) DO UPDATE
    SET (done_at, owner, expires_at, stream, entry_id, published_at, payload_hash) = (
        SELECT CASE WHEN taken THEN EXCLUDED.done_at ELSE guard.done_at END,
               CASE WHEN taken THEN NULL ELSE guard.owner END,
               CASE WHEN guard.done_at IS NULL THEN guard.expires_at END,
               CASE WHEN taken THEN EXCLUDED.stream ELSE guard.stream END,
               CASE WHEN taken THEN EXCLUDED.entry_id ELSE guard.entry_id END,
               CASE WHEN taken THEN EXCLUDED.published_at ELSE guard.published_at END,
               CASE WHEN taken THEN EXCLUDED.payload_hash ELSE guard.payload_hash END
        FROM (SELECT guard.done_at IS NULL AND guard.expires_at <= clock_timestamp()) AS found (taken))
RETURNING CASE
    WHEN done_at IS NULL THEN 'running ' || GREATEST(
        ceil(extract(epoch FROM expires_at - clock_timestamp()) * 1000), 0)::bigint
    WHEN expires_at IS NOT NULL THEN 'run'
    WHEN payload_hash <> decode($1::text::json ->> 'payload', 'hex') THEN 'done differs'
    ELSE 'done'
END AS answer";
