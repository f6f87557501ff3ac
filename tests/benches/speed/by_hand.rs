//! The same by hand: read a batch, spawn, decode, acknowledge in batches. No lease is renewed, nothing
//! is retried, and a process that dies keeps what it had. The entries are the framework's.

use std::sync::Arc;

use redis::Value;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, IntoConnectionInfo};
use streamjobs_tests::server::RedisServer;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::job::{Counter, Order, order};
use crate::meter::{Cost, Meter};

pub const BATCH: usize = 500;

/// With the options that make it fast: no waiting for small packets, no deadline of the crate's.
pub async fn connection(server: &RedisServer) -> MultiplexedConnection {
    connect(&server.url()).await
}

pub async fn connect(url: &str) -> MultiplexedConnection {
    let info = url.into_connection_info().unwrap();
    let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let client = redis::Client::open(info).unwrap();
    let config =
        AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(1_024);
    client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
}

/// Fills the stream for a drain, as the framework's publishers write.
pub fn fill(server: &RedisServer, events: usize, bytes: usize) {
    let client = redis::Client::open(server.plain_url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let numbers = (0..events).collect::<Vec<_>>();
    for chunk in numbers.chunks(if bytes > 10_000 { 100 } else { 5_000 }) {
        let mut pipe = redis::pipe();
        for number in chunk {
            pipe.add_command(add(&order(*number, bytes))).ignore();
        }
        pipe.query::<()>(&mut connection).unwrap();
    }
}

/// The same entry as the framework's: a type, a payload, and an id that repeated publishing would keep.
pub fn add(order: &Order) -> redis::Cmd {
    add_to("orders", order)
}

pub fn add_to(stream: &str, order: &Order) -> redis::Cmd {
    let mut add = redis::cmd("XADD");
    add.arg(stream).arg("*").arg("type").arg("order.placed");
    add.arg("data").arg(serde_json::to_vec(order).unwrap());
    add.arg("sj-id").arg(uuid::Uuid::now_v7().to_string());
    add
}

pub async fn publish_batches(server: &RedisServer, events: usize, bytes: usize) -> Cost {
    let mut connection = connection(server).await;
    let orders = (0..events).map(|number| order(number, bytes)).collect::<Vec<_>>();
    let meter = Meter::start(server);
    for chunk in orders.chunks(BATCH) {
        let mut pipe = redis::pipe();
        for order in chunk {
            pipe.add_command(add(order));
        }
        let ids: Vec<String> = pipe.query_async(&mut connection).await.unwrap();
        assert_eq!(ids.len(), chunk.len());
    }
    meter.stop()
}

pub async fn publish_from(server: &RedisServer, tasks: usize, events: usize, bytes: usize) -> Cost {
    let connection = connection(server).await;
    let meter = Meter::start(server);
    let mut publishing = JoinSet::new();
    for task in 0..tasks {
        let mut connection = connection.clone();
        publishing.spawn(async move {
            for number in (task..events).step_by(tasks) {
                let _id: String =
                    add(&order(number, bytes)).query_async(&mut connection).await.unwrap();
            }
        });
    }
    while let Some(ended) = publishing.join_next().await {
        ended.unwrap();
    }
    meter.stop()
}

pub async fn drain(server: &RedisServer, slots: usize, events: usize, bytes: usize) -> Cost {
    fill(server, events, bytes);
    let counter = Counter::expect(events);
    let (reading, acking) = (connection(server).await, connection(server).await);
    let meter = Meter::start(server);
    let mut looping = JoinSet::new();
    looping.spawn(read_loop(reading, acking, counter.clone(), slots, false));
    counter.reached().await;
    let cost = meter.stop();
    looping.abort_all();
    cost
}

/// Reads as much as may be in flight, up to a batch, once there is room for a good one.
pub async fn read_loop(
    mut reading: MultiplexedConnection,
    mut acking: MultiplexedConnection,
    counter: Counter,
    slots: usize,
    timed: bool,
) {
    let mut create = redis::cmd("XGROUP");
    create.arg("CREATE").arg("orders").arg("hand").arg("0").arg("MKSTREAM");
    // Another process may have made it.
    let _made: redis::RedisResult<Value> = create.query_async(&mut reading).await;
    let consumer = format!("worker-{}", std::process::id());
    let (done, mut acks) = mpsc::channel::<Vec<u8>>(slots);
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
    let free = Arc::new(Semaphore::new(slots));
    let mut jobs = JoinSet::new();
    // What was quickest of: as much as is free, at once; half of the slots; all of them.
    let worthwhile = u32::try_from(slots.min(100)).unwrap();
    loop {
        while jobs.try_join_next().is_some() {}
        let mut permits = Arc::clone(&free).acquire_many_owned(worthwhile).await.unwrap();
        let more = free.available_permits().min(BATCH.saturating_sub(permits.num_permits()));
        let more = u32::try_from(more).unwrap();
        if let Ok(more) = Arc::clone(&free).try_acquire_many_owned(more) {
            permits.merge(more);
        }
        let batch = permits.num_permits();
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg("hand").arg(&consumer).arg("COUNT").arg(batch);
        read.arg("BLOCK").arg(2_000).arg("STREAMS").arg("orders").arg(">");
        let reply: Value = read.query_async(&mut reading).await.unwrap();
        for (id, data) in entries(reply) {
            let (done, counter) = (done.clone(), counter.clone());
            let permit = permits.split(1).unwrap();
            jobs.spawn(async move {
                let order: Order = serde_json::from_slice(&data).unwrap();
                if timed {
                    counter.start(order.number);
                } else {
                    counter.add();
                }
                // At the end the acker goes first.
                let _closed = done.send(id).await.is_err();
                drop(permit);
            });
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
