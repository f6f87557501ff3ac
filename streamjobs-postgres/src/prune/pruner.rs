//! The service that deletes old rows, in batches.

use std::time::Duration;

use streamjobs::Client;
use streamjobs::error::BoxError;
use streamjobs::service::{BoxFuture, ServedQueue, Service, ServiceContext};
use tokio_util::sync::CancellationToken;

use super::bounds::Bounds;
use super::keep::Keep;
use crate::postgres::Postgres;
use crate::time::{Timestamp, seconds};
use crate::{fault, metrics};

/// Deletes old rows: guard rows of finished work, expired marks of abandoned work and, if [`Keep`]
/// says so, dead letters. A [`Service`] of the runtime.
///
/// ```no_run
/// # use streamjobs::{Client, Runtime};
/// # use streamjobs_postgres::{Keep, Postgres};
/// # async fn example(client: Client, postgres: Postgres) -> Result<(), Box<dyn std::error::Error>> {
/// let pruner = postgres.pruner(Keep::default());
/// let runtime = Runtime::builder(&client).service(pruner).start().await?;
/// # Ok(())
/// # }
/// ```
///
/// Any number of processes may run a pruner. Each skips rows that another pruner has locked.
///
/// # Delivery
///
/// Without its guard row a job would be done again, so the rows of jobs that can still be delivered
/// stay: rows younger than the oldest unfinished entry of their group, and all rows of a group
/// while Redis cannot be asked. An event that is published again, or redriven, after [`Keep::done`]
/// is done again.
#[derive(Clone, Debug)]
#[must_use = "a pruner deletes nothing before it is given to a runtime"]
pub struct Pruner {
    postgres: Postgres,
    keep: Keep,
}

/// What a [sweep](Pruner::sweep) deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// Guard rows: those of finished work, and expired marks of abandoned work.
    pub once: u64,
    /// The number of groups on streams for which old rows were retained, because a job may still
    /// need them or because Redis could not be asked.
    pub retained: u64,
    /// Dead letters.
    pub letters: u64,
    /// Batches that have completed.
    pub batches: u64,
    /// Batches that should have completed by now, and were not deleted. They are counted up to 1,000, before anything
    /// is deleted; `None` if they could not be counted.
    pub unfinished_batches: Option<u64>,
}

impl Postgres {
    /// A pruner that deletes rows that are older than `keep` allows.
    pub fn pruner(&self, keep: Keep) -> Pruner {
        Pruner { postgres: self.clone(), keep }
    }
}

impl Pruner {
    /// Deletes old rows once and returns: for programs without a runtime, such as a scheduled
    /// command.
    ///
    /// # Errors
    ///
    /// When the database refuses or cannot be reached. Earlier batches stay deleted.
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped, the current batch may or may not be deleted.
    pub async fn sweep(&self, client: &Client) -> Result<Pruned, sqlx::Error> {
        let mut pruned = Pruned::default();
        let swept = self.sweep_until(client, &[], &CancellationToken::new(), &mut pruned).await;
        swept.map(|()| pruned)
    }

    async fn sweep_until(
        &self,
        client: &Client,
        served: &[ServedQueue],
        stop: &CancellationToken,
        pruned: &mut Pruned,
    ) -> Result<(), sqlx::Error> {
        // A failure to count does not stop the deletion, and a failure to delete does not stop the
        // count.
        let counted = self.unfinished_batches().await;
        pruned.unfinished_batches = counted.as_ref().ok().copied();
        let mut bounds = Bounds::new(client, served);
        let old = self.before(self.keep.done).await?;
        for kind in [DONE, LEFT_BEHIND] {
            for (group, stream) in self.queues(&kind).await? {
                let before = bounds.before(client, &group, &stream, old.0).await;
                pruned.retained += u64::from(before.is_none_or(|before| before < old.0));
                let Some(before) = before.map(Timestamp) else { continue };
                self.forget(&kind, (&group, &stream), before, stop, pruned).await?;
            }
        }
        if let Some(age) = self.keep.letters {
            self.forget_letters(age, stop, pruned).await?;
        }
        self.forget_batches(stop, pruned).await?;
        counted.map(drop)
    }

