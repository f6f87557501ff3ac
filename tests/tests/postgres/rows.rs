//! Dead letters written with SQL, and both servers for tests that need them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::PgPool;
use streamjobs::Client;
use streamjobs_postgres::Postgres;
use streamjobs_postgres::letters::{DeadLetters, LetterId};
use streamjobs_tests::postgres::{Database, PgServer};
use streamjobs_tests::server::RedisServer;

/// A database with the archive, which the run role can read and write.
pub struct Archive {
    pub database: Database,
    pub pool: PgPool,
    pub letters: DeadLetters,
}

impl Archive {
    pub async fn start() -> Self {
        Self::on(PgServer::shared()).await
    }

    pub async fn on(server: &PgServer) -> Self {
        let database = server.database().await;
        streamjobs_postgres::migrate(&database.owner_pool()).await.unwrap();
        database.grant("streamjobs").await;
        let pool = database.pool();
        let letters = Postgres::open(pool.clone()).await.unwrap().dead_letters();
        Self { database, pool, letters }
    }

    /// As [`start`](Self::start), with a Redis.
    pub async fn with_redis() -> (Self, RedisServer, Client) {
        let (server, client) = redis().await;
        (Self::start().await, server, client)
    }

    /// Writes dead letters `1..=count`, which differ only in their numbers.
    pub async fn fill(&self, count: i64) -> Vec<LetterId> {
        let mut ids = Vec::new();
        for number in 1..=count {
            ids.push(Row::new(number).insert(&self.pool).await);
        }
        ids
    }

    pub async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }
}

/// A Redis whose stream `orders` has the group `billing`.
pub async fn redis() -> (RedisServer, Client) {
    let server = RedisServer::start().unwrap();
    server.command(&["XGROUP", "CREATE", "orders", "billing", "0", "MKSTREAM"]);
    let client = Client::connect(&server.url()).await.unwrap();
    (server, client)
}

/// One dead letter, dead-lettered `number` minutes after a day in the past.
#[derive(Clone)]
pub struct Row {
    pub number: i64,
    pub stream: &'static str,
    pub group: &'static str,
    pub event_id: Option<String>,
    pub event_type: &'static str,
    pub reason: &'static str,
    pub error: Option<&'static str>,
    pub fingerprint: &'static str,
    pub fields: Vec<(&'static [u8], &'static [u8])>,
    pub payload: Option<&'static str>,
    pub known_done: bool,
    pub redriven: bool,
}

impl Row {
    pub fn new(number: i64) -> Self {
        Self {
            number,
            stream: "orders",
            group: "billing",
            event_id: Some(format!("e-{number}")),
            event_type: "order.placed",
            reason: "exhausted",
            error: Some("card declined"),
            fingerprint: "f1",
            fields: vec![(b"type", b"order.placed"), (b"data", b"{\"amount\":7}")],
            payload: Some("{\"amount\":7}"),
            known_done: false,
            redriven: false,
        }
    }

    pub async fn insert(self, pool: &PgPool) -> LetterId {
        let names = self.fields.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let values = self.fields.iter().map(|(_, value)| *value).collect::<Vec<_>>();
        let milliseconds =
            dead_lettered(self.number).duration_since(UNIX_EPOCH).unwrap().as_millis();
        let id = sqlx::query_scalar::<_, i64>(INSERT)
            .bind(self.stream)
            .bind(self.group)
            .bind(format!("{milliseconds}-0"))
            .bind(&self.event_id)
            .bind(self.event_type)
            .bind(self.reason)
            .bind(self.error)
            .bind(self.fingerprint)
            .bind(format!("{}-3", self.number))
            .bind(i64::try_from(milliseconds).unwrap())
            .bind(names)
            .bind(values)
            .bind(self.payload)
            .bind(self.known_done)
            .bind(self.redriven)
            .fetch_one(pool)
            .await;
        LetterId::new(id.unwrap())
    }
}

/// When the dead letter with this number was dead-lettered.
pub fn dead_lettered(number: i64) -> SystemTime {
    UNIX_EPOCH + EPOCH + Duration::from_secs(60 * u64::try_from(number).unwrap())
}

/// From 1970 to a day in the past.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);

const INSERT: &str = "INSERT INTO streamjobs.dead_letters
    (stream, group_name, letter_id, digest, event_id, event_type, reason, error, fingerprint,
     attempts, deliveries, consumer, entry_id, origin_id, published_at, first_delivery,
     last_delivery, buried_at, field_names, field_values, payload, known_done, redriven_at)
    VALUES ($1, $2, $3, '\\x00', $4, $5, $6, $7, $8, 5, 6, 'web-1', $9, '1-1',
            to_timestamp($10 / 1000.0) - interval '3 s', to_timestamp($10 / 1000.0) - interval '2 s',
            to_timestamp($10 / 1000.0) - interval '1 s', to_timestamp($10 / 1000.0),
            $11, $12, $13::jsonb, $14, CASE WHEN $15 THEN now() END)
    RETURNING id";
