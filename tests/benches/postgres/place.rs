//! The servers of the benchmarks, and their data.

use serde::{Deserialize, Serialize};
use sqlx::{Executor, PgPool};
use streamjobs::config::Retention;
use streamjobs::{Client, Event};
use streamjobs_postgres::Postgres;
use streamjobs_tests::postgres::{Database, PgServer};
use streamjobs_tests::server::RedisServer;

/// How many jobs run at once, each with a connection of its own.
pub const SLOTS: u32 = 16;

/// An event of about 60 bytes as JSON.
#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
pub struct Order {
    pub order_id: String,
    pub cents: i64,
}

pub fn order(number: usize) -> Order {
    Order { order_id: format!("o-{number:08}"), cents: 4_950 }
}

pub struct Place {
    pub redis: RedisServer,
    pub client: Client,
    pub pool: PgPool,
    pub postgres: Postgres,
    database: Database,
    _server: PgServer,
}

impl Place {
    pub async fn start(fsync: bool) -> Self {
        let redis = RedisServer::start().unwrap();
        let client = Client::builder(&redis.url()).retention_default(Retention::Unlimited);
        let client = client.connect().await.unwrap();
        let server = PgServer::builder().fsync(fsync).config("shared_buffers", "128MB");
        let server = server.start().unwrap();
        let database = server.database().await;
        let owner = database.owner_pool();
        streamjobs_postgres::migrate(&owner).await.unwrap();
        owner
            .execute(
                "CREATE TABLE charges (order_id text NOT NULL, cents bigint NOT NULL);
                 CREATE TABLE seen (job_group text, event_id text, PRIMARY KEY (job_group, event_id));
                 CREATE TABLE noted (job_group text, event_id text, entry_id text NOT NULL,
                     payload_hash bytea NOT NULL, done_at timestamptz NOT NULL,
                     PRIMARY KEY (job_group, event_id));
                 CREATE INDEX noted_by_age ON noted (done_at);
                 GRANT ALL ON charges, seen, noted TO streamjobs_run",
            )
            .await
            .unwrap();
        database.grant("streamjobs").await;
        let pool = database.pool_of(SLOTS + 4);
        let postgres = Postgres::open(pool.clone()).await.unwrap();
        Self { redis, client, pool, postgres, database, _server: server }
    }

    /// Deletes all data, and publishes this many orders.
    pub async fn fill(&self, jobs: usize) {
        self.redis.command(&["FLUSHALL"]);
        self.truncate("TRUNCATE charges, seen, noted, streamjobs.once").await;
        let orders = (0..jobs).map(order).collect::<Vec<_>>();
        for chunk in orders.chunks(500) {
            assert!(self.client.publish_all(chunk).await.iter().all(Result::is_ok));
        }
    }

    /// Empties tables, and writes a checkpoint, so that a round does not pay for earlier ones.
    pub async fn truncate(&self, statement: &'static str) {
        self.database.owner_pool().execute(statement).await.unwrap();
        self.database.admin_pool().execute("CHECKPOINT").await.unwrap();
    }

    pub async fn number(&self, sql: &'static str) -> usize {
        let number: i64 = sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap();
        usize::try_from(number).unwrap()
    }
}
