//! One round of the relay: win the election, find rows, publish their events, delete the rows.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use streamjobs::error::PublishError;
use streamjobs::{Client, EncodedEvent, StreamName};
use tokio::time::timeout;

use super::failing::{BatchOutcome, FailingStreams, OutboxRow, Sent};
use super::find::{FIND_ALL, FIND_FROM};
use super::floor::{Floor, Look, Moment};
use super::sending::{self, LIMIT_MAX, LIMIT_MIN, SendBound};
use crate::postgres::Postgres;
use crate::time::Timestamp;
use crate::{fault, metrics, text};

/// Moves events from the outbox to their streams.
#[derive(Debug)]
pub(super) struct OutboxMover {
    postgres: Postgres,
    client: Client,
    batch: u32,
    failing: FailingStreams,
    floor: Floor,
    sending: SendBound,
    /// Whether the last read of the outbox took so long that its events could not be sent.
    is_late: bool,
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
    /// The last id that was read, if there may be more rows.
    reached: Option<i64>,
    /// How long it took to read the whole outbox, if that was done.
    whole: Option<Duration>,
}

impl OutboxMover {
    pub(super) fn new(postgres: Postgres, client: Client, batch: u32) -> Self {
        Self {
            postgres,
            client,
            batch,
            failing: FailingStreams::default(),
            floor: Floor::default(),
            sending: SendBound::default(),
            is_late: false,
        }
    }

    /// The time until the next stream in back-off is retried.
    pub(super) fn next(&self) -> Option<Duration> {
        self.failing.next(Instant::now())
    }

    /// The lowest id of a row that may still wait.
    pub(super) fn lowest(&self) -> i64 {
        self.floor.lowest()
    }

    /// Moves at most one batch.
    ///
    /// The whole round is one transaction, and its lock ends with it, so no two relays move the
    /// same rows. A relay that hangs loses its transaction and the lock through the server's limit
    /// on idle transactions. It checks the time before it publishes, so that it does not publish
    /// what its successor has published. Events whose rows could not be deleted are published
    /// again.
    pub(super) async fn round(&mut self) -> Result<Round, sqlx::Error> {
        let is_whole = self.floor.start(Instant::now()).is_none();
        let whole = if is_whole { self.floor.whole_max() } else { Duration::ZERO };
        let longest = ROUND_MAX + whole;
        fault::within(longest, self.attempt()).await
    }

    async fn attempt(&mut self) -> Result<Round, sqlx::Error> {
        // At another isolation level the rows would be those from before the election.
        let mut transaction = self.postgres.begin_own().await?;
        match self.within(&mut transaction).await {
            Ok((round, look)) => {
                transaction.commit().await?;
                if let Some(look) = look {
                    self.floor.apply(look);
                }
                Ok(round)
            }
            Err(error) => {
                // The rollback happens here rather than when the pool gets to it, because the next
                // round needs the lock.
                let _ = transaction.rollback().await;
                Err(error)
            }
        }
    }

    async fn within(
        &mut self,
        transaction: &mut PgConnection,
    ) -> Result<(Round, Option<Look>), sqlx::Error> {
        let began = Instant::now();
        let Some(moment) = self.elect(transaction).await? else {
            return Ok((Round { elsewhere: true, ..Round::default() }, None));
        };
        self.floor.check(&moment);
        let passed_over = self.failing.blocked(Instant::now());
        let found = self.find(transaction, &passed_over).await?;
        let OutboxBatch { rows, unreadable, reached, whole } = found;
        let mut waiting = rows.iter().map(OutboxRow::place).collect::<BTreeMap<_, _>>();
        let mut rows = self.failing.choose(rows);
        if !self.is_elected_still(transaction, began).await? {
            rows.clear();
        }
        let mut outcome = self.publish(transaction, rows).await?;
        let more = reached.is_some() || outcome.sent < waiting.len();
        outcome.refused.extend(unreadable);
        for (_, why) in &mut outcome.refused {
            // The text may quote the row, which may contain characters that a column refuses.
            *why = text::plain(why, WHY_BYTES_MAX);
        }
        self.update_rows(transaction, &outcome).await?;
        self.report(&outcome);
        let settled = outcome.stored.iter().chain(outcome.refused.iter().map(|(id, _)| id));
        settled.for_each(|id| drop(waiting.remove(id)));
        let left = waiting.into_iter().collect();
        let look = Look { moment, whole, reached, blocked: passed_over, left };
        let round = Round {
            elsewhere: false,
            stored: outcome.stored.len(),
            left: outcome.left,
            refused: outcome.refused.len(),
            failed: outcome.failed.len(),
            more,
        };
        Ok((round, Some(look)))
    }

