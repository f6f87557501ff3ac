//! Inserting dead letters: many rows in one statement, in a transaction that is on disk afterwards.

use sqlx::{Executor, PgConnection};
use streamjobs::{GroupName, StreamName};

use super::row::LetterRow;
use crate::postgres::Postgres;
use crate::{fault, members};

/// The newly stored dead letters of a statement: the reason of each, and whether the guard says
/// that its job was done. Rows that existed before are not included.
pub(super) type Stored = Vec<(String, bool)>;

/// Reason, whether the guard says that the job was done, and the event id.
type StoredRow = (String, bool, Option<String>);

/// How many of the first rows one request takes: they must fit into memory on both sides, and the
/// server scans all fields of the request to find those of a row.
pub(super) fn first_chunk(rows: &[LetterRow]) -> usize {
    let (mut bytes, mut fields) = (0, 0);
    let fits = rows.iter().take_while(|row| {
        bytes += row.bytes();
        fields += row.fields.len();
        bytes <= CHUNK_BYTES_MAX && fields <= CHUNK_FIELDS_MAX
    });
    fits.count().max(1).min(rows.len())
}

/// Stores rows of one queue in one transaction. The commit is on disk when this returns, whatever
/// `synchronous_commit` is by default, because the dead letters are removed from Redis next.
pub(super) async fn insert(
    postgres: &Postgres,
    stream: &StreamName,
    group: &GroupName,
    rows: &[LetterRow],
) -> Result<Stored, sqlx::Error> {
    let stored = async {
        let mut transaction = postgres.begin_limited().await?;
        let stored = write(postgres, stream, group, rows, &mut transaction).await?;
        end_members(postgres, group, &stored, &mut transaction).await?;
        (&mut *transaction).execute(postgres.commit()).await?;
        Ok(stored.into_iter().map(|(reason, known_done, _)| (reason, known_done)).collect())
    };
    fault::within(postgres.timeout(), stored).await
}

/// Whether the rows cause the error, so that a retry with the same rows fails again.
pub(super) fn is_about_rows(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Encode(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // Invalid data, a program limit exceeded, a constraint violated.
            ["22", "54", "23"].iter().any(|class| code.starts_with(class))
        }),
        _ => false,
    }
}

async fn write(
    postgres: &Postgres,
    stream: &StreamName,
    group: &GroupName,
    rows: &[LetterRow],
    connection: &mut PgConnection,
) -> Result<Vec<StoredRow>, sqlx::Error> {
    let fields = || rows.iter().flat_map(|row| &row.fields);
    let names = fields().map(|(name, _)| &name[..]).collect::<Vec<_>>();
    let values = fields().map(|(_, value)| &value[..]).collect::<Vec<_>>();
    let ends = rows.iter().scan(0_i32, |end, row| {
        *end = end.saturating_add(i32::try_from(row.fields.len()).unwrap_or(i32::MAX));
        Some(*end)
    });
    macro_rules! column {
        ($row:ident => $value:expr) => {
            rows.iter().map(|$row| $value).collect::<Vec<_>>()
        };
    }
    postgres
        .query_as::<StoredRow>(INSERT)
        .bind(stream.as_str())
        .bind(group.as_str())
        .bind(names)
        .bind(values)
        .bind(ends.collect::<Vec<_>>())
        .bind(column!(row => i32::try_from(row.fields.len()).unwrap_or(i32::MAX)))
        .bind(column!(row => row.letter_id.as_str()))
        .bind(column!(row => &row.digest[..]))
        .bind(column!(row => row.event_id.as_deref()))
        .bind(column!(row => row.key.as_deref()))
        .bind(column!(row => row.event_type.as_deref()))
        .bind(column!(row => row.reason.as_str()))
        .bind(column!(row => row.error.as_deref()))
        .bind(column!(row => row.fingerprint.as_str()))
        .bind(column!(row => row.attempts))
        .bind(column!(row => row.deliveries))
        .bind(column!(row => row.consumer.as_deref()))
        .bind(column!(row => row.entry_id.as_deref()))
        .bind(column!(row => row.origin_id.as_deref()))
        .bind(column!(row => row.published_at))
        .bind(column!(row => row.first_delivery))
        .bind(column!(row => row.last_delivery))
        .bind(column!(row => row.dead_lettered_at))
        .bind(column!(row => row.payload.as_deref()))
        .bind(column!(row => row.history.as_deref()))
        .bind(column!(row => &row.payload_hash[..]))
        .fetch_all(connection)
        .await
}

