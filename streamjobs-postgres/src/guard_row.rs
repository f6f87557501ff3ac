//! The guard row of an event, as `Once` and `OnceMark` read it.

use std::time::Duration;

use sqlx::PgConnection;
use streamjobs::{GroupName, Job};
use tracing::warn;

use crate::metrics;
use crate::postgres::Postgres;

/// The existing guard row of an event.
#[derive(Debug)]
pub(crate) struct GuardRow {
    pub(crate) done: bool,
    /// The hash of the payload for which the row was written.
    pub(crate) hash: Vec<u8>,
    /// The time until an unfinished row may be taken over.
    pub(crate) remaining: Duration,
}

impl GuardRow {
    pub(crate) async fn load(
        postgres: &Postgres,
        group: &GroupName,
        key: &str,
        transaction: &mut PgConnection,
    ) -> Result<Option<Self>, sqlx::Error> {
        let row = postgres
            .query_as::<(bool, Vec<u8>, i64)>(LOAD)
            .bind(group.as_str())
            .bind(key)
            .fetch_optional(transaction)
            .await?;
        Ok(row.map(|(done, hash, milliseconds)| {
            let remaining = Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0));
            Self { done, hash, remaining }
        }))
    }
}

/// Whether row-level security hides guard rows from the role, so that a row may exist although none
/// is found.
pub(crate) async fn are_rows_hidden(
    postgres: &Postgres,
    transaction: &mut PgConnection,
) -> Result<bool, sqlx::Error> {
    postgres.query_scalar(HIDDEN).fetch_one(transaction).await
}

/// Counts and logs a duplicate whose payload differs from the payload of the job that was done.
pub(crate) fn report_mismatch(job: &Job) {
    metrics::payload_mismatch(job.stream(), job.group());
    warn!(
        stream = %job.stream(), group = %job.group(), entry_id = %job.entry_id(),
        event_id = %job.event_id(),
        "event skipped as a duplicate, but its payload differs from that of the event that was done"
    );
}

pub(crate) const ROWS_HIDDEN: &str =
    "row-level security of the table once hides guard rows from the role";

const HIDDEN: &str = "SELECT row_security_active('streamjobs.once')";

const LOAD: &str = "\
SELECT done_at IS NOT NULL, payload_hash,
       COALESCE(ceil(extract(epoch FROM expires_at - clock_timestamp()) * 1000), 0)::bigint
FROM streamjobs.once
WHERE group_name = $1 AND key = $2";
