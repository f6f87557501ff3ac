//! One batch of a redrive: puts some jobs back and records that, in one transaction.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::Row;
use sqlx::postgres::PgConnection;
use streamjobs::Client;
use streamjobs::error::DeadLetterError;

use super::job::{self, Letter, Outcome};
use super::{OutcomeState, pace};
use crate::letters::RedriveId;
use crate::postgres::Postgres;

/// Carries out batches of one request.
pub(super) struct Batch<'a> {
    pub(super) postgres: &'a Postgres,
    pub(super) client: &'a Client,
    pub(super) id: RedriveId,
}

/// The result of a batch.
pub(super) enum Step {
    /// There may be more dead letters. The next batch can begin after this time.
    Continue(Duration),
    /// The request has ended.
    Ended,
    /// There is no such request.
    Unknown,
    /// Redis did not answer for some of the dead letters, which still wait.
    Unreachable(DeadLetterError),
}

/// The columns of the request that a batch needs.
struct Terms {
    again: bool,
    token: String,
    rate: Option<u64>,
    failures_left: Option<u64>,
}

impl Batch<'_> {
    /// Puts the jobs of some dead letters back.
    ///
    /// Before: the request is in its table, with a row for each dead letter. After: the jobs of
    /// this batch are put back and recorded as done. After a crash at any point, the jobs are
    /// recorded as waiting; Redis then knows by their tokens which jobs it put back, and the next
    /// batch records those.
    ///
    /// The request's row stays locked during the batch, so any number of processes may work on one
    /// request. Their batches run one after the other, the rate and the failures count for all of
    /// them, and a cancel waits for the running batch. The rows of the dead letters are locked as
    /// well, in the order of their numbers, against other requests for the same dead letters.
    pub(super) async fn step(&self) -> Result<Step, sqlx::Error> {
        let mut transaction = self.postgres.begin_own().await?;
        // A process that hangs between two statements loses its locks after a minute.
        self.postgres.query(LIMITS).execute(&mut *transaction).await?;
        let terms = match self.terms(&mut transaction).await? {
            Ok(terms) => terms,
            Err(step) => {
                transaction.rollback().await?;
                return Ok(step);
            }
        };
        let size = pace::batch(terms.rate, terms.failures_left);
        let waiting = self.waiting(&mut transaction, size).await?;
        if waiting.is_empty() {
            let finish = self.postgres.query(FINISH).bind(self.id.get());
            finish.execute(&mut *transaction).await?;
            transaction.commit().await?;
            return Ok(Step::Ended);
        }
        let (letters, mut outcomes) = self.letters(&mut transaction, &waiting).await?;
        let (put, unreachable) =
            job::put_back(self.client, &letters, terms.again, &terms.token).await;
        outcomes.extend(put);
        if outcomes.is_empty() {
            transaction.rollback().await?;
            return Ok(unreachable.map_or(Step::Continue(Duration::ZERO), Step::Unreachable));
        }
        let pause = pace::pause(u64::try_from(outcomes.len()).unwrap_or(0), terms.rate);
        self.record(&mut transaction, &outcomes, pause).await?;
        transaction.commit().await?;
        Ok(unreachable.map_or(Step::Continue(pause), Step::Unreachable))
    }

    /// Locks and reads the request, or returns why no batch can run now.
    async fn terms(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Result<Terms, Step>, sqlx::Error> {
        let row = self.postgres.query(TERMS).bind(self.id.get()).fetch_optional(connection).await?;
        let Some(row) = row else { return Ok(Err(Step::Unknown)) };
        if row.try_get::<&str, _>("state")? != "running" {
            return Ok(Err(Step::Ended));
        }
        let wait = u64::try_from(row.try_get::<i64, _>("wait_micros")?).unwrap_or(0);
        if wait > 0 {
            return Ok(Err(Step::Continue(Duration::from_micros(wait))));
        }
        let bound = |column: &str| {
            let bound = row.try_get::<Option<i64>, _>(column)?;
            Ok::<_, sqlx::Error>(bound.map(|bound| u64::try_from(bound).unwrap_or(0)))
        };
        Ok(Ok(Terms {
            again: row.try_get("again")?,
            token: row.try_get("token")?,
            rate: bound("rate")?,
            failures_left: bound("failures_left")?,
        }))
    }

    async fn waiting(
        &self,
        connection: &mut PgConnection,
        size: u64,
    ) -> Result<Vec<i64>, sqlx::Error> {
        let rows = self
            .postgres
            .query(WAITING)
            .bind(self.id.get())
            .bind(i64::try_from(size).unwrap_or(i64::MAX))
            .fetch_all(connection)
            .await?;
        rows.iter().map(|row| row.try_get("letter_id")).collect()
    }

    /// Reads and locks dead letters, up to a bounded amount of memory, and skips those that were
    /// deleted.
    async fn letters(
        &self,
        connection: &mut PgConnection,
        waiting: &[i64],
    ) -> Result<(Vec<Letter>, Vec<Outcome>), sqlx::Error> {
        let query = self.postgres.query(LETTERS).bind(waiting);
        let mut rows = query.fetch(connection);
        let mut letters = Vec::<Letter>::with_capacity(waiting.len());
        let (mut room, mut end) = (BATCH_BYTES_MAX, i64::MAX);
        while let Some(row) = rows.try_next().await? {
            let letter = Letter::of(&row)?;
            let size = letter.size();
            if size > room && !letters.is_empty() {
                end = letter.id;
                break;
            }
            room = room.saturating_sub(size);
            letters.push(letter);
        }
        let found = letters.iter().map(|letter| letter.id).collect::<HashSet<_>>();
        let missing = waiting.iter().filter(|id| **id < end && !found.contains(id));
        let skipped = missing.map(|id| Outcome::skipped(*id, "it was deleted")).collect();
        Ok((letters, skipped))
    }

    /// Records the outcomes, and when the next batch may begin.
    async fn record(
        &self,
        connection: &mut PgConnection,
        outcomes: &[Outcome],
        pause: Duration,
    ) -> Result<(), sqlx::Error> {
        let ids = outcomes.iter().map(|outcome| outcome.letter).collect::<Vec<_>>();
        let states = outcomes.iter().map(|outcome| outcome.state.as_str()).collect::<Vec<_>>();
        let entries = outcomes.iter().map(|outcome| outcome.entry_id.as_deref());
        let errors = outcomes.iter().map(|outcome| outcome.error.as_deref());
        self.postgres
            .query(RECORD_OUTCOMES)
            .bind(self.id.get())
            .bind(ids)
            .bind(states)
            .bind(entries.collect::<Vec<_>>())
            .bind(errors.collect::<Vec<_>>())
            .execute(&mut *connection)
            .await?;
        let with = |state| outcomes.iter().filter(move |outcome| outcome.state == state);
        let redriven = with(OutcomeState::Done).map(|outcome| outcome.letter).collect::<Vec<_>>();
        let count = |state| i64::try_from(with(state).count()).unwrap_or(i64::MAX);
        self.postgres.query(MARK_REDRIVEN).bind(redriven).execute(&mut *connection).await?;
        self.postgres
            .query(RECORD_PROGRESS)
            .bind(self.id.get())
            .bind(count(OutcomeState::Done))
            .bind(count(OutcomeState::Failed))
            .bind(count(OutcomeState::Skipped))
            .bind(i64::try_from(pause.as_micros()).unwrap_or(i64::MAX))
            .execute(connection)
            .await?;
        Ok(())
    }
}