    /// The time this long ago, by the database's clock, which also wrote the rows.
    async fn before(&self, age: Duration) -> Result<Timestamp, sqlx::Error> {
        let before = async {
            let mut reading = self.postgres.begin_reading().await?;
            let before = self.postgres.query_scalar(BEFORE).bind(seconds(age));
            before.fetch_one(&mut *reading).await
        };
        fault::within(STEP_MAX, before).await
    }

    /// The groups that have rows, with the streams of their events.
    async fn queues(&self, kind: &Kind) -> Result<Vec<(String, String)>, sqlx::Error> {
        let queues = async {
            let mut reading = self.postgres.begin_reading().await?;
            self.postgres.query_as(kind.queues).fetch_all(&mut *reading).await
        };
        fault::within(STEP_MAX, queues).await
    }

    async fn forget(
        &self,
        kind: &Kind,
        (group, stream): (&str, &str),
        before: Timestamp,
        stop: &CancellationToken,
        pruned: &mut Pruned,
    ) -> Result<(), sqlx::Error> {
        let mut deleted = u64::from(self.keep.batch);
        while deleted >= u64::from(self.keep.batch) && !stop.is_cancelled() {
            let batch = async {
                let mut transaction = self.postgres.begin_own().await?;
                let delete = self.postgres.query(kind.delete).bind(group).bind(stream);
                let delete = delete.bind(before).bind(i64::from(self.keep.batch));
                let deleted = delete.execute(&mut *transaction).await?.rows_affected();
                transaction.commit().await?;
                Ok(deleted)
            };
            deleted = fault::within(STEP_MAX, batch).await?;
            pruned.once += deleted;
            metrics::pruned("once", deleted);
        }
        Ok(())
    }

    async fn forget_letters(
        &self,
        age: Duration,
        stop: &CancellationToken,
        pruned: &mut Pruned,
    ) -> Result<(), sqlx::Error> {
        let letters = self.postgres.dead_letters();
        let mut deleted = u64::from(self.keep.batch);
        while deleted >= u64::from(self.keep.batch) && !stop.is_cancelled() {
            deleted = fault::within(STEP_MAX, letters.delete_older(age, self.keep.batch)).await?;
            pruned.letters += deleted;
            metrics::pruned("dead_letters", deleted);
        }
        Ok(())
    }

    async fn forget_batches(
        &self,
        stop: &CancellationToken,
        pruned: &mut Pruned,
    ) -> Result<(), sqlx::Error> {
        // Deleting a batch deletes its members too.
        let rows = i64::from(self.keep.batch.min(BATCHES_MAX));
        let mut deleted = rows as u64;
        while deleted >= rows as u64 && !stop.is_cancelled() {
            let batch = async {
                let mut transaction = self.postgres.begin_own().await?;
                let delete = self.postgres.query(DELETE_BATCHES).bind(seconds(self.keep.batches));
                let deleted = delete.bind(rows).execute(&mut *transaction).await?.rows_affected();
                transaction.commit().await?;
                Ok(deleted)
            };
            deleted = fault::within(STEP_MAX, batch).await?;
            pruned.batches += deleted;
            metrics::pruned("batches", deleted);
        }
        Ok(())
    }

    /// How many batches should have completed by now.
    async fn unfinished_batches(&self) -> Result<u64, sqlx::Error> {
        let count = async {
            let mut reading = self.postgres.begin_reading().await?;
            let count = self.postgres.query_scalar::<i64>(UNFINISHED_BATCHES);
            count.bind(seconds(self.keep.unfinished)).fetch_one(&mut *reading).await
        };
        let count = fault::within(STEP_MAX, count).await?;
        let count = u64::try_from(count).unwrap_or(0);
        // The gauge keeps its last value while the batches cannot be counted.
        metrics::unfinished_batches(count);
        Ok(count)
    }

