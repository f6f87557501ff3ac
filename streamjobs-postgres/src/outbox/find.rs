//! The statements that find the rows of a batch.

/// The columns of both statements: the rows of a batch in the order of their ids, with the number
/// of rows before they were cut to `$3` bytes.
macro_rules! batch {
    () => {
        ", sized AS (
        SELECT o.id, count(*) OVER () AS due, o.stream, o.field_names, o.field_values, o.due_at,
               sum(pg_column_size(o.field_values)) OVER (ORDER BY o.id)
                   - pg_column_size(o.field_values) AS bytes_before
        FROM due JOIN streamjobs.outbox o ON o.id = due.id
    )
    SELECT id, due, stream, field_names, field_values, due_at FROM sized
    WHERE bytes_before < $3 ORDER BY id"
    };
}

/// The oldest rows of all streams that are not in back-off. Each stream is searched in the index by
/// itself, so the rows of a stream in back-off are not read, however many there are.
pub(super) const FIND_ALL: &str = concat!(
    "WITH RECURSIVE streams (stream) AS (
        (SELECT o.stream FROM streamjobs.outbox o WHERE o.refused IS NULL
         ORDER BY o.stream LIMIT 1)
    UNION ALL
        SELECT (SELECT o.stream FROM streamjobs.outbox o
                WHERE o.refused IS NULL AND o.stream > s.stream ORDER BY o.stream LIMIT 1)
        FROM streams s WHERE s.stream IS NOT NULL
    ), due (id) AS (
        SELECT o.id FROM streams s CROSS JOIN LATERAL (
            SELECT o.id FROM streamjobs.outbox o
            WHERE o.refused IS NULL AND o.stream = s.stream ORDER BY o.id LIMIT $1
        ) o
        WHERE s.stream <> ALL ($2) ORDER BY o.id LIMIT $1
    )",
    batch!()
);

/// The oldest rows from an id on, and of some streams also the rows below this id. Rows of streams
/// in back-off are skipped only once, because the next read starts behind them.
///
/// The id is `$4`, or the lowest of the ids `$6` whose transaction `$5` has ended, and of the ids
/// `$8` if a transaction with the number `$7` or a higher one has. The streams are in `$9`, with the
/// lowest id of each in `$10`. The server reads no row below these ids, because it may still hold all
/// rows that were ever moved, as long as a transaction with an old snapshot is open. The condition on
/// `refused` is written so that the index of streams does not serve it: that index would be read from
/// end to end.
pub(super) const FIND_FROM: &str = concat!(
    "WITH base (id) AS MATERIALIZED (
        SELECT least($4::bigint, (
            SELECT min(t.id) FROM unnest($5::text[], $6::bigint[]) AS t (number, id)
            WHERE pg_visible_in_snapshot(t.number::xid8, pg_current_snapshot())
        ), (
            SELECT min(t.id) FROM unnest($7::text[], $8::bigint[]) AS t (number, id)
            WHERE t.number::xid8 < pg_snapshot_xmax(pg_current_snapshot())
        ))
    ), due (id) AS (
        (SELECT o.id
         FROM unnest($9::text[], $10::bigint[]) AS s (stream, id) CROSS JOIN LATERAL (
            SELECT o.id FROM streamjobs.outbox o
            WHERE o.refused IS NULL AND o.stream = s.stream
                AND o.id >= s.id AND o.id < (SELECT id FROM base)
            ORDER BY o.id LIMIT $1
         ) o
         WHERE s.stream <> ALL ($2))
    UNION ALL
        (SELECT o.id FROM streamjobs.outbox o
         WHERE num_nonnulls(o.refused) = 0 AND o.id >= (SELECT id FROM base)
            AND o.stream <> ALL ($2)
         ORDER BY o.id LIMIT $1)
        ORDER BY 1 LIMIT $1
    )",
    batch!()
);