    /// Tries to be elected until the transaction ends. Returns the state of the database, or `None`
    /// if another relay is elected.
    async fn elect(&self, transaction: &mut PgConnection) -> Result<Option<Moment>, sqlx::Error> {
        let asked = Instant::now();
        let (is_elected, are_rows_hidden, snapshot, unlisted, last_id) = self
            .postgres
            .query_as::<(bool, bool, String, i32, Option<i64>)>(ELECT)
            .bind(["streamjobs:outbox:", self.postgres.schema().as_str()].concat())
            .fetch_one(transaction)
            .await?;
        if are_rows_hidden {
            return Err(sqlx::Error::Protocol(ROWS_HIDDEN.to_owned()));
        }
        if !is_elected {
            return Ok(None);
        }
        let moment = Moment::new(&snapshot, unlisted, last_id, asked);
        let unknown = || format!("snapshot {snapshot:?} and {unlisted} numbers from its end on");
        moment.map(Some).ok_or_else(|| sqlx::Error::Protocol(unknown()))
    }

    /// Whether there is time to publish: a relay that hangs loses the election. After a long read,
    /// the relay asks the server whether it still has the transaction, and with it the election.
    ///
    /// If there is no time, the read still counts, with all of its rows as left, because a
    /// repetition at once would take as long again.
    async fn is_elected_still(
        &mut self,
        transaction: &mut PgConnection,
        began: Instant,
    ) -> Result<bool, sqlx::Error> {
        let mut elected = began;
        if began.elapsed() > SEND_WITHIN {
            elected = Instant::now();
            self.postgres.query("SELECT").execute(transaction).await?;
        }
        let is_late = elected.elapsed() > SEND_WITHIN;
        if is_late && !self.is_late {
            tracing::warn!(
                took = ?began.elapsed(),
                "reading the outbox took too long, so nothing was published; reading it again"
            );
        }
        self.is_late = is_late;
        Ok(!is_late)
    }

    async fn find(
        &mut self,
        transaction: &mut PgConnection,
        passed_over: &[String],
    ) -> Result<OutboxBatch, sqlx::Error> {
        let began = Instant::now();
        let start = self.floor.start(began);
        let statement = if start.is_some() { FIND_FROM } else { FIND_ALL };
        let find = self.postgres.query(statement).bind(i64::from(self.batch));
        let mut find = find.bind(passed_over).bind(BATCH_BYTES_MAX);
        let is_whole = start.is_none();
        if let Some(start) = start {
            find = find.bind(start.base).bind(start.transactions).bind(start.ids);
            find = find.bind(start.unlisted).bind(start.unlisted_ids);
            find = find.bind(start.streams).bind(start.stream_ids);
        }
        if is_whole {
            let longest = format!("{}s", self.floor.whole_max().as_secs());
            self.postgres.query(MAY_TAKE).bind(longest).execute(&mut *transaction).await?;
        }
        let rows = find.fetch_all(&mut *transaction).await;
        if is_whole {
            if rows.is_err() {
                self.floor.whole_failed(Instant::now(), began.elapsed());
            } else {
                self.postgres.query(MAY_TAKE).bind("20s").execute(transaction).await?;
            }
        }
        let whole = is_whole.then(|| began.elapsed());
        let mut found = OutboxBatch { whole, ..OutboxBatch::default() };
        let rows = rows?;
        let count = rows.len();
        for row in rows {
            let (id, due) = (row.try_get::<i64, _>(0)?, row.try_get::<i64, _>(1)?);
            let cut = usize::try_from(due).is_ok_and(|due| due > count);
            found.reached = (cut || due >= i64::from(self.batch)).then_some(id);
            match read(&row) {
                Ok((event, due)) => found.rows.push(OutboxRow { id, event, due }),
                Err(why) => found.unreadable.push((id, why)),
            }
        }
        Ok(found)
    }

    /// Sends the rows a few at a time, as long as there is time and all are answered. Rows that were not sent are
    /// left for another round, and their events are not stored twice.
    async fn publish(
        &mut self,
        transaction: &mut PgConnection,
        rows: Vec<OutboxRow>,
    ) -> Result<BatchOutcome, sqlx::Error> {
        let (began, mut rest) = (Instant::now(), VecDeque::from(rows));
        let (mut sent, mut replies) = (Vec::new(), Vec::new());
        while !rest.is_empty() && began.elapsed() < PUBLISH_MAX {
            let (rows, bytes) = self.sending.take(&mut rest);
            let limit = sending::limit(bytes);
            if limit > LIMIT_MIN {
                let idle = format!("{}s", (limit + IDLE_MARGIN).as_secs());
                self.postgres.query(MAY_IDLE).bind(idle).execute(&mut *transaction).await?;
            }
            let (first, begun) = (sent.len(), Instant::now());
            sent.extend(rows.iter().map(Sent::of));
            match timeout(limit, self.send(rows)).await {
                Ok(answers) => replies.extend(answers),
                Err(_) => {
                    replies.extend(sent.iter().skip(first).map(|sent| Err(sent.unanswered())));
                }
            }
            let is_unconfirmed = |reply: &_| matches!(reply, Err(PublishError::Unconfirmed { .. }));
            if replies.iter().skip(first).any(is_unconfirmed) {
                self.sending.cut();
                break;
            }
            self.sending.answered(begun.elapsed(), bytes);
        }
        Ok(self.failing.record(sent, replies, Instant::now(), fastrand::f64()))
    }

