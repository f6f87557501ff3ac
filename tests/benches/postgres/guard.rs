//! One guarded insert per job: with the framework, and with a hand-written loop over `redis` and
//! sqlx.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Value;
use sha2::{Digest, Sha256};
use sqlx::{PgPool, Transaction};
use streamjobs::config::GroupOptions;
use streamjobs::{Batch, HandlerDef, JobError, Runtime, handler, handlers};
use streamjobs_postgres::Once;
use streamjobs_tests::eventually::eventually_async;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::place::{Order, Place, SLOTS};

#[handler(group = "billing")]
async fn charge(order: Order, tx: &mut Once) -> Result<(), JobError> {
    sqlx::query(EFFECT).bind(&order.order_id).bind(order.cents).execute(&mut **tx).await?;
    Ok(())
}

/// The same for a hundred jobs at once: one statement, in one transaction with their guard rows.
#[handler(group = "billing", batch = 100)]
async fn charge_all(batch: Batch<Order>, tx: &mut Once) -> Result<(), JobError> {
    let ids = batch.iter().map(|item| item.event().order_id.as_str()).collect::<Vec<_>>();
    let cents = batch.iter().map(|item| item.event().cents).collect::<Vec<_>>();
    sqlx::query(EFFECTS).bind(ids).bind(cents).execute(&mut **tx).await?;
    Ok(())
}

/// The longest time for a round.
const DEADLINE: Duration = Duration::from_secs(600);

const EFFECT: &str = "INSERT INTO charges (order_id, cents) VALUES ($1, $2)";
const EFFECTS: &str =
    "INSERT INTO charges (order_id, cents) SELECT * FROM UNNEST($1::text[], $2::bigint[])";

/// One guarded transaction for each job.
pub async fn ours(place: &Place, jobs: usize) -> Duration {
    run(place, jobs, SLOTS, handlers![charge]).await
}

/// One for a hundred jobs, as many at once as there are connections.
pub async fn in_batches(place: &Place, jobs: usize) -> Duration {
    run(place, jobs, 100 * SLOTS, handlers![charge_all]).await
}

async fn run(place: &Place, jobs: usize, slots: u32, handlers: [HandlerDef; 1]) -> Duration {
    place.fill(jobs).await;
    let options = GroupOptions::new().concurrency(NonZeroU32::new(slots).unwrap());
    let builder = Runtime::builder(&place.client).handlers(handlers);
    let builder = builder.group("billing", options).state(place.postgres.clone());
    let started = Instant::now();
    let runtime = builder.start().await.unwrap();
    let done = async || runtime.counters().acknowledged >= jobs as u64;
    eventually_async(DEADLINE, "every job is acknowledged", done).await;
    let took = started.elapsed();
    let _ = runtime.shutdown().await;
    assert_eq!(place.number("SELECT count(*) FROM charges").await, jobs);
    took
}

/// What the hand-written loop does.
#[derive(Clone, Copy)]
pub enum Care {
    /// A table of ids without pruning, and a transaction without limits.
    Bare,
    /// The same as the framework: rows that can be pruned by age and that detect another payload,
    /// and a transaction with limits.
    Same,
}

