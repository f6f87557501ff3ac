//! The statements of a view, which look at a bounded number of dead letters.

use super::Selection;
use super::letter::columns;
use super::selection::{Path, matching};

/// The statements for selections that one index serves. Each has the parameters of [`matching!`] and
/// then $15, the letter to begin behind.
#[derive(Debug)]
pub(super) struct Statements {
    /// Dead letters, at most $16.
    pub(super) list: &'static str,
    /// The last dead letter that is examined, if there are at least as many as the limit.
    pub(super) end: &'static str,
    pub(super) kinds: &'static str,
    pub(super) plan: &'static str,
}

impl Statements {
    pub(super) fn of(selection: &Selection) -> &'static Self {
        match selection.path() {
            Path::Named => &NAMED,
            Path::Fingerprint => &OF_FINGERPRINT,
            Path::Group => &OF_GROUP,
            Path::Newest => &NEWEST,
        }
    }
}

/// The dead letters that are examined.
macro_rules! examined {
    ($columns:literal, $where:expr, $order:literal) => {
        concat!(
            "(SELECT ",
            $columns,
            " FROM streamjobs.dead_letters l WHERE ",
            $where,
            " ",
            $order,
            " LIMIT 10000) l"
        )
    };
}

macro_rules! statements {
    ($where:expr, $order:literal) => {
        statements!($where, $order, $order)
    };
    ($where:expr, $order:literal, $shown:literal) => {
        Statements {
            list: concat!(
                "SELECT ",
                columns!(without payload),
                ", '{}'::bytea[] AS field_names, '{}'::bytea[] AS field_values,
                 NULL::text AS payload, NULL::text AS history FROM ",
                examined!("l.*", $where, $order),
                " WHERE ",
                matching!(),
                " ",
                $shown,
                " LIMIT $16",
            ),
            end: concat!("SELECT id FROM ", examined!("l.id", $where, $order), " OFFSET 9999"),
            kinds: concat!(
                "WITH kinds AS (
                     SELECT l.stream, l.group_name, l.event_type, l.reason, l.fingerprint,
                            count(*) AS letters, sum(count(*)) OVER ()::bigint AS all_letters,
                            min(l.buried_at) AS first_seen, max(l.buried_at) AS last_seen,
                            max(l.id) AS newest
                     FROM ",
                examined!("l.*", $where, $order),
                " WHERE ",
                matching!(),
                " GROUP BY l.stream, l.group_name, l.event_type, l.reason, l.fingerprint
                     ORDER BY letters DESC, newest DESC
                     LIMIT 1000
                 )
                 SELECT k.*, n.error
                 FROM kinds k JOIN streamjobs.dead_letters n ON n.id = k.newest
                 ORDER BY k.letters DESC, k.newest DESC",
            ),
            plan: concat!(
                "SELECT l.stream, l.group_name, count(*) AS letters,
                        count(*) FILTER (WHERE NOT cardinality(l.field_names) BETWEEN 1 AND 1000)
                            AS not_runnable,
                        min(l.buried_at) AS first_seen, max(l.buried_at) AS last_seen
                 FROM ",
                examined!("l.*", $where, $order),
                " WHERE ",
                matching!(),
                " GROUP BY l.stream, l.group_name
                 ORDER BY letters DESC, l.stream, l.group_name",
            ),
        }
    };
}

macro_rules! if_open {
    () => {
        " AND ($12::text <> 'open' OR (l.redriven_at IS NULL AND NOT l.known_done))"
    };
}

/// Dead letters that are named are few, so they are sorted after they are found.
const NAMED: Statements = statements!(
    "($13::bigint[] IS NULL OR l.id = ANY ($13)) AND ($6::text IS NULL OR l.event_id = $6)
     AND ($15::bigint IS NULL OR l.id < $15)",
    "",
    "ORDER BY l.id DESC"
);

/// With an equality instead of the ranges, the server might scan the table in the order of the ids,
/// for one fingerprint among thousands.
const OF_FINGERPRINT: Statements = statements!(
    "(l.fingerprint, l.id) < ($5::text, coalesce($15::bigint, 9223372036854775807))
     AND l.fingerprint >= $5::text",
    "ORDER BY l.fingerprint DESC, l.id DESC"
);

/// Ranges, as for fingerprints. A scan ends at the first row that the comparison of the first column refuses, but not
/// at a row that only the second column refuses. So the stream is compared by itself: as the first column of the
/// compared rows, it would make the query for a group with few letters read all letters of the stream's groups before
/// it.
const OF_GROUP: Statements = statements!(
    concat!(
        "l.stream = $1::text
         AND (l.group_name, l.id) < ($2::text, coalesce($15::bigint, 9223372036854775807))
         AND l.group_name >= $2::text",
        if_open!()
    ),
    "ORDER BY l.stream DESC, l.group_name DESC, l.id DESC"
);

const NEWEST: Statements =
    statements!(concat!("($15::bigint IS NULL OR l.id < $15)", if_open!()), "ORDER BY l.id DESC");

/// The groups are found by skipping through the index of open letters, and counted in it. The streams are in $1.
pub(super) const OPEN: &str = "WITH RECURSIVE queues (stream, group_name) AS (
         (SELECT l.stream, l.group_name FROM streamjobs.dead_letters l
          WHERE l.redriven_at IS NULL AND NOT l.known_done
          ORDER BY l.stream, l.group_name LIMIT 1)
     UNION ALL
         SELECT next.stream, next.group_name FROM queues q CROSS JOIN LATERAL (
             SELECT l.stream, l.group_name FROM streamjobs.dead_letters l
             WHERE (l.stream, l.group_name) > (q.stream, q.group_name)
               AND l.redriven_at IS NULL AND NOT l.known_done
             ORDER BY l.stream, l.group_name LIMIT 1) AS next
     )
     SELECT q.stream, q.group_name, counted.letters
     FROM (SELECT * FROM queues WHERE $1::text[] IS NULL OR stream = ANY ($1) LIMIT 201) q CROSS JOIN LATERAL (
         SELECT count(*) AS letters FROM (
             SELECT FROM streamjobs.dead_letters l
             WHERE l.stream = q.stream
               AND l.group_name >= q.group_name AND l.group_name <= q.group_name
               AND l.redriven_at IS NULL AND NOT l.known_done
             ORDER BY l.stream, l.group_name, l.id LIMIT 1001) AS open) AS counted";
