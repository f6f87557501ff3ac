//! The guard of several jobs that share a run: their guard rows in one transaction.

use std::collections::HashMap;
use std::marker::PhantomData;

use sqlx::PgConnection;
use streamjobs::__proof::FailPoint;
use streamjobs::batch::{BatchBegun, BatchResource};
use streamjobs::{Job, JobError};
use tokio::time::timeout;

use super::guard::{Guarded, Once, RUNNING_MAX, commit};
use crate::fault;
use crate::guard_row::{GuardRow, ROWS_HIDDEN, are_rows_hidden, report_mismatch};
use crate::key::{self, GuardKey};
use crate::postgres::Postgres;
use crate::time::Timestamp;

/// For a handler with the option `batch`: the guard rows of all jobs of a run are in one transaction with the
/// handler's effects.
///
/// Jobs that were done before are left out. A job is snoozed if another job of the run is for the same event, or
/// another attempt is working on the event. A job that takes over from a dead attempt of an
/// [`OnceMark`](crate::OnceMark) runs alone. The guard row of a job that the handler
/// [fails](streamjobs::batch::BatchItem::fail) is removed before the commit, so that the job runs again. The
/// handler's effects for this job are not undone unless they were in a savepoint of their own. When the handler fails
/// all jobs, the transaction is rolled back.
impl<K: GuardKey> BatchResource for Once<K> {
    async fn begin_batch(jobs: &[Job]) -> Result<BatchBegun<Self>, JobError> {
        let Some(first) = jobs.first() else { return Err(fault::later("the run has no job")) };
        let postgres = Postgres::of(first)?;
        let late = "timed out before the guarded transaction began";
        let begun = timeout(postgres.timeout_before(first), begin(&postgres, first, jobs)).await;
        begun.unwrap_or_else(|_| Err(fault::later(late)))
    }

    async fn commit_batch(mut self, undone: &[usize]) -> Result<(), JobError> {
        let Guarded { job, keys } = &self.guarded;
        let undone = undone.iter().filter_map(|place| keys.get(*place)).collect::<Vec<_>>();
        if !undone.is_empty() {
            let removal = self.postgres.query(REMOVE).bind(job.group().as_str()).bind(undone);
            let removal = removal.execute(&mut *self.transaction);
            let limit = self.postgres.limits().timeout();
            fault::within(limit, removal).await.map_err(fault::own_error)?;
        }
        commit(self).await
    }
}

/// A job of the run.
struct Place<'a> {
    number: usize,
    job: &'a Job,
    hash: [u8; 16],
}

/// Why a job is left out.
enum Left {
    Done,
    Failed(JobError),
    Alone,
}

async fn begin<K: GuardKey>(
    postgres: &Postgres,
    first: &Job,
    jobs: &[Job],
) -> Result<BatchBegun<Once<K>>, JobError> {
    let keys = jobs.iter().map(key::of_job::<K>).collect::<Vec<_>>();
    let stored = keys.iter().map(|key| key.as_deref().unwrap_or_default().to_owned()).collect();
    let mut left_out = Vec::<(usize, Left)>::new();
    let mut places = HashMap::new();
    for (number, (job, key)) in jobs.iter().zip(keys).enumerate() {
        match key {
            Ok(key) if places.contains_key(&key) => {
                left_out.push((
                    number,
                    Left::Failed(fault::later("a job of the same event runs with it")),
                ));
            }
            Ok(key) => {
                let hash = key::payload_hash(job.entry());
                places.insert(key, Place { number, job, hash });
            }
            Err(error) => left_out.push((number, Left::Failed(error))),
        }
    }
    let mut transaction = postgres.begin_own().await.map_err(fault::own_error)?;
    for key in insert(postgres, first, &places, &mut transaction).await? {
        places.remove(&key);
    }
    FailPoint::GuardAfterInsert.reached();
    for (key, Place { number, job, hash }) in places {
        let why = match before(postgres, job, (&key, &hash), &mut transaction).await? {
            // The job's mark has expired just now, and the next attempt takes it over.
            Left::Alone if jobs.len() == 1 => Left::Failed(fault::later("a mark expires just now")),
            why => why,
        };
        left_out.push((number, why));
    }
    let once = Once {
        transaction,
        postgres: postgres.clone(),
        guarded: Guarded { job: first.clone(), keys: stored },
        key: PhantomData,
    };
    let begun = BatchBegun::new(once);
    Ok(left_out.into_iter().fold(begun, |begun, (number, why)| match why {
        Left::Done => begun.done(number),
        Left::Failed(error) => begun.failed(number, error),
        Left::Alone => begun.alone(number),
    }))
}