    async fn sweep_and_report(&self, context: &ServiceContext) {
        let mut pruned = Pruned::default();
        let swept =
            self.sweep_until(context.client(), context.queues(), context.stop(), &mut pruned).await;
        if let Err(error) = swept {
            // The next sweep continues where this sweep ended.
            metrics::database_error(NAME);
            tracing::warn!(error = %error, "cannot delete old rows; the next sweep retries");
        }
        if pruned.once + pruned.letters + pruned.batches > 0 {
            let Pruned { once, letters, batches, retained, .. } = pruned;
            tracing::info!(once, letters, batches, retained, "old rows deleted");
        }
        if let Some(batches) = pruned.unfinished_batches.filter(|batches| *batches > 0) {
            let age = self.keep.unfinished;
            tracing::warn!(batches, ?age, "batches were opened long ago and have not completed");
        }
    }
}

impl Service for Pruner {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&'a self, context: &'a ServiceContext) -> BoxFuture<'a, Result<(), BoxError>> {
        let checked = self.keep.check(context.queues()).map_err(BoxError::from);
        Box::pin(std::future::ready(checked))
    }

    fn run(&self, context: ServiceContext) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // Spreads the sweeps of processes that start together.
            let mut pause = self.keep.interval.mul_f64(fastrand::f64());
            while !context.stopped_within(pause).await {
                self.sweep_and_report(&context).await;
                pause = self.keep.interval;
            }
        })
    }
}

/// The statements for one kind of guard row.
struct Kind {
    queues: &'static str,
    delete: &'static str,
}

/// The statements for rows in `$state`, whose age is in the column `$written`. `$found` is the
/// column that their index is ordered by. The groups are read by skipping through that index, and
/// rows that another pruner or an attempt has locked are skipped.
macro_rules! kind {
    ($state:literal, $written:literal, $found:literal) => {
        Kind {
            queues: concat!(
                "WITH RECURSIVE queues (group_name, stream) AS (
                    (SELECT group_name, stream FROM streamjobs.once WHERE ",
                $state,
                " ORDER BY group_name, stream LIMIT 1)
                UNION ALL
                    SELECT next.group_name, next.stream FROM queues q CROSS JOIN LATERAL (
                        SELECT o.group_name, o.stream FROM streamjobs.once o
                        WHERE (o.group_name, o.stream) > (q.group_name, q.stream) AND ",
                $state,
                " ORDER BY o.group_name, o.stream LIMIT 1) AS next
                ) SELECT group_name, stream FROM queues"
            ),
            delete: concat!(
                "DELETE FROM streamjobs.once WHERE ctid = ANY (ARRAY(
                    SELECT ctid FROM streamjobs.once
                    WHERE group_name = $1 AND stream = $2 AND ",
                $state,
                " AND ",
                $written,
                " < $3 AND ",
                $found,
                " < $3 ORDER BY ",
                $found,
                " LIMIT $4 FOR UPDATE SKIP LOCKED))"
            ),
        }
    };
}

/// Finished work. Its event was published before the work was done, so the index on `published_at`
/// finds it. If the clocks of the database and the Redis server differ, a row may stay longer by
/// that difference.
const DONE: Kind = kind!("done_at IS NOT NULL", "done_at", "published_at");
/// Work that was begun, not finished, and not taken over after it expired.
const LEFT_BEHIND: Kind = kind!("done_at IS NULL", "expires_at", "expires_at");

const DELETE_BATCHES: &str = "\
DELETE FROM streamjobs.batches WHERE id = ANY (ARRAY(
    SELECT id FROM streamjobs.batches
    WHERE completed_at < clock_timestamp() - make_interval(secs => $1)
    ORDER BY completed_at LIMIT $2 FOR UPDATE SKIP LOCKED))";

const UNFINISHED_BATCHES: &str = "\
SELECT count(*) FROM (
    SELECT FROM streamjobs.batches
    WHERE completed_at IS NULL AND opened_at < clock_timestamp() - make_interval(secs => $1)
    LIMIT 1000) AS unfinished";

const BEFORE: &str = "SELECT clock_timestamp() - make_interval(secs => $1)";

/// The most batches that are deleted in one transaction: few, because a batch may have many
/// members.
const BATCHES_MAX: u32 = 100;

/// The longest time for one step of a sweep.
const STEP_MAX: Duration = Duration::from_secs(300);

const NAME: &str = "pruner";