/// Ends the jobs of newly stored dead letters as members of batches. A job that the guard knows as done is not dead.
async fn end_members(
    postgres: &Postgres,
    group: &GroupName,
    stored: &[StoredRow],
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    let ended = stored.iter().filter_map(|(_, done, id)| Some((id.as_deref()?, !*done)));
    let ended = ended.collect::<Vec<_>>();
    if ended.is_empty() {
        return Ok(());
    }
    members::end(postgres, connection, group, &ended).await
}

/// The fields of all rows are in one array, since Postgres has no arrays of arrays of different lengths; the fields
/// of a row are a slice of it. Whatever the reason of a dead letter, its job may be done. So the statement looks for
/// a guard row by the event's key and by the published entry, with a scalar query for each row, so that no plan reads
/// the whole table.
///
/// After a failover, a server can give an entry's id to another entry. So where the event id is known, the published
/// entry counts only for a guard row with a key of the application's own (with a line break, or hashed), and with the
/// same payload.
const INSERT: &str = "\
INSERT INTO streamjobs.dead_letters (
    stream, group_name, letter_id, digest, event_id, event_type, reason, error, fingerprint,
    attempts, deliveries, consumer, entry_id, origin_id, published_at, first_delivery,
    last_delivery, buried_at, field_names, field_values, payload, history, known_done)
SELECT $1, $2, letter_id, digest, event_id, event_type, reason, error, fingerprint,
    attempts, deliveries, consumer, entry_id, origin_id, published_at, first_delivery,
    last_delivery, buried_at,
    ($3::bytea[])[fields_end - fields + 1:fields_end],
    ($4::bytea[])[fields_end - fields + 1:fields_end],
    payload::jsonb, history::jsonb,
    COALESCE(
        (SELECT true FROM streamjobs.once AS guard
         WHERE guard.group_name = $2 AND guard.key = letter.key AND guard.done_at IS NOT NULL
         LIMIT 1),
        (SELECT true FROM streamjobs.once AS guard
         WHERE guard.group_name = $2 AND guard.stream = $1
             AND guard.published_at = letter.published_at AND guard.entry_id = letter.origin_id
             AND guard.done_at IS NOT NULL
             AND (letter.key IS NULL
                 OR guard.payload_hash = letter.payload_hash
                     AND (strpos(guard.key, E'\\n') > 0 OR starts_with(guard.key, 'sha256:')))
         LIMIT 1),
        false)
FROM unnest(
    $5::integer[], $6::integer[], $7::text[], $8::bytea[], $9::text[], $10::text[], $11::text[],
    $12::text[], $13::text[], $14::text[], $15::integer[], $16::bigint[], $17::text[],
    $18::text[], $19::text[], $20::timestamptz[], $21::timestamptz[], $22::timestamptz[],
    $23::timestamptz[], $24::text[], $25::text[], $26::bytea[]) AS letter (
    fields_end, fields, letter_id, digest, event_id, key, event_type, reason, error, fingerprint,
    attempts, deliveries, consumer, entry_id, origin_id, published_at, first_delivery,
    last_delivery, buried_at, payload, history, payload_hash)
ON CONFLICT (stream, group_name, letter_id, digest) DO NOTHING
RETURNING reason, known_done, event_id";

const CHUNK_BYTES_MAX: usize = 4 << 20;
const CHUNK_FIELDS_MAX: usize = 4_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_are_not_about_the_rows() {
        for error in [sqlx::Error::PoolTimedOut, sqlx::Error::WorkerCrashed] {
            assert!(!is_about_rows(&error));
        }
        assert!(is_about_rows(&sqlx::Error::Encode("too large".into())));
    }
}
