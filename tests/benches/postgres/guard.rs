//! One guarded insert for each job: by the framework, and by a loop over `redis` and sqlx.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Value;
use sqlx::PgPool;
use streamjobs::config::GroupOptions;
use streamjobs::{JobError, Runtime, handler, handlers};
use streamjobs_postgres::Once;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::place::{Order, Place, SLOTS};

#[handler(group = "billing")]
async fn charge(order: Order, tx: &mut Once) -> Result<(), JobError> {
    sqlx::query(EFFECT).bind(&order.order_id).bind(order.cents).execute(&mut **tx).await?;
    Ok(())
}

const EFFECT: &str = "INSERT INTO charges (order_id, cents) VALUES ($1, $2)";

pub async fn ours(place: &Place, jobs: usize) -> Duration {
    place.fill(jobs).await;
    let options = GroupOptions::new().concurrency(NonZeroU32::new(SLOTS).unwrap());
    let builder = Runtime::builder(&place.client).handlers(handlers![charge]);
    let builder = builder.group("billing", options).state(place.postgres.clone());
    let started = Instant::now();
    let runtime = builder.start().await.unwrap();
    while runtime.counters().acknowledged < jobs as u64 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = started.elapsed();
    let _ = runtime.shutdown().await;
    assert_eq!(place.number("SELECT count(*) FROM charges").await, jobs);
    took
}

/// Reads as many as there are slots free, and acknowledges in batches.
pub async fn by_hand(place: &Place, jobs: usize) -> Duration {
    place.fill(jobs).await;
    let client = redis::Client::open(place.redis.url()).unwrap();
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
                once(&pool, std::str::from_utf8(&fields[5]).unwrap(), &order).await.unwrap();
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

/// What one writes by hand: the same four round trips.
async fn once(pool: &PgPool, event_id: &str, order: &Order) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let seen = sqlx::query("INSERT INTO seen VALUES ('hand', $1) ON CONFLICT DO NOTHING")
        .bind(event_id)
        .execute(&mut *transaction)
        .await?;
    if seen.rows_affected() == 1 {
        sqlx::query(EFFECT)
            .bind(&order.order_id)
            .bind(order.cents)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}

/// Entry ids and fields out of a reply.
fn entries(reply: Value) -> Vec<(String, Vec<Vec<u8>>)> {
    type Reply = Vec<(String, Vec<(String, Vec<Vec<u8>>)>)>;
    let streams: Reply = redis::from_redis_value(reply).unwrap_or_default();
    streams.into_iter().flat_map(|(_, entries)| entries).collect()
}