    /// Publishes the events of the rows, and schedules those that have a due time. Returns a reply for each.
    async fn send(&self, rows: Vec<OutboxRow>) -> Vec<Result<(), PublishError>> {
        let (mut events, mut scheduled) = (Vec::new(), Vec::new());
        let mut are_scheduled = Vec::with_capacity(rows.len());
        for OutboxRow { event, due, .. } in rows {
            are_scheduled.push(due.is_some());
            match due {
                Some(at) => scheduled.push((at, event)),
                None => events.push(event),
            }
        }
        let (published, scheduled) = tokio::join!(
            self.client.publish_encoded(events),
            self.client.publish_encoded_at(scheduled)
        );
        let mut published = published.into_iter().map(|reply| reply.map(drop));
        let mut scheduled = scheduled.into_iter().map(|reply| reply.map(drop));
        let reply = |is_scheduled| match is_scheduled {
            true => scheduled.next(),
            false => published.next(),
        };
        // There is one reply for each event.
        are_scheduled.into_iter().filter_map(reply).collect()
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
            tracing::error!(
                row,
                why,
                "cannot publish a row of the outbox; the row is kept and marked as refused"
            );
        }
    }
}

/// The event of a row, or why the row is not an event. The text quotes nothing from the payload.
fn read(row: &PgRow) -> Result<(EncodedEvent, Option<SystemTime>), String> {
    let shape = |_| "its fields are not arrays of one dimension without NULL".to_owned();
    let stream = row.try_get::<String, _>(2).map_err(shape)?;
    let stream = StreamName::new(stream).map_err(|error| error.to_string())?;
    let names = row.try_get::<Vec<Vec<u8>>, _>(3).map_err(shape)?;
    let values = row.try_get::<Vec<Vec<u8>>, _>(4).map_err(shape)?;
    let fields = names.into_iter().zip(values);
    let fields = fields.map(|(name, value)| (Bytes::from(name), Bytes::from(value))).collect();
    let due = row.try_get::<Option<Timestamp>, _>(5);
    let due = due.map_err(|_| "its due time is out of range".to_owned())?;
    let event = EncodedEvent::from_parts(stream, fields).map_err(|error| error.to_string())?;
    Ok((event, due.map(|Timestamp(at)| at)))
}

/// The longest time for a round: longer than its steps may take together, without a read of the
/// whole outbox.
const ROUND_MAX: Duration = Duration::from_secs(60 + LIMIT_MAX.as_secs());
/// The longest time from the election, or from the server's confirmation that this relay is still elected, to the
/// start of publishing. Together with [`PUBLISH_MAX`] and the time for the last answers, it stays well below the
/// limit on idle transactions that [`ELECT`] sets. Events whose answers may take longer than [`LIMIT_MIN`] raise that
/// limit.
const SEND_WITHIN: Duration = Duration::from_secs(10);
/// The time after which a round sends no further events.
const PUBLISH_MAX: Duration = Duration::from_secs(8);
const IDLE_MARGIN: Duration = Duration::from_secs(20);
/// The stored reason is cut to this length.
const WHY_BYTES_MAX: usize = 1_000;
/// How many bytes of payloads are in memory at once. A larger event is moved alone.
const BATCH_BYTES_MAX: i64 = 8 * 1024 * 1024;

const ROWS_HIDDEN: &str = "row-level security of the table outbox hides events from the role";

/// Sets limits so that a relay that hangs is replaced, and turns off plans that depend on
/// statistics: the statistics of a queue are always outdated, and a scan of the whole table is
/// never right. An outbox whose rows are hidden would look empty.
///
/// The snapshot is older than the one of the statement that finds rows. It lists no transaction whose number is above
/// all that have ended, so `age` says how many numbers were given from there on; it reads the server's counter after
/// the snapshot was taken, as this transaction has no number of its own. The last id is `NULL` for a role that may not
/// read it.
const ELECT: &str = "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0)),
    row_security_active('streamjobs.outbox'), pg_current_snapshot()::text,
    age(pg_snapshot_xmax(pg_current_snapshot())::xid),
    (SELECT CASE WHEN has_sequence_privilege(s.ids, 'SELECT')
                 THEN pg_sequence_last_value(s.ids) END
     FROM (SELECT to_regclass('streamjobs.outbox_id_seq')::oid) AS s (ids)),
    set_config('idle_in_transaction_session_timeout', '30s', true),
    set_config('statement_timeout', '20s', true),
    set_config('lock_timeout', '5s', true),
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true),
    set_config('jit', 'off', true)";

/// How long each further statement of the transaction may take.
const MAY_TAKE: &str = "SELECT set_config('statement_timeout', $1, true)";

/// How long the transaction may be idle from now on.
const MAY_IDLE: &str = "SELECT set_config('idle_in_transaction_session_timeout', $1, true)";

const FORGET: &str = "DELETE FROM streamjobs.outbox WHERE id = ANY ($1)";

const REFUSE: &str = "UPDATE streamjobs.outbox o SET refused = r.why
    FROM unnest($1::bigint[], $2::text[]) AS r (id, why) WHERE o.id = r.id";
