//! The end of members of batches: within the transaction that ends their jobs.
//!
//! # Locks
//!
//! Members first, then their batches, each in the order of their ids: two transactions do not wait for each other.
//! The row of a batch is locked by each end of a member, and by its close, until the transaction ends. So of two
//! members that end at the same time, the second sees the end of the first, and exactly one of them finds that none
//! is left.
//!
//! Every transaction here is `READ COMMITTED`: each statement sees what was committed before it began, so that what
//! follows a lock sees what its last owner did.

use sqlx::PgConnection;
use streamjobs::GroupName;

use crate::postgres::Postgres;

/// Ends the jobs of a group on these events, each with whether it is a dead letter, in every batch that has them as
/// members. Publishes what is due then.
///
/// Before: some of them may be members, have ended before, or be dead. After: those that are members have ended; as
/// dead ones only if they had not ended before. A dead one that is done now is dead no more. A repetition changes
/// nothing.
pub(crate) async fn end(
    postgres: &Postgres,
    connection: &mut PgConnection,
    group: &GroupName,
    ends: &[(&str, bool)],
) -> Result<(), sqlx::Error> {
    end_of(postgres, connection, (None, group), ends).await.map(drop)
}

/// As [`end`], in one batch alone if one is named: whether it changed anything.
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

/// Completes those of these batches that are closed and have no member left, whose rows this transaction has locked
/// in a statement before: their events are written into the outbox.
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

/// Both times only begin to exist. The members are looked at once, and not again for each use of what was found;
/// and by a range with an order, which the partial indexes have: with `=` or `EXISTS`, a plan from statistics of a table
/// with many unfinished members reads all of them under the lock of the batch. The notification goes out with the commit, once for each transaction.
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
