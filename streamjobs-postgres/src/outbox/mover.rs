//! One round of the relay: be elected, find rows, publish their events, delete the rows.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use streamjobs::{Client, EncodedEvent, StreamName};
use tokio::time::timeout;

use super::failing::{BatchOutcome, FailingStreams, OutboxRow, Sent};
use crate::postgres::Postgres;
use crate::{fault, metrics, text};

/// Moves events from the outbox to their streams.
#[derive(Debug)]
pub(super) struct OutboxMover {
    postgres: Postgres,
    client: Client,
    batch: u32,
    failing: FailingStreams,
}

/// The result of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    /// Another relay was elected.
    pub(super) elsewhere: bool,
    /// Rows whose events were stored; the rows are deleted.
    pub(super) stored: usize,
    /// Rows to retry.
    pub(super) left: usize,
    /// Rows that cannot be published.
    pub(super) refused: usize,
    /// Streams that refused events.
    pub(super) failed: usize,
    /// Another round can move more at once.
    pub(super) more: bool,
}

impl Round {
    /// Whether the server as a whole fails, rather than one stream.
    pub(super) fn is_stuck(&self) -> bool {
        self.stored == 0 && self.failed > 1
    }
}

/// The rows of a batch, in the order of their ids.
#[derive(Default)]
struct OutboxBatch {
    rows: Vec<OutboxRow>,
    unreadable: Vec<(i64, String)>,
    more: bool,
}

impl OutboxMover {
    pub(super) fn new(postgres: Postgres, client: Client, batch: u32) -> Self {
        Self { postgres, client, batch, failing: FailingStreams::default() }
    }

    /// The time until a stream is retried that is in back-off now.
    pub(super) fn next(&self) -> Option<Duration> {
        self.failing.next(Instant::now())
    }

    /// Moves at most one batch.
    ///
    /// The whole round is one transaction, and its lock ends with it, so no two relays move the
    /// same rows. A relay that hangs loses its transaction and the lock through the server's limit
    /// on idle transactions. It checks the time before it publishes, so that it does not publish
    /// what its successor has published. Events whose rows could not be deleted are published
    /// again.
    pub(super) async fn round(&mut self) -> Result<Round, sqlx::Error> {
        fault::within(ROUND_MAX, self.attempt()).await
    }

    async fn attempt(&mut self) -> Result<Round, sqlx::Error> {
        // At another isolation level the rows would be those from before the election.
        let mut transaction = self.postgres.begin_own().await?;
        match self.within(&mut transaction).await {
            Ok(round) => transaction.commit().await.map(|()| round),
            Err(error) => {
                // Now, rather than when the pool gets to it: the next round needs the lock.
                let _ = transaction.rollback().await;
                Err(error)
            }
        }
    }

    async fn within(&mut self, transaction: &mut PgConnection) -> Result<Round, sqlx::Error> {
        let began = Instant::now();
        if !self.elect(transaction).await? {
            return Ok(Round { elsewhere: true, ..Round::default() });
        }
        let OutboxBatch { rows, unreadable, more } = self.find(transaction).await?;
        let found = rows.len();
        let rows = self.failing.choose(rows);
        let more = more || rows.len() < found;
        if began.elapsed() > SEND_WITHIN {
            return Ok(Round { more: true, ..Round::default() });
        }
        let mut outcome = self.publish(rows).await;
        outcome.refused.extend(unreadable);
        for (_, why) in &mut outcome.refused {
            // The text may quote the row, which may contain characters that a column refuses.
            *why = text::plain(why, WHY_BYTES_MAX);
        }
        self.update_rows(transaction, &outcome).await?;
        self.report(&outcome);
        Ok(Round {
            elsewhere: false,
            stored: outcome.stored.len(),
            left: outcome.left,
            refused: outcome.refused.len(),
            failed: outcome.failed.len(),
            more,
        })
    }

    /// Whether this relay is elected, until the transaction ends.
    async fn elect(&self, transaction: &mut PgConnection) -> Result<bool, sqlx::Error> {
        self.postgres
            .query_scalar(ELECT)
            .bind(["streamjobs:outbox:", self.postgres.schema().as_str()].concat())
            .fetch_one(transaction)
            .await
    }

    async fn find(&self, transaction: &mut PgConnection) -> Result<OutboxBatch, sqlx::Error> {
        let blocked = self.failing.blocked(Instant::now());
        let rows = self
            .postgres
            .query(FIND)
            .bind(i64::from(self.batch))
            .bind(blocked)
            .bind(BATCH_BYTES_MAX)
            .fetch_all(transaction)
            .await?;
        let mut found = OutboxBatch::default();
        let count = rows.len();
        for row in rows {
            let (id, due) = (row.try_get::<i64, _>(0)?, row.try_get::<i64, _>(1)?);
            let cut = usize::try_from(due).is_ok_and(|due| due > count);
            found.more = cut || due >= i64::from(self.batch);
            match read(&row) {
                Ok(event) => found.rows.push(OutboxRow { id, event }),
                Err(why) => found.unreadable.push((id, why)),
            }
        }
        Ok(found)
    }

