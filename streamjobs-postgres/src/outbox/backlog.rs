//! The number and age of the events in the outbox.

use std::time::Duration;

use crate::postgres::Postgres;

/// The events waiting in the outbox, of all publishers and for all streams.
///
/// The view `outbox_backlog` has the figures for each stream, without an upper bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxBacklog {
    /// The number of waiting events, counted up to 10,000.
    pub events: u64,
    /// Whether there are more than were counted.
    pub more: bool,
    /// How long the oldest event has waited, by the database's clock; `None` if no event waits.
    pub age: Option<Duration>,
    /// The number of rows that cannot be published and are kept for inspection, counted up to
    /// 10,000.
    pub refused: u64,
}

/// Reads the backlog from an id on, with a bound on how many rows are counted. `limit` is a
/// `statement_timeout`: a caller that gives up does not end the server's work.
pub(super) async fn load(
    postgres: &Postgres,
    from: i64,
    limit: Option<&str>,
) -> Result<OutboxBacklog, sqlx::Error> {
    let mut reading = postgres.begin_reading().await?;
    postgres.query(SET).bind(limit).execute(&mut *reading).await?;
    let query = postgres.query_as::<(i64, Option<f64>, i64)>(LOAD);
    let query = query.bind(COUNTED_MAX + 1).bind(from);
    let (events, age, refused) = query.fetch_one(&mut *reading).await?;
    let counted = |rows: i64| rows.clamp(0, COUNTED_MAX).unsigned_abs();
    // The clock may have been set back since.
    let age = age.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default());
    Ok(OutboxBacklog {
        events: counted(events),
        more: events > COUNTED_MAX,
        age,
        refused: counted(refused),
    })
}

const COUNTED_MAX: i64 = 10_000;

/// A scan of the whole table would read all rows that were ever moved, as long as a transaction with
/// an old snapshot is open.
const SET: &str = "SELECT set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('statement_timeout', coalesce($1, current_setting('statement_timeout')), true)";

/// The row with the lowest id counts as the oldest, which can be wrong only by the overlap of
/// concurrent transactions. The index is read once, since it may lead to many rows that were moved.
const LOAD: &str = "WITH waiting AS MATERIALIZED (
        SELECT id, published_at FROM streamjobs.outbox
        WHERE num_nonnulls(refused) = 0 AND id >= $2 ORDER BY id LIMIT $1)
    SELECT
    (SELECT count(*) FROM waiting),
    (SELECT extract(epoch FROM clock_timestamp() - published_at)::float8
        FROM waiting ORDER BY id LIMIT 1),
    (SELECT count(*) FROM (
        SELECT FROM streamjobs.outbox WHERE refused IS NOT NULL LIMIT $1) AS refused)";