/// Reads as many entries as slots are free, and acknowledges in batches.
pub async fn by_hand(place: &Place, jobs: usize, care: Care) -> Duration {
    place.fill(jobs).await;
    let client = redis::Client::open(place.redis.plain_url()).unwrap();
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let connect = client.get_multiplexed_async_connection_with_config(&config);
    let (mut reading, mut acking) =
        (connect.await.unwrap(), client.get_multiplexed_async_connection().await.unwrap());
    let started = Instant::now();
    let mut create = redis::cmd("XGROUP");
    create.arg("CREATE").arg("orders").arg("hand").arg("0");
    let _made: Value = create.query_async(&mut reading).await.unwrap();
    let (done, mut acks) = mpsc::channel::<String>(jobs);
    let mut acker = JoinSet::new();
    acker.spawn(async move {
        let (mut ids, mut acknowledged) = (Vec::new(), 0);
        while acknowledged < jobs {
            acknowledged += acks.recv_many(&mut ids, 500).await;
            let mut ack = redis::cmd("XACK");
            ack.arg("orders").arg("hand").arg(std::mem::take(&mut ids));
            let _acked: Value = ack.query_async(&mut acking).await.unwrap();
        }
    });
    let slots = Arc::new(Semaphore::new(SLOTS as usize));
    let mut tasks = JoinSet::new();
    let mut read = 0;
    while read < jobs {
        let first = Arc::clone(&slots).acquire_owned().await.unwrap();
        let mut permits = vec![first];
        while let Ok(permit) = Arc::clone(&slots).try_acquire_owned() {
            permits.push(permit);
        }
        let mut ask = redis::cmd("XREADGROUP");
        ask.arg("GROUP").arg("hand").arg("me").arg("COUNT").arg(permits.len());
        ask.arg("STREAMS").arg("orders").arg(">");
        let reply: Value = ask.query_async(&mut reading).await.unwrap();
        for (id, fields) in entries(reply) {
            let (pool, done, permit) = (place.pool.clone(), done.clone(), permits.pop());
            tasks.spawn(async move {
                let order: Order = serde_json::from_slice(&fields[3]).unwrap();
                let event_id = std::str::from_utf8(&fields[5]).unwrap();
                let done_once = match care {
                    Care::Bare => bare(&pool, event_id, &order).await,
                    Care::Same => same(&pool, event_id, &id, &fields[3], &order).await,
                };
                done_once.unwrap();
                done.send(id).await.unwrap();
                drop(permit);
            });
            read += 1;
        }
        while tasks.try_join_next().is_some() {}
    }
    acker.join_next().await;
    let took = started.elapsed();
    assert_eq!(place.number("SELECT count(*) FROM charges").await, jobs);
    took
}

/// Four round trips, as many as the framework makes.
async fn bare(pool: &PgPool, event_id: &str, order: &Order) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let seen = sqlx::query("INSERT INTO seen VALUES ('hand', $1) ON CONFLICT DO NOTHING")
        .bind(event_id)
        .execute(&mut *transaction)
        .await?;
    finish(transaction, seen.rows_affected() == 1, order).await
}

async fn same(
    pool: &PgPool,
    event_id: &str,
    entry_id: &str,
    payload: &[u8],
    order: &Order,
) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin_with(LIMITED).await?;
    let noted =
        sqlx::query("INSERT INTO noted VALUES ('hand', $1, $2, $3, now()) ON CONFLICT DO NOTHING")
            .bind(event_id)
            .bind(entry_id)
            .bind(&Sha256::digest(payload)[..16])
            .execute(&mut *transaction)
            .await?;
    finish(transaction, noted.rows_affected() == 1, order).await
}

async fn finish(
    mut transaction: Transaction<'_, sqlx::Postgres>,
    first: bool,
    order: &Order,
) -> Result<(), sqlx::Error> {
    if first {
        let effect = sqlx::query(EFFECT).bind(&order.order_id).bind(order.cents);
        effect.execute(&mut *transaction).await?;
    }
    transaction.commit().await
}

const LIMITED: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = on;
    SET LOCAL lock_timeout = 5000; SET LOCAL statement_timeout = 60000;
    SET LOCAL idle_in_transaction_session_timeout = 60000";

/// The entry ids and fields of a reply.
fn entries(reply: Value) -> Vec<(String, Vec<Vec<u8>>)> {
    type Reply = Vec<(String, Vec<(String, Vec<Vec<u8>>)>)>;
    let streams: Reply = redis::from_redis_value(reply).unwrap_or_default();
    streams.into_iter().flat_map(|(_, entries)| entries).collect()
}
