//! The least that a loop over the `redis` crate has to do: read 500, spawn, acknowledge in batches.

use std::time::{Duration, Instant};

use redis::Value;
use redis::aio::MultiplexedConnection;
use streamjobs_tests::server::RedisServer;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::{Counter, Order, order, paced, since};

const BATCH: usize = 500;
/// What is in flight at once, as on the other side.
const SLOTS: usize = 1_000;

async fn connection(server: &RedisServer) -> MultiplexedConnection {
    let client = redis::Client::open(server.url()).unwrap();
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
}

/// Fills the stream for a drain.
pub fn fill(server: &RedisServer, events: usize) {
    server.command(&["FLUSHALL"]);
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let numbers = (0..events).collect::<Vec<_>>();
    for chunk in numbers.chunks(5_000) {
        let mut pipe = redis::pipe();
        for number in chunk {
            let data = serde_json::to_vec(&order(*number)).unwrap();
            pipe.cmd("XADD")
                .arg("orders")
                .arg("*")
                .arg("type")
                .arg("order.placed")
                .arg("data")
                .arg(data);
            pipe.arg("sj-id").arg(format!("{number:036}")).ignore();
        }
        pipe.query::<()>(&mut connection).unwrap();
    }
}

pub async fn publish(server: &RedisServer, events: usize) -> Duration {
    server.command(&["FLUSHALL"]);
    let mut connection = connection(server).await;
    let orders = (0..events).map(order).collect::<Vec<_>>();
    let started = Instant::now();
    for chunk in orders.chunks(BATCH) {
        let mut pipe = redis::pipe();
        for order in chunk {
            let data = serde_json::to_vec(order).unwrap();
            pipe.cmd("XADD")
                .arg("orders")
                .arg("*")
                .arg("type")
                .arg("order.placed")
                .arg("data")
                .arg(data);
        }
        let ids: Vec<String> = pipe.query_async(&mut connection).await.unwrap();
        assert_eq!(ids.len(), chunk.len());
    }
    started.elapsed()
}

pub async fn drain(server: &RedisServer, events: usize) -> Duration {
    fill(server, events);
    let counter = Counter::expect(events);
    let started = Instant::now();
    let mut looping = JoinSet::new();
    looping.spawn(read_loop(server.url(), connection(server).await, counter.clone(), false));
    counter.reached().await;
    let took = started.elapsed();
    looping.abort_all();
    took
}

pub async fn latency(server: &RedisServer, events: usize) -> Vec<Duration> {
    server.command(&["FLUSHALL"]);
    let counter = Counter::expect(events);
    let mut looping = JoinSet::new();
    looping.spawn(read_loop(server.url(), connection(server).await, counter.clone(), true));
    let publisher = connection(server).await;
    let published = paced(events, async |number| {
        let data = serde_json::to_vec(&order(number)).unwrap();
        let mut add = redis::cmd("XADD");
        add.arg("orders").arg("*").arg("type").arg("order.placed").arg("data").arg(data);
        let _id: String = add.query_async(&mut publisher.clone()).await.unwrap();
    });
    let published = published.await;
    counter.reached().await;
    looping.abort_all();
    since(&published, &counter)
}

async fn read_loop(
    url: String,
    mut connection: MultiplexedConnection,
    counter: Counter,
    decode: bool,
) {
    let mut create = redis::cmd("XGROUP");
    create.arg("CREATE").arg("orders").arg("hand").arg("0").arg("MKSTREAM");
    let _made: Value = create.query_async(&mut connection).await.unwrap();
    let (done, mut acks) = mpsc::channel::<Vec<u8>>(SLOTS);
    let client = redis::Client::open(url).unwrap();
    let mut acking = client.get_multiplexed_async_connection().await.unwrap();
    let mut acker = JoinSet::new();
    acker.spawn(async move {
        let mut ids = Vec::new();
        while acks.recv_many(&mut ids, BATCH).await > 0 {
            let mut ack = redis::cmd("XACK");
            ack.arg("orders").arg("hand");
            for id in ids.drain(..) {
                ack.arg(id);
            }
            let _acked: Value = ack.query_async(&mut acking).await.unwrap();
        }
    });
    let mut jobs = JoinSet::new();
    loop {
        while jobs.len() > SLOTS - BATCH {
            jobs.join_next().await;
        }
        while jobs.try_join_next().is_some() {}
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg("hand").arg("me").arg("COUNT").arg(BATCH).arg("BLOCK").arg(2_000);
        read.arg("STREAMS").arg("orders").arg(">");
        let reply: Value = read.query_async(&mut connection).await.unwrap();
        for (id, data) in entries(reply) {
            let (done, counter) = (done.clone(), counter.clone());
            jobs.spawn(async move {
                if decode {
                    let order: Order = serde_json::from_slice(&data).unwrap();
                    counter.start(order.number);
                } else {
                    counter.add();
                }
                // At the end the acker goes first.
                let _closed = done.send(id).await.is_err();
            });
        }
        if acker.try_join_next().is_some() {
            return;
        }
    }
}

/// Entry ids and payloads out of a reply.
fn entries(reply: Value) -> Vec<(Vec<u8>, Vec<u8>)> {
    let Value::Array(mut streams) = reply else { return Vec::new() };
    let Some(Value::Array(mut stream)) = streams.pop() else { return Vec::new() };
    let Some(Value::Array(entries)) = stream.pop() else { return Vec::new() };
    let entry = |entry: Value| {
        let Value::Array(mut parts) = entry else { return None };
        let Some(Value::Array(mut fields)) = parts.pop() else { return None };
        let Some(Value::BulkString(id)) = parts.pop() else { return None };
        let Value::BulkString(data) = fields.swap_remove(3) else { return None };
        Some((id, data))
    };
    entries.into_iter().filter_map(entry).collect()
}