/// Writes the guard rows that do not exist yet, and returns their keys. Waits for transactions that wrote such a row
/// and have not ended, in the order of the keys, so that two runs do not wait for each other.
async fn insert(
    postgres: &Postgres,
    first: &Job,
    places: &HashMap<String, Place<'_>>,
    transaction: &mut PgConnection,
) -> Result<Vec<String>, JobError> {
    let limits = postgres.limits();
    let (mut keys, mut entries, mut published, mut hashes) = (vec![], vec![], vec![], vec![]);
    let mut ordered = places.iter().collect::<Vec<_>>();
    ordered.sort_unstable_by_key(|(key, _)| *key);
    for (key, Place { job, hash, .. }) in ordered {
        let origin = job.origin().unwrap_or(job.entry_id());
        keys.push(key.as_str());
        entries.push(origin.to_string());
        published.push(Timestamp::from_millis(origin.milliseconds()));
        hashes.push(hash.as_slice());
    }
    let inserted = postgres
        .query_scalar::<String>(if places.len() == 1 { INSERT_ONE } else { INSERT_MANY })
        .bind(first.group().as_str())
        .bind(keys)
        .bind(first.stream().as_str())
        .bind(entries)
        .bind(published)
        .bind(hashes)
        .bind(&limits.lock.setting)
        .bind(&limits.statement.setting)
        .bind(&limits.idle.setting)
        .fetch_all(transaction);
    inserted.await.map_err(fault::own_error)
}

/// Why a job whose guard row already existed is left out.
async fn before(
    postgres: &Postgres,
    job: &Job,
    (key, hash): (&str, &[u8]),
    transaction: &mut PgConnection,
) -> Result<Left, JobError> {
    let found = GuardRow::load(postgres, job.group(), key, transaction).await;
    let Some(found) = found.map_err(fault::own_error)? else {
        let hidden = are_rows_hidden(postgres, transaction).await;
        if hidden.map_err(fault::own_error)? {
            return Err(fault::blocked(ROWS_HIDDEN));
        }
        // The row that caused the conflict has been rolled back or pruned since.
        let why = "another attempt at this event was rolled back just now";
        return Ok(Left::Failed(fault::later(why)));
    };
    if found.done {
        if found.hash != hash {
            report_mismatch(job);
        }
        return Ok(Left::Done);
    }
    if found.remaining.is_zero() {
        return Ok(Left::Alone);
    }
    let delay = found.remaining.clamp(fault::PAUSE, RUNNING_MAX);
    Ok(Left::Failed(JobError::later(delay, "another attempt is working on this event")))
}

/// As for a single job, the statement that writes the guard rows also sets the limits.
macro_rules! insert {
    ($conflict:literal) => {
        concat!(
            "INSERT INTO streamjobs.once AS guard
    (group_name, key, stream, entry_id, published_at, payload_hash, done_at)
SELECT $1, event.key, $3, event.entry_id, event.published_at, event.payload_hash, now()
FROM (SELECT set_config('lock_timeout', $7, true),
             set_config('statement_timeout', $8, true),
             set_config('idle_in_transaction_session_timeout', $9, true)) AS limits,
     UNNEST($2::text[], $4::text[], $5::timestamptz[], $6::bytea[])
         AS event (key, entry_id, published_at, payload_hash)
ON CONFLICT (group_name, key) DO ",
            $conflict,
            " RETURNING key"
        )
    };
}

/// A single job takes over an unfinished row that has expired: if the job fails, its transaction is rolled back, and
/// the row is as before.
const INSERT_ONE: &str = insert!(
    "UPDATE
    SET done_at = EXCLUDED.done_at, stream = EXCLUDED.stream, entry_id = EXCLUDED.entry_id,
        published_at = EXCLUDED.published_at, payload_hash = EXCLUDED.payload_hash,
        owner = NULL, expires_at = NULL
    WHERE guard.done_at IS NULL AND guard.expires_at <= clock_timestamp()"
);

/// Several jobs take over no row, because even an update whose condition is false would lock the row while the
/// handler runs.
const INSERT_MANY: &str = insert!("NOTHING");

const REMOVE: &str = "DELETE FROM streamjobs.once WHERE group_name = $1 AND key = ANY($2)";
