//! Marks in the database for work outside of it.

use std::time::{Duration, Instant};

use sqlx::Executor;
use streamjobs::once::{MarkBegin, Marked, Marks};
use streamjobs::{Job, JobError, Requirements};

use crate::guard_row::{GuardRow, ROWS_HIDDEN, are_rows_hidden, report_mismatch};
use crate::postgres::Postgres;
use crate::time::{Timestamp, seconds};
use crate::{commit, fault, key};

/// Lets a handler do work outside the database once for each event, such as sending mail.
///
/// It is [`streamjobs::once::OnceMark`] with its marks in Postgres: they are as durable as the
/// database, whatever happens to the Redis server. **The window is the same**: if a process dies
/// after its work and before the mark says "done", the work runs again; the next attempt can ask
/// [`is_takeover`](streamjobs::once::OnceMark::is_takeover). For effects in this database use
/// [`Once`](crate::Once), which has no such window.
///
/// ```
/// use streamjobs::{Event, JobError, handler};
/// use streamjobs_postgres::OnceMark;
/// # #[derive(Event, serde::Serialize, serde::Deserialize)]
/// # #[event(stream = "orders", type = "order.placed")]
/// # struct OrderPlaced { order_id: String }
/// # async fn send(_: &str, _: &str) -> Result<(), JobError> { Ok(()) }
///
/// #[handler(group = "mails", timeout = "1m")]
/// async fn confirm(order: OrderPlaced, mark: &mut OnceMark) -> Result<(), JobError> {
///     send(&order.order_id, mark.key()).await
/// }
/// ```
///
/// Marks are kept until a [`Pruner`](crate::Pruner) deletes them.
pub type OnceMark = streamjobs::once::OnceMark<Postgres>;

impl Marks for Postgres {
    async fn begin(job: &Job, key: &str, begin: MarkBegin<'_>) -> Result<Marked, JobError> {
        let (postgres, key) = (Self::of(job)?, key::stored(key));
        let hash = key::payload_hash(job.entry());
        let (limit, limits) = (postgres.timeout_before(job), postgres.limits());
        let began = Instant::now();
        let marked = async {
            let mut transaction = postgres.begin_own().await?;
            let takeover = postgres
                .query_scalar::<bool>(BEGIN)
                .bind(job.group().as_str())
                .bind(&key)
                .bind(job.stream().as_str())
                .bind(begin.origin.to_string())
                .bind(Timestamp::from_millis(begin.origin.milliseconds()))
                .bind(hash.as_slice())
                .bind(begin.owner)
                .bind(seconds(begin.expiry))
                .bind(&limits.lock.setting)
                .bind(&limits.statement.setting)
                .bind(&limits.idle.setting)
                .fetch_optional(&mut *transaction)
                .await?;
            if let Some(takeover) = takeover {
                return Ok((Some(Marked::Begun { takeover }), Some(transaction)));
            }
            let marked =
                match GuardRow::load(&postgres, job.group(), &key, &mut transaction).await? {
                    Some(found) if found.done => {
                        if found.hash != hash {
                            report_mismatch(job);
                        }
                        Some(Marked::Done)
                    }
                    Some(found) => Some(Marked::Running { rest: found.remaining }),
                    None if are_rows_hidden(&postgres, &mut transaction).await? => None,
                    // The row that caused the conflict has been deleted since.
                    None => Some(Marked::Running { rest: Duration::ZERO }),
                };
            Ok((marked, None))
        };
        let marked = fault::within(limit, marked).await;
        let (marked, begun) = marked.map_err(fault::own_error)?;
        if let Some(transaction) = begun {
            let rest = limit.saturating_sub(began.elapsed());
            let committed = commit::confirmed(job, rest, transaction.commit()).await;
            committed.map_err(fault::own_error)?;
        }
        marked.ok_or_else(|| fault::blocked(ROWS_HIDDEN))
    }

    async fn done(job: &Job, key: &str, _keep: Duration) -> Result<(), JobError> {
        let postgres = Self::of(job)?;
        let origin = job.origin().unwrap_or(job.entry_id());
        let done = async {
            // The mark must survive a crash of the database server.
            let mut transaction = postgres.begin_limited().await?;
            postgres
                .query(DONE)
                .bind(job.group().as_str())
                .bind(key::stored(key))
                .bind(job.stream().as_str())
                .bind(origin.to_string())
                .bind(Timestamp::from_millis(origin.milliseconds()))
                .bind(key::payload_hash(job.entry()).as_slice())
                .execute(&mut *transaction)
                .await?;
            Ok(transaction)
        };
        let done = fault::within(postgres.timeout(), done).await;
        let mut transaction = done.map_err(fault::own_error)?;
        let commit = (&mut *transaction).execute(postgres.commit());
        let committed = commit::confirmed(job, postgres.limits().timeout(), commit).await;
        committed.map(drop).map_err(fault::own_error)
    }

    async fn undo(job: &Job, key: &str, owner: &str) -> Result<(), JobError> {
        let postgres = Self::of(job)?;
        let undone = async {
            let mut transaction = postgres.begin_limited().await?;
            let undo = postgres.query(UNDO).bind(job.group().as_str()).bind(key::stored(key));
            undo.bind(owner).execute(&mut *transaction).await?;
            transaction.commit().await
        };
        // The job's retry waits for this. If the row stays, the retry takes it over.
        let undone = fault::within(UNDO_MAX, undone).await;
        undone.map_err(fault::own_error)
    }

    fn require(requirements: &mut Requirements) {
        requirements.state::<Self>();
    }
}

/// Returns one row, which says whether the work was begun before, or no row if the work must not
/// begin. A row of the same entry belongs to this job: the entry was delivered again, so the former
/// owner has lost it.
///
/// The limits are set as for a guarded transaction. Without them, each attempt at a job whose mark
/// waits for a standby would occupy another connection, for as long as the standby is away.
const BEGIN: &str = "\
INSERT INTO streamjobs.once AS mark
    (group_name, key, stream, entry_id, published_at, payload_hash, owner, expires_at)
SELECT $1, $2, $3, $4, $5, $6, $7, clock_timestamp() + make_interval(secs => $8)
FROM (SELECT set_config('lock_timeout', $9, true),
             set_config('statement_timeout', $10, true),
             set_config('idle_in_transaction_session_timeout', $11, true)) AS limits
ON CONFLICT (group_name, key) DO UPDATE
    SET stream = EXCLUDED.stream, entry_id = EXCLUDED.entry_id,
        published_at = EXCLUDED.published_at, payload_hash = EXCLUDED.payload_hash, owner = EXCLUDED.owner,
        expires_at = EXCLUDED.expires_at
    WHERE mark.done_at IS NULL
        AND (mark.expires_at <= clock_timestamp()
            OR (mark.stream = EXCLUDED.stream AND mark.entry_id = EXCLUDED.entry_id))
RETURNING xmax <> 0";

/// Marks the work as done, whichever attempt began it, even if its row was pruned.
const DONE: &str = "\
INSERT INTO streamjobs.once AS mark
    (group_name, key, stream, entry_id, published_at, payload_hash, done_at)
VALUES ($1, $2, $3, $4, $5, $6, now())
ON CONFLICT (group_name, key) DO UPDATE SET done_at = now(), owner = NULL, expires_at = NULL
    WHERE mark.done_at IS NULL";

const UNDO_MAX: Duration = Duration::from_secs(5);
const UNDO: &str = "\
DELETE FROM streamjobs.once
WHERE group_name = $1 AND key = $2 AND owner = $3 AND done_at IS NULL";
