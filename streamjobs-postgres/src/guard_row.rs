//! Notes of what was done, as `Once` and `OnceMark` find them.

use std::time::Duration;

use sqlx::PgExecutor;
use streamjobs::{GroupName, Job};
use tracing::warn;

use crate::metrics;
use crate::postgres::Postgres;

/// A note that stands in the way.
#[derive(Debug)]
pub(crate) struct GuardRow {
    pub(crate) done: bool,
    /// The hash of the payload that it was written for.
    pub(crate) hash: Vec<u8>,
    /// How long until one that is not done may be taken over.
    pub(crate) remaining: Duration,
}

impl GuardRow {
    pub(crate) async fn load(
        postgres: &Postgres,
        group: &GroupName,
        key: &str,
        executor: impl PgExecutor<'_>,
    ) -> Result<Option<Self>, sqlx::Error> {
        let row = sqlx::query_as::<_, (bool, Vec<u8>, i64)>(postgres.schema().sql(LOAD))
            .bind(group.as_str())
            .bind(key)
            .fetch_optional(executor)
            .await?;
        Ok(row.map(|(done, hash, milliseconds)| {
            let remaining = Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0));
            Self { done, hash, remaining }
        }))
    }
}

/// Tells that an event is skipped as done whose payload is another one.
pub(crate) fn report_mismatch(job: &Job) {
    metrics::payload_mismatch(job.stream(), job.group());
    warn!(
        stream = %job.stream(), group = %job.group(), entry_id = %job.entry_id(),
        event_id = %job.event_id(),
        "an event was skipped as done, but its payload is not the one that was done"
    );
}

const LOAD: &str = "\
SELECT done_at IS NOT NULL, payload_hash,
       COALESCE(ceil(extract(epoch FROM expires_at - clock_timestamp()) * 1000), 0)::bigint
FROM streamjobs.once
WHERE group_name = $1 AND key = $2";
