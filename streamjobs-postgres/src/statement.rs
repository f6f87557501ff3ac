//! How statements of this crate are sent: unnamed, and each within a transaction.
//!
//! A pooler such as PgBouncer may give every transaction a different server connection. A named
//! prepared statement belongs to one server connection, so the next client that gets this
//! connection finds the name taken or missing. An unnamed statement is parsed and executed in two
//! requests: outside of a transaction, another client's statement can come between them, and its
//! answer is returned instead. Within a transaction the server connection stays the same, and
//! nothing comes between.
//!
//! `tests/tests/tidy` checks that no other module makes statements or begins transactions.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgArguments;
use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::{Connection, PgConnection, PgPool, Postgres, Row, SqlSafeStr, Transaction};

/// A transaction on a connection of the pool.
pub(crate) type PgTransaction = Transaction<'static, Postgres>;

/// A statement.
pub(crate) fn query<'q>(sql: impl SqlSafeStr) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(sql).persistent(false)
}

/// A statement whose rows are tuples.
pub(crate) fn query_as<'q, O>(sql: impl SqlSafeStr) -> QueryAs<'q, Postgres, O, PgArguments>
where
    O: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>,
{
    sqlx::query_as(sql).persistent(false)
}

/// A statement whose rows have one column.
pub(crate) fn query_scalar<'q, O>(sql: impl SqlSafeStr) -> QueryScalar<'q, Postgres, O, PgArguments>
where
    (O,): for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>,
{
    sqlx::query_scalar(sql).persistent(false)
}

/// Begins a transaction that writes, without limits of its own.
///
/// # Cancel safety
///
/// Cancel safe: a transaction that was not returned is rolled back.
pub(crate) async fn begin_own(pool: &PgPool) -> Result<PgTransaction, sqlx::Error> {
    begin(pool, READ_COMMITTED).await
}

/// Begins a transaction that only reads, all from one snapshot. It needs no end: the pool rolls it
/// back.
///
/// # Cancel safety
///
/// As [`begin_own`].
pub(crate) async fn begin_reading(pool: &PgPool) -> Result<PgTransaction, sqlx::Error> {
    begin(pool, SNAPSHOT).await
}

/// Begins a transaction in a task of its own, which continues if the caller is dropped.
///
/// sqlx sends `BEGIN`, waits for the reply, and only then records the transaction. If the future is
/// dropped in between, the connection returns to the pool inside a transaction that sqlx does not
/// know of: later writes by other code on that connection then look committed but are not.
#[expect(clippy::disallowed_methods, reason = "it ends with the reply to one statement")]
async fn begin(pool: &PgPool, statement: &'static str) -> Result<PgTransaction, sqlx::Error> {
    // Not in the task, because a caller that was dropped must not keep its place in the pool's
    // queue.
    let connection = pool.acquire().await?;
    let begun = tokio::spawn(Transaction::begin(connection, Some(statement.into_sql_str())));
    match begun.await {
        Ok(begun) => begun,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The executor shuts down.
            Err(_) => Err(sqlx::Error::WorkerCrashed),
        },
    }
}

/// A transaction as from [`begin_reading`], for a reader that may stop waiting at any time. The
/// server ends the reader's statements after a time. A connection whose answer was not read is
/// closed, so that the pool has room for another connection at once.
pub(crate) struct BoundedReading {
    connection: PoolConnection<Postgres>,
    is_over: bool,
}

/// Begins a transaction that only reads, within limits.
pub(crate) async fn begin_bounded(pool: &PgPool) -> Result<BoundedReading, sqlx::Error> {
    let mut reading = BoundedReading { connection: pool.acquire().await?, is_over: false };
    sqlx::raw_sql(BOUNDED).execute(reading.connection()).await?;
    Ok(reading)
}

impl BoundedReading {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Ends the transaction and gives the connection back.
    pub(crate) async fn end(mut self) -> Result<(), sqlx::Error> {
        sqlx::raw_sql("ROLLBACK").execute(self.connection()).await?;
        self.is_over = true;
        Ok(())
    }
}

impl Drop for BoundedReading {
    fn drop(&mut self) {
        if !self.is_over {
            // Otherwise the pool would wait for the answer before it gives the connection to
            // others.
            self.connection.close_on_drop();
        }
    }
}

/// Begins a transaction like [`begin_own`] on the caller's connection, which must not be in a
/// transaction.
///
/// # Cancel safety
///
/// Not cancel safe: if the future is dropped before the reply, the caller's connection may be in a
/// transaction that sqlx does not know of.
pub(crate) async fn begin_on(
    connection: &mut PgConnection,
) -> Result<Transaction<'_, Postgres>, sqlx::Error> {
    connection.begin_with(READ_COMMITTED).await
}

/// Whether the caller's connection is in a transaction, including a transaction that the caller
/// began with SQL of its own, which sqlx does not know about.
pub(crate) async fn is_in_transaction(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    if Connection::is_in_transaction(connection) {
        return Ok(true);
    }
    // In one request, so that it is sound outside of a transaction. There, a transaction begins
    // with the statement, at exactly the same time.
    let begun = sqlx::raw_sql("SELECT now() <> statement_timestamp()");
    begun.fetch_one(connection).await?.try_get(0)
}

/// Begins a transaction that sees the commits of concurrent transactions and does not fail because
/// of them, whatever isolation level the session has.
///
/// It does not say `READ WRITE`: a standby rejects that with an error that looks permanent, while
/// it rejects a write with 25006, which is transient.
const READ_COMMITTED: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The longest time for which the server works on a statement of a [`BoundedReading`].
pub(crate) const BOUNDED_MAX: Duration = Duration::from_secs(2);

/// The settings turn off plans that read a whole table or a whole index before the first row.
const BOUNDED: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SET LOCAL statement_timeout = '2s'; SET LOCAL lock_timeout = '1s';
    SET LOCAL idle_in_transaction_session_timeout = '5s';
    SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off;
    SET LOCAL enable_sort = off";
