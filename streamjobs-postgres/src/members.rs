//! Ends members of batches, within the transaction that ends their jobs.
//!
//! # Locks
//!
//! Members are locked first, then their batches, each in the order of their ids: so two transactions never wait for
//! each other. Each end of a member, and the close of the batch, locks the row of the batch until the transaction
//! ends. So of two members that end at the same time, the second sees the end of the first, and only one of them
//! finds that no member is left.
//!
//! Every transaction here is `READ COMMITTED`: each statement sees what was committed before it began, so a statement
//! after a lock sees the changes of the lock's last owner.

use sqlx::PgConnection;
use streamjobs::GroupName;

use crate::postgres::Postgres;

/// Ends a group's jobs on these events, in every batch that has them as members; the flag of each event says whether
/// the job is a dead letter. Publishes the events of batches that this completes.
///
/// Before: some jobs may be members, have ended before, or be dead. After: all jobs that are members have ended. A
/// job is marked dead only if it had not ended before; a dead job that is done now is no longer dead. A repetition
/// changes nothing.
pub(crate) async fn end(
    postgres: &Postgres,
    connection: &mut PgConnection,
    group: &GroupName,
    ends: &[(&str, bool)],
) -> Result<(), sqlx::Error> {
    end_of(postgres, connection, (None, group), ends).await.map(drop)
}

/// As [`end`], but only in one batch if one is named. Returns whether it changed anything.
pub(crate) async fn end_of(
    postgres: &Postgres,
    connection: &mut PgConnection,
    (batch, group): (Option<&str>, &GroupName),
    ends: &[(&str, bool)],
) -> Result<bool, sqlx::Error> {
    let (ids, dead) = ends.iter().copied().unzip::<_, _, Vec<_>, Vec<_>>();
    let batches = postgres
        .query_scalar::<String>(END)
        .bind(group.as_str())
        .bind(ids)
        .bind(dead)
        .bind(batch)
        .fetch_all(&mut *connection)
        .await?;
    if batches.is_empty() {
        return Ok(false);
    }
    postgres.query(LOCK).bind(&batches).execute(&mut *connection).await?;
    settle(postgres, connection, &batches).await?;
    Ok(true)
}

/// Completes those of these batches that are closed and have no unfinished member: their events are written into the
/// outbox. An earlier statement of this transaction must have locked the rows of the batches.
pub(crate) async fn settle(
    postgres: &Postgres,
    connection: &mut PgConnection,
    batches: &[String],
) -> Result<(), sqlx::Error> {
    postgres.query(SETTLE).bind(batches).execute(connection).await.map(drop)
}

const END: &str = "\
WITH told AS (
    SELECT event_id, bool_and(dead) AS dead
    FROM unnest($2::text[], $3::boolean[]) AS told (event_id, dead) GROUP BY event_id),
due AS (
    SELECT member.batch_id, member.group_name, member.event_id, told.dead
    FROM streamjobs.batch_members AS member JOIN told ON told.event_id = member.event_id
    WHERE member.group_name = $1
        AND (member.ended_at IS NULL OR (member.dead AND NOT told.dead))
        AND ($4::text IS NULL OR member.batch_id = $4)
    ORDER BY member.batch_id, member.event_id
    FOR UPDATE OF member)
UPDATE streamjobs.batch_members AS member
SET ended_at = COALESCE(member.ended_at, clock_timestamp()), dead = due.dead
FROM due
WHERE member.batch_id = due.batch_id AND member.group_name = due.group_name
    AND member.event_id = due.event_id
RETURNING member.batch_id";

const LOCK: &str =
    "SELECT FROM streamjobs.batches WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE";

/// The times of completion and success are set once and never change. The members are read only once, not again for
/// each use of the result, and as an ordered range, which the partial indexes serve: with `=` or `EXISTS`, a plan
/// from the statistics of a table with many unfinished members would read all of them while the batch is locked. The
/// notification goes out with the commit, once for each transaction.
const SETTLE: &str = "\
WITH facts AS MATERIALIZED (
    SELECT id, completed_at, succeeded_at,
        closed_at IS NOT NULL AND (
            SELECT member.batch_id FROM streamjobs.batch_members AS member
            WHERE member.batch_id >= batch.id AND member.batch_id <= batch.id
                AND member.ended_at IS NULL
            ORDER BY member.batch_id LIMIT 1) IS NULL AS ended,
        (
            SELECT member.batch_id FROM streamjobs.batch_members AS member
            WHERE member.batch_id >= batch.id AND member.batch_id <= batch.id AND member.dead
            ORDER BY member.batch_id LIMIT 1) IS NULL AS clean
    FROM streamjobs.batches AS batch WHERE id = ANY ($1)),
changed AS (
    UPDATE streamjobs.batches AS batch
    SET changed_at = clock_timestamp(),
        completed_at = CASE WHEN facts.ended
            THEN COALESCE(batch.completed_at, clock_timestamp()) ELSE batch.completed_at END,
        succeeded_at = CASE WHEN facts.ended AND facts.clean
            THEN COALESCE(batch.succeeded_at, clock_timestamp()) ELSE batch.succeeded_at END
    FROM facts WHERE batch.id = facts.id
    RETURNING batch.id,
        facts.completed_at IS NULL AND facts.ended AS completes,
        facts.succeeded_at IS NULL AND facts.ended AND facts.clean AS succeeds),
written AS (
    INSERT INTO streamjobs.outbox (stream, event_id, field_names, field_values)
    SELECT event.stream, event.event_id, event.field_names, event.field_values
    FROM changed JOIN streamjobs.batch_events AS event ON event.batch_id = changed.id
    WHERE (event.kind = 'completed' AND changed.completes)
        OR (event.kind = 'succeeded' AND changed.succeeds)
    ORDER BY event.batch_id, event.kind
    RETURNING id)
SELECT pg_notify('streamjobs_outbox', '') FROM written";
