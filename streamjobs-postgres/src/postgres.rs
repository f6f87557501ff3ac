//! The handle to a database with the tables of this crate.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgArguments, PgListener, PgRow};
use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::{FromRow, PgPool, SqlStr};
use streamjobs::{Job, JobError};

use crate::limits::{Limit, Limits};
use crate::migrate::{self, SchemaError};
use crate::rights::Rights;
use crate::schema::{Durability, SchemaName, before_commit, commit};
use crate::statement::{self, BoundedReading, PgTransaction};
use crate::turns::Turns;

/// A database with the tables of this crate: the entry point to the guard, the archive and the
/// outbox.
///
/// Cheap to clone. Give it to the runtime as a state, and handlers can take `&mut Once`:
///
/// ```no_run
/// # async fn example(
/// #     client: streamjobs::Client,
/// #     pool: sqlx::PgPool,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use streamjobs::Runtime;
/// use streamjobs_postgres::Postgres;
///
/// streamjobs_postgres::migrate(&pool).await?;
/// let postgres = Postgres::open(pool).await?;
/// let runtime = Runtime::builder(&client).state(postgres).start().await?;
/// # Ok(())
/// # }
/// ```
///
/// A guarded handler uses one connection of the pool for as long as it runs, and a relay uses up to
/// two all the time. Size the pool for the slots of the guarded groups plus the needs of the
/// application.
#[derive(Clone)]
pub struct Postgres {
    inner: Arc<Inner>,
}

struct Inner {
    pool: PgPool,
    schema: SchemaName,
    limits: Limits,
    durability: Durability,
    views: Turns,
}

impl Postgres {
    /// Checks the schema `streamjobs` of a database and returns a handle to it, with the default
    /// settings.
    ///
    /// # Errors
    ///
    /// When the schema is missing, or older or newer than this program, when the pool's role lacks a
    /// right on its tables or row-level security applies to it, and when the database refuses or
    /// cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn open(pool: PgPool) -> Result<Self, SchemaError> {
        Self::builder(pool).open().await
    }

    /// A builder with settings for a handle.
    pub fn builder(pool: PgPool) -> PostgresBuilder {
        PostgresBuilder {
            pool,
            schema: SchemaName::default(),
            limits: Limits::default(),
            partial_rights: false,
        }
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.inner.pool
    }

    /// The schema that the tables are in.
    #[must_use]
    pub fn schema(&self) -> &SchemaName {
        &self.inner.schema
    }

    /// The handle among the states of the runtime.
    pub(crate) fn of(job: &Job) -> Result<Self, JobError> {
        // A runtime without this state does not start.
        let missing = || JobError::dead("the runtime has no `streamjobs_postgres::Postgres` state");
        job.state::<Self>().ok_or_else(missing)
    }

    /// A statement for this schema, to be run in a transaction that one of the functions below
    /// began.
    pub(crate) fn query<'q>(&self, sql: &'static str) -> Query<'q, sqlx::Postgres, PgArguments> {
        statement::query(self.schema().sql(sql))
    }

    /// As [`query`](Self::query), for rows as tuples.
    pub(crate) fn query_as<'q, O: for<'r> FromRow<'r, PgRow>>(
        &self,
        sql: &'static str,
    ) -> QueryAs<'q, sqlx::Postgres, O, PgArguments> {
        statement::query_as(self.schema().sql(sql))
    }

    /// As [`query`](Self::query), for rows of one column.
    pub(crate) fn query_scalar<'q, O>(
        &self,
        sql: &'static str,
    ) -> QueryScalar<'q, sqlx::Postgres, O, PgArguments>
    where
        (O,): for<'r> FromRow<'r, PgRow>,
    {
        statement::query_scalar(self.schema().sql(sql))
    }

    /// Begins a transaction that only reads, all from one snapshot. It needs no end: the pool rolls
    /// it back.
    pub(crate) async fn begin_reading(&self) -> Result<PgTransaction, sqlx::Error> {
        statement::begin_reading(self.pool()).await
    }

    /// Begins a transaction that only reads, within limits, for a reader that may stop waiting.
    pub(crate) async fn begin_bounded(&self) -> Result<BoundedReading, sqlx::Error> {
        statement::begin_bounded(self.pool()).await
    }

    /// Whether the reason for a long wait is that the pool has no connection left, rather than that
    /// the database does not answer.
    pub(crate) fn is_pool_in_use(&self) -> bool {
        let pool = self.pool();
        pool.size() >= pool.options().get_max_connections() && pool.num_idle() == 0
    }

    /// The share of the connections that views of the archive use.
    pub(crate) fn views(&self) -> &Turns {
        &self.inner.views
    }

    /// Begins a transaction without limits, or with limits that its own first statement sets.
    pub(crate) async fn begin_own(&self) -> Result<PgTransaction, sqlx::Error> {
        statement::begin_own(self.pool()).await
    }

    /// Begins a transaction with the limits set, to be ended with [`commit`](Self::commit).
    pub(crate) async fn begin_limited(&self) -> Result<PgTransaction, sqlx::Error> {
        let mut transaction = self.begin_own().await?;
        self.query(LIMIT)
            .bind(&self.inner.limits.lock.setting)
            .bind(&self.inner.limits.statement.setting)
            .bind(&self.inner.limits.idle.setting)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction)
    }

    /// The maximum number of connections of the pool.
    pub(crate) fn connections_max(&self) -> u32 {
        self.inner.pool.options().get_max_connections()
    }

    /// A connection of the pool that can listen for notifications. It runs no other statement.
    pub(crate) async fn listener(&self) -> Result<PgListener, sqlx::Error> {
        PgListener::connect_with(&self.inner.pool).await
    }

    /// Sends an empty notification on a channel that only another connection listens to. Returns
    /// `false`, without sending it, if both use the same connection of the server.
    pub(crate) async fn notify(&self, channel: &str) -> Result<bool, sqlx::Error> {
        let mut transaction = self.begin_own().await?;
        let listens = self.query_scalar::<bool>("SELECT $1 IN (SELECT pg_listening_channels())");
        if listens.bind(channel).fetch_one(&mut *transaction).await? {
            return Ok(false);
        }
        self.query("SELECT pg_notify($1, '')").bind(channel).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The statement that commits a guarded transaction.
    pub(crate) fn commit(&self) -> SqlStr {
        commit(self.inner.durability)
    }

    /// The statement before the commit of a guarded transaction that another library has begun.
    pub(crate) fn before_commit(&self) -> &'static str {
        before_commit(self.inner.durability)
    }

    /// How long the begin or the end of a guarded transaction may take: the wait for a connection,
    /// and the server's own limit for one statement.
    pub(crate) fn timeout(&self) -> Duration {
        let connection = self.inner.pool.options().get_acquire_timeout();
        connection.saturating_add(self.inner.limits.timeout())
    }

    /// As [`timeout`](Self::timeout), but shorter if the handler's deadline is near: a handler's
    /// timeout counts as a failure, while waiting for the database or for other attempts must not.
    pub(crate) fn timeout_before(&self, job: &Job) -> Duration {
        let rest = job.deadline().map(|at| at.saturating_duration_since(Instant::now()) * 9 / 10);
        rest.map_or(self.timeout(), |rest| rest.min(self.timeout()))
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.limits
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("schema", &self.inner.schema).finish_non_exhaustive()
    }
}