const LIMITS: &str = "SELECT set_config('lock_timeout', '10s', true),
            set_config('statement_timeout', '60s', true),
            set_config('idle_in_transaction_session_timeout', '60s', true)";

const TERMS: &str = "SELECT state, again, token, rate, stop_after - failures AS failures_left,
            (greatest(0, extract(epoch FROM next_at - clock_timestamp())) * 1000000)::bigint
                AS wait_micros
     FROM streamjobs.redrives WHERE id = $1
     FOR NO KEY UPDATE";

const WAITING: &str = "SELECT letter_id FROM streamjobs.redrive_letters
     WHERE redrive_id = $1 AND state = 'waiting'
     ORDER BY letter_id
     LIMIT $2";

const LETTERS: &str =
    "SELECT id, stream, group_name, event_id, origin_id, field_names, field_values, history::text AS history,
            redriven_at IS NOT NULL AS redriven, known_done
     FROM streamjobs.dead_letters WHERE id = ANY ($1)
     ORDER BY id
     FOR NO KEY UPDATE";

const RECORD_OUTCOMES: &str = "UPDATE streamjobs.redrive_letters w
     SET state = n.state, entry_id = n.entry_id, error = n.error, changed_at = clock_timestamp()
     FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[])
         AS n (letter_id, state, entry_id, error)
     WHERE w.redrive_id = $1 AND w.letter_id = n.letter_id";

const MARK_REDRIVEN: &str =
    "UPDATE streamjobs.dead_letters SET redriven_at = clock_timestamp() WHERE id = ANY ($1)";

const RECORD_PROGRESS: &str = "UPDATE streamjobs.redrives
     SET done = done + $2, failed = failed + $3, skipped = skipped + $4,
         failures = failures + $3,
         state = CASE WHEN stop_after <= failures + $3 THEN 'stopped' ELSE state END,
         finished_at = CASE WHEN stop_after <= failures + $3 THEN now() END,
         next_at = clock_timestamp() + $5 * interval '1 microsecond'
     WHERE id = $1";

const FINISH: &str =
    "UPDATE streamjobs.redrives SET state = 'finished', finished_at = now() WHERE id = $1";

/// How many bytes of payloads are in memory, and on the way to Redis, at once. A larger payload is
/// sent alone.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
