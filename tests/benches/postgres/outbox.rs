//! Benchmark: moving events from the outbox into their stream.

use std::time::{Duration, Instant};

use redis::Value;
use streamjobs::Runtime;
use tokio::task::JoinSet;

use crate::place::{Place, order};

/// Publishes this many events in transactions of a hundred, and moves them.
pub async fn relay(place: &Place, events: usize) -> Duration {
    place.redis.command(&["FLUSHALL"]);
    place.truncate("TRUNCATE streamjobs.outbox").await;
    let publisher = place.postgres.publisher().without_notify();
    let orders = (0..events).map(order).collect::<Vec<_>>();
    for orders in orders.chunks(100) {
        let mut transaction = place.pool.begin().await.unwrap();
        publisher.publish_all_in(&mut transaction, orders).await.unwrap();
        transaction.commit().await.unwrap();
    }
    let started = Instant::now();
    let relayed = place.postgres.relay().sweep(&place.client).await.unwrap();
    let took = started.elapsed();
    assert_eq!((relayed.events, place.redis.length("orders")), (events as u64, events));
    took
}

/// The time from the commit of each event until it is in its stream, at 100 events per second.
pub async fn lags(place: &Place, events: usize) -> Vec<Duration> {
    place.redis.command(&["FLUSHALL"]);
    let builder = Runtime::builder(&place.client).handlers([]).service(place.postgres.relay());
    let runtime = builder.start().await.unwrap();
    let mut watching = JoinSet::new();
    watching.spawn(arrivals(place.redis.url(), events));
    let publisher = place.postgres.publisher();
    let mut interval = tokio::time::interval(Duration::from_millis(10));
    let mut committed = Vec::with_capacity(events);
    for number in 0..events {
        interval.tick().await;
        let mut transaction = place.pool.begin().await.unwrap();
        publisher.publish_in(&mut transaction, &order(number)).await.unwrap();
        transaction.commit().await.unwrap();
        committed.push(Instant::now());
    }
    let arrived = watching.join_next().await.unwrap().unwrap();
    let _ = runtime.shutdown().await;
    let lag = |(committed, arrived): (&Instant, &Instant)| {
        // The relay may be faster than the reply to the commit.
        arrived.saturating_duration_since(*committed)
    };
    committed.iter().zip(&arrived).map(lag).collect()
}

async fn arrivals(url: String, events: usize) -> Vec<Instant> {
    type Reply = Vec<(String, Vec<(String, Value)>)>;
    let client = redis::Client::open(url).unwrap();
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let connect = client.get_multiplexed_async_connection_with_config(&config);
    let mut connection = connect.await.unwrap();
    let (mut arrived, mut last) = (Vec::with_capacity(events), String::from("0"));
    while arrived.len() < events {
        let mut read = redis::cmd("XREAD");
        read.arg("BLOCK").arg(1_000).arg("STREAMS").arg("orders").arg(&last);
        let reply: Value = read.query_async(&mut connection).await.unwrap();
        let now = Instant::now();
        let streams: Reply = redis::from_redis_value(reply).unwrap_or_default();
        for (id, _fields) in streams.into_iter().flat_map(|(_, entries)| entries) {
            arrived.push(now);
            last = id;
        }
    }
    arrived
}