/// Settings of a [`Postgres`]. Each has a default.
#[must_use = "a builder does nothing until it is opened"]
pub struct PostgresBuilder {
    pool: PgPool,
    schema: SchemaName,
    limits: Limits,
    partial_rights: bool,
}

impl PostgresBuilder {
    /// The schema that the tables are in: `streamjobs` by default.
    pub fn schema(mut self, schema: SchemaName) -> Self {
        self.schema = schema;
        self
    }

    /// How long a statement of a guarded transaction waits for a lock: 5 s by default, at least
    /// 1 ms. After that, the job is snoozed, and no failure is counted.
    ///
    /// A duplicate waits this long for the running attempt. A short timeout costs another delivery;
    /// a long timeout occupies a connection of the pool.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.limits.lock = Limit::new(timeout);
        self
    }

    /// How long one statement of a guarded transaction may take: 60 s by default, at least 1 ms.
    /// After that, the attempt fails.
    ///
    /// The process waits 5 s longer than that for the reply to the commit, because the server has no limit for a
    /// commit that waits for a synchronous standby. After that the job is snoozed, and no failure is counted. The
    /// job's connection counts as used until the server replies.
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.limits.statement = Limit::new(timeout);
        self
    }

    /// How long a guarded transaction may be idle between two statements, for example while its
    /// handler calls another system: 60 s by default, at least 1 ms. After that, the database ends
    /// the transaction, and the attempt fails.
    ///
    /// This limits how long a process that hangs keeps its rows locked. A handler that calls other
    /// systems for longer should do so before its first statement, or without a guard.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.limits.idle = Limit::new(timeout);
        self
    }

    /// Accepts a role that deliberately has only some of the rights on the tables, or sees only some of their rows,
    /// such as a role for a page that shows dead letters. Without this setting, such a role is refused.
    ///
    /// An operation without the needed right then fails when it is used. Jobs of guarded handlers
    /// wait, and the alert [`JobsBlocked`](streamjobs::stream::Condition::JobsBlocked) says so.
    pub fn partial_rights(mut self) -> Self {
        self.partial_rights = true;
        self
    }

    /// Checks the schema and returns the handle.
    ///
    /// # Errors
    ///
    /// As [`Postgres::open`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn open(self) -> Result<Postgres, SchemaError> {
        let Self { pool, schema, limits, partial_rights } = self;
        let rights = Rights::load(&pool, &schema).await?;
        if let Some(rights) = &rights {
            rights.can_read_history()?;
        }
        migrate::check(&pool, &schema).await?;
        if let Some(rights) = rights.filter(|_| !partial_rights) {
            rights.suffice()?;
        }
        let durability = match synchronous_commit(&pool).await {
            Ok(setting) if setting == "remote_apply" => Durability::Applied,
            Ok(_) => Durability::Here,
            Err(source) => return Err(SchemaError::Database { schema, source }),
        };
        let views = Turns::new(VIEWS_MAX, statement::BOUNDED_MAX);
        Ok(Postgres { inner: Arc::new(Inner { pool, schema, limits, durability, views }) })
    }
}

impl fmt::Debug for PostgresBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBuilder")
            .field("schema", &self.schema)
            .field("limits", &self.limits)
            .field("partial_rights", &self.partial_rights)
            .finish_non_exhaustive()
    }
}

async fn synchronous_commit(pool: &PgPool) -> Result<String, sqlx::Error> {
    let mut reading = statement::begin_reading(pool).await?;
    statement::query_scalar("SHOW synchronous_commit").fetch_one(&mut *reading).await
}

/// How many views of the archive may use a connection at once.
const VIEWS_MAX: usize = 2;

const LIMIT: &str = "SELECT set_config('lock_timeout', $1, true),
    set_config('statement_timeout', $2, true),
    set_config('idle_in_transaction_session_timeout', $3, true)";
