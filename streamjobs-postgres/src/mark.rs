//! Marks of work outside of the database, kept in it.

use std::time::Duration;

use sqlx::Executor;
use streamjobs::once::{MarkBegin, Marked, Marks};
use streamjobs::{Job, JobError, Requirements};

use crate::fault;
use crate::guard_row::{GuardRow, report_mismatch};
use crate::key;
use crate::postgres::Postgres;
use crate::time::{Timestamp, seconds};

/// Lets a handler do work outside of the database once for each event, such as sending mail.
///
/// It is [`streamjobs::once::OnceMark`] with its marks in Postgres: as durable as the database,
/// whatever becomes of the streams' server. **The window is the same**: a process that dies between
/// its work and the note that it is done does the work again, or learns of it by
/// [`is_takeover`](streamjobs::once::OnceMark::is_takeover). Effects in this database want
/// [`Once`](crate::Once), which has no window.
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
/// Marks are kept until a pruner forgets them.
pub type OnceMark = streamjobs::once::OnceMark<Postgres>;

impl Marks for Postgres {
    async fn begin(job: &Job, key: &str, begin: MarkBegin<'_>) -> Result<Marked, JobError> {
        let (postgres, key) = (Self::of(job)?, key::stored(key));
        let hash = key::payload_hash(job.entry());
        let takeover = sqlx::query_scalar::<_, bool>(postgres.schema().sql(BEGIN))
            .bind(job.group().as_str())
            .bind(&key)
            .bind(job.stream().as_str())
            .bind(begin.origin.to_string())
            .bind(Timestamp::from_millis(begin.origin.milliseconds()))
            .bind(hash.as_slice())
            .bind(begin.owner)
            .bind(seconds(begin.expiry))
            .fetch_optional(postgres.pool());
        let takeover = fault::within(postgres.timeout(), takeover).await;
        let takeover = takeover.map_err(fault::job_error)?;
        if let Some(takeover) = takeover {
            return Ok(Marked::Begun { takeover });
        }
        let found = GuardRow::load(&postgres, job.group(), &key, postgres.pool());
        match fault::within(postgres.timeout(), found).await.map_err(fault::job_error)? {
            Some(found) if found.done => {
                if found.hash != hash {
                    report_mismatch(job);
                }
                Ok(Marked::Done)
            }
            Some(found) => Ok(Marked::Running { rest: found.remaining }),
            // It was undone a moment ago.
            None => Ok(Marked::Running { rest: Duration::ZERO }),
        }
    }

    async fn done(job: &Job, key: &str, _keep: Duration) -> Result<(), JobError> {
        let postgres = Self::of(job)?;
        let origin = job.origin().unwrap_or(job.entry_id());
        let done = async {
            // A note that a crash of the server could take would be no note.
            let mut transaction = postgres.begin().await?;
            sqlx::query(postgres.schema().sql(DONE))
                .bind(job.group().as_str())
                .bind(key::stored(key))
                .bind(job.stream().as_str())
                .bind(origin.to_string())
                .bind(Timestamp::from_millis(origin.milliseconds()))
                .bind(key::payload_hash(job.entry()).as_slice())
                .execute(&mut *transaction)
                .await?;
            (&mut *transaction).execute(postgres.commit()).await
        };
        let done = fault::within(postgres.timeout(), done).await;
        done.map(drop).map_err(fault::job_error)
    }

    async fn undo(job: &Job, key: &str, owner: &str) -> Result<(), JobError> {
        let postgres = Self::of(job)?;
        let undone = sqlx::query(postgres.schema().sql(UNDO))
            .bind(job.group().as_str())
            .bind(key::stored(key))
            .bind(owner)
            .execute(postgres.pool());
        // The job's retry is held up meanwhile, and takes over what stays.
        let undone = fault::within(UNDO_MAX, undone).await;
        undone.map(drop).map_err(fault::job_error)
    }

    fn require(requirements: &mut Requirements) {
        requirements.state::<Self>();
    }
}

/// Answers whether the work had been begun before, and nothing where it is not to be begun. A row of
/// the same entry is one of this job: that it was delivered again says that its owner is gone.
const BEGIN: &str = "\
INSERT INTO streamjobs.once AS mark
    (group_name, key, stream, entry_id, published_at, payload_hash, owner, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp() + make_interval(secs => $8))
ON CONFLICT (group_name, key) DO UPDATE
    SET stream = EXCLUDED.stream, entry_id = EXCLUDED.entry_id,
        published_at = EXCLUDED.published_at, payload_hash = EXCLUDED.payload_hash, owner = EXCLUDED.owner,
        expires_at = EXCLUDED.expires_at
    WHERE mark.done_at IS NULL
        AND (mark.expires_at <= clock_timestamp()
            OR (mark.stream = EXCLUDED.stream AND mark.entry_id = EXCLUDED.entry_id))
RETURNING xmax <> 0";

/// Whoever has begun it, and even if nobody remembers: it is done.
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
