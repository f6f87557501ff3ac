//! Shared by the tests: both servers, an event, and a guarded handler whose body each test chooses.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgPool};
use streamjobs::config::GroupOptions;
use streamjobs::{
    Backoff, Client, Event, Job, JobError, Runtime, RuntimeBuilder, State, handler, handlers,
};
use streamjobs_postgres::{Once, Postgres};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::postgres::{Database, PgServer};
use streamjobs_tests::server::RedisServer;
use tokio::sync::Semaphore;

/// The event of these tests.
#[derive(Clone, Debug, PartialEq, Eq, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed", key = "customer")]
pub struct Order {
    pub id: String,
    pub customer: String,
}

pub fn order(id: impl ToString) -> Order {
    Order { id: id.to_string(), customer: "alice".to_owned() }
}

type Body =
    dyn for<'a> Fn(Order, &'a mut Once, Job) -> BoxFuture<'a, Result<(), JobError>> + Send + Sync;

/// The body of the guarded handler in one test, and a record of its runs.
#[derive(Clone)]
pub struct Charge {
    body: Arc<Body>,
    runs: Arc<Mutex<Vec<(String, u32)>>>,
}

impl Charge {
    pub fn new<F>(body: F) -> Self
    where
        F: for<'a> Fn(Order, &'a mut Once, Job) -> BoxFuture<'a, Result<(), JobError>>
            + Send
            + Sync
            + 'static,
    {
        Self { body: Arc::new(body), runs: Arc::default() }
    }

    /// Writes one effect and succeeds.
    pub fn once() -> Self {
        Self::new(|order, tx, job| {
            Box::pin(async move { Ok(write_effect(tx, &order, &job).await?) })
        })
    }

    /// Writes one effect, and waits for the gate in its transaction.
    pub fn waiting_for(gate: &Gate) -> Self {
        let gate = gate.clone();
        Self::new(move |order, tx, job| {
            let gate = gate.clone();
            Box::pin(async move {
                write_effect(tx, &order, &job).await?;
                gate.passed().await;
                Ok(())
            })
        })
    }

    pub fn record(&self, order: &str, attempt: u32) {
        self.runs.lock().unwrap().push((order.to_owned(), attempt));
    }

    /// The order and the attempt of each run.
    pub fn runs(&self) -> Vec<(String, u32)> {
        self.runs.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.runs.lock().unwrap().len()
    }

    pub async fn wait_for(&self, runs: usize) {
        until("the handler was started", || self.count() >= runs).await;
    }
}

/// Writes the effect that must exist once per event.
pub async fn write_effect(
    tx: &mut sqlx::PgConnection,
    order: &Order,
    job: &Job,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO effects (order_id, event_id) VALUES ($1, $2)")
        .bind(&order.id)
        .bind(job.event_id().as_str())
        .execute(tx)
        .await
        .map(drop)
}

#[handler(group = "billing")]
pub async fn charge(
    order: Order,
    tx: &mut Once,
    State(charge): State<Charge>,
    job: Job,
) -> Result<(), JobError> {
    charge.record(&order.id, job.attempt());
    (charge.body)(order, tx, job).await
}

/// A private Redis, a private database, and the client and the pool for them.
pub struct App {
    pub server: RedisServer,
    pub database: Database,
    pub client: Client,
    pub pool: PgPool,
    pub postgres: Postgres,
}

impl App {
    pub async fn start() -> Self {
        Self::on(PgServer::shared().database().await).await
    }

    /// As [`start`](Self::start), with at most `max` connections to the database.
    pub async fn with_connections(max: u32) -> Self {
        let mut app = Self::start().await;
        app.pool = app.database.pool_of(max);
        app.postgres = Postgres::open(app.pool.clone()).await.unwrap();
        app
    }

    pub async fn on(database: Database) -> Self {
        let server = RedisServer::start().unwrap();
        let client = Client::connect(&server.url()).await.unwrap();
        prepare(&database).await;
        let pool = database.pool_of(40);
        let postgres = Postgres::open(pool.clone()).await.unwrap();
        Self { server, database, client, pool, postgres }
    }

    pub fn runtime(&self, charge: &Charge) -> RuntimeBuilder {
        let builder = Runtime::builder(&self.client).handlers(handlers![self::charge]);
        quick(
            builder.state(charge.clone()).state(self.postgres.clone()).group("billing", options()),
        )
    }

    pub async fn publish(&self, orders: &[Order]) {
        for reply in self.client.publish_all(orders).await {
            reply.unwrap();
        }
    }

    /// Waits until the group has no pending or undelivered entries and no retries.
    pub async fn drained(&self, group: &str) {
        eventually_async(DEADLINE, "drained", async || {
            let stream = self.client.stream("orders").unwrap();
            let groups = stream.groups().await.unwrap();
            let found = groups.iter().find(|found| found.group == group);
            found.is_some_and(|found| found.backlog.entries + found.pending + found.retrying == 0)
        })
        .await;
    }

    pub async fn effects(&self) -> i64 {
        self.number("SELECT count(*) FROM effects").await
    }

    pub async fn guard_rows(&self) -> i64 {
        self.number("SELECT count(*) FROM streamjobs.once").await
    }

    pub async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    pub fn pending(&self) -> usize {
        self.server.pending("orders", "billing").len()
    }
}

/// Creates the schema of the crate and the table of effects, and grants rights to the run role.
pub async fn prepare(database: &Database) {
    let owner = database.owner_pool();
    streamjobs_postgres::migrate(&owner).await.unwrap();
    sqlx::raw_sql(
        "CREATE TABLE effects (
             id bigint GENERATED ALWAYS AS IDENTITY, order_id text NOT NULL, event_id text NOT NULL
         );
         GRANT SELECT, INSERT, UPDATE, DELETE ON effects TO streamjobs_run",
    )
    .execute(&owner)
    .await
    .unwrap();
    database.grant("streamjobs").await;
}

/// Short times for tests: a lease of 600 ms.
pub fn options() -> GroupOptions {
    GroupOptions::new()
        .lease(LEASE)
        .concurrency(NonZeroU32::new(16).unwrap())
        .backoff(Backoff::fixed(Duration::from_millis(20)))
}

pub fn quick(builder: RuntimeBuilder) -> RuntimeBuilder {
    builder
        .block(Duration::from_millis(200))
        .promote_interval(Duration::from_millis(20))
        .janitor_interval(Duration::from_millis(50))
        .grace(Duration::from_secs(10))
}

/// Blocks handlers until it is opened.
#[derive(Clone)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    pub fn shut() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    pub fn open(&self) {
        self.0.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    pub async fn passed(&self) {
        let _permit = self.0.acquire().await.unwrap();
    }
}

/// The longest wait for a condition before the test fails.
pub const DEADLINE: Duration = Duration::from_secs(30);
pub const LEASE: Duration = Duration::from_millis(600);

/// Waits until a condition holds, without blocking the executor.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    eventually_async(DEADLINE, what, async || condition()).await;
}

/// Records for each row of a table what its commit waits for.
pub async fn watch_commits(database: &Database, table: &str) {
    let sql = format!(
        "CREATE TABLE commits (waits text);
         GRANT INSERT, SELECT ON commits TO PUBLIC;
         CREATE FUNCTION record_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO commits VALUES (current_setting('synchronous_commit')); RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER record_commit AFTER INSERT ON streamjobs.{table}
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION record_commit()"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&database.owner_pool()).await.unwrap();
}

/// The recorded setting for each row.
pub async fn commits(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar("SELECT waits FROM commits").fetch_all(pool).await.unwrap()
}