    async fn publish(&mut self, rows: Vec<OutboxRow>) -> BatchOutcome {
        let sent = rows.iter().map(Sent::of).collect::<Vec<_>>();
        let events = rows.into_iter().map(|row| row.event).collect();
        let replies = match timeout(PUBLISH_MAX, self.client.publish_encoded(events)).await {
            Ok(replies) => replies.into_iter().map(|reply| reply.map(drop)).collect(),
            Err(_) => sent.iter().map(|sent| Err(sent.unanswered())).collect::<Vec<_>>(),
        };
        self.failing.record(sent, replies, Instant::now(), fastrand::f64())
    }

    /// Deletes the rows whose events were stored, and marks those that cannot be published.
    async fn update_rows(
        &self,
        transaction: &mut PgConnection,
        outcome: &BatchOutcome,
    ) -> Result<(), sqlx::Error> {
        if !outcome.stored.is_empty() {
            let delete = self.postgres.query(FORGET).bind(&outcome.stored);
            delete.execute(&mut *transaction).await?;
        }
        if !outcome.refused.is_empty() {
            let (ids, whys): (Vec<_>, Vec<_>) = outcome.refused.iter().cloned().unzip();
            let refuse = self.postgres.query(REFUSE).bind(ids).bind(whys);
            refuse.execute(transaction).await?;
        }
        Ok(())
    }

    fn report(&self, outcome: &BatchOutcome) {
        for (stream, stored) in &outcome.by_stream {
            metrics::outbox_relayed(stream, *stored);
        }
        for (stream, error) in &outcome.failed {
            metrics::outbox_failed(stream);
            if self.failing.is_new(stream) {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                tracing::warn!(
                    %stream,
                    error = %error,
                    cause,
                    "the stream refused events from the outbox; retrying"
                );
            }
        }
        for stream in &outcome.recovered {
            tracing::info!(%stream, "the stream accepts events from the outbox again");
        }
        for (row, why) in &outcome.refused {
            metrics::outbox_refused();
            tracing::error!(row, why, "cannot publish a row of the outbox; it is kept as refused");
        }
    }
}

/// The event of a row, or why the row is not an event. The text quotes nothing from the payload.
fn read(row: &PgRow) -> Result<EncodedEvent, String> {
    let shape = |_| "its fields are not arrays of one dimension without NULL".to_owned();
    let stream = row.try_get::<String, _>(2).map_err(shape)?;
    let stream = StreamName::new(stream).map_err(|error| error.to_string())?;
    let names = row.try_get::<Vec<Vec<u8>>, _>(3).map_err(shape)?;
    let values = row.try_get::<Vec<Vec<u8>>, _>(4).map_err(shape)?;
    let fields = names.into_iter().zip(values);
    let fields = fields.map(|(name, value)| (Bytes::from(name), Bytes::from(value))).collect();
    EncodedEvent::from_parts(stream, fields).map_err(|error| error.to_string())
}

/// Longer than the steps of a round may take together.
const ROUND_MAX: Duration = Duration::from_secs(90);
/// The longest time from the election to the start of publishing. Together with [`PUBLISH_MAX`] it
/// stays well below the limit on idle transactions that [`ELECT`] sets.
const SEND_WITHIN: Duration = Duration::from_secs(10);
const PUBLISH_MAX: Duration = Duration::from_secs(15);
/// The stored reason is cut to this length.
const WHY_BYTES_MAX: usize = 1_000;
/// The payloads in memory at once; a single larger event is moved alone.
const BATCH_BYTES_MAX: i64 = 8 * 1024 * 1024;

/// Sets limits so that a relay that hangs is replaced, and turns off plans that depend on
/// statistics: those of a queue are outdated, and a scan of the whole table is never right.
const ELECT: &str = "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0)),
    set_config('idle_in_transaction_session_timeout', '30s', true),
    set_config('statement_timeout', '20s', true),
    set_config('lock_timeout', '5s', true),
    set_config('enable_seqscan', 'off', true),
    set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true),
    set_config('jit', 'off', true)";

/// The oldest rows of all streams that are not in back-off. Each stream is searched in the index by
/// itself, so the rows of a stream in back-off are not read, however many there are.
const FIND: &str = "WITH RECURSIVE streams (stream) AS (
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
    ), sized AS (
        SELECT o.id, count(*) OVER () AS due, o.stream, o.field_names, o.field_values,
               sum(pg_column_size(o.field_values)) OVER (ORDER BY o.id)
                   - pg_column_size(o.field_values) AS bytes_before
        FROM due JOIN streamjobs.outbox o ON o.id = due.id
    )
    SELECT id, due, stream, field_names, field_values FROM sized
    WHERE bytes_before < $3 ORDER BY id";

const FORGET: &str = "DELETE FROM streamjobs.outbox WHERE id = ANY ($1)";

const REFUSE: &str = "UPDATE streamjobs.outbox o SET refused = r.why
    FROM unnest($1::bigint[], $2::text[]) AS r (id, why) WHERE o.id = r.id";
