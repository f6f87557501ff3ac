//! A loop by hand over the `redis` crate: read a batch, spawn, decode, acknowledge in batches.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, IntoConnectionInfo, Value};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::{About, Failure, Took};
use crate::job::{Counter, Order};

const BATCH: usize = 500;

pub(super) const ABOUT: About = About {
    name: "by hand",
    package: "redis",
    settings: "XADD in pipelines of 500; XREADGROUP of up to 500, a task for each job, XACK of up \
        to 500 ids; TCP_NODELAY",
    guarantee: "acknowledged after the job; no lease, no retry: the entries of a killed process stay \
        pending",
};

async fn connection(url: &str) -> Result<MultiplexedConnection, Failure> {
    let info = url.into_connection_info()?;
    let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let config =
        AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(1_024);
    let client = redis::Client::open(info)?;
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}

/// The entry that streamjobs writes: a type, a payload and an id.
fn add(order: &Order) -> Result<redis::Cmd, serde_json::Error> {
    let mut add = redis::cmd("XADD");
    add.arg("orders").arg("*").arg("type").arg("order.placed");
    add.arg("data").arg(serde_json::to_vec(order)?);
    add.arg("sj-id").arg(uuid::Uuid::now_v7().to_string());
    Ok(add)
}

pub(super) async fn publish(url: &str, orders: &[Order]) -> Took {
    let mut connection = connection(url).await?;
    let start = Instant::now();
    for chunk in orders.chunks(BATCH) {
        let mut pipe = redis::pipe();
        for order in chunk {
            pipe.add_command(add(order)?);
        }
        let _ids: Vec<String> = pipe.query_async(&mut connection).await?;
    }
    Ok(start.elapsed())
}

pub(super) async fn drain(url: &str, orders: &[Order], slots: usize) -> Took {
    publish(url, orders).await?;
    let counter = Counter::of(orders);
    let (reading, acking) = (connection(url).await?, connection(url).await?);
    let start = Instant::now();
    tokio::select! {
        () = counter.reached() => Ok(start.elapsed()),
        Err(failure) = read(reading, acking, &counter, slots) => Err(failure),
    }
}

/// Reads as many entries as may be in flight, up to a batch, once enough slots are free.
async fn read(
    mut reading: MultiplexedConnection,
    acking: MultiplexedConnection,
    counter: &Counter,
    slots: usize,
) -> Result<Infallible, Failure> {
    let mut create = redis::cmd("XGROUP");
    create.arg("CREATE").arg("orders").arg("hand").arg("0").arg("MKSTREAM");
    let _made: Value = create.query_async(&mut reading).await?;
    let (done, acks) = mpsc::channel(slots);
    let mut acker = JoinSet::new();
    acker.spawn(acknowledge(acking, acks));
    let free = Arc::new(Semaphore::new(slots));
    let mut jobs = JoinSet::new();
    let worthwhile = u32::try_from(slots.min(100))?;
    loop {
        while let Some(ended) = jobs.try_join_next() {
            let () = ended??;
        }
        let mut permits = Arc::clone(&free).acquire_many_owned(worthwhile).await?;
        let more = free.available_permits().min(BATCH.saturating_sub(permits.num_permits()));
        if let Ok(more) = Arc::clone(&free).try_acquire_many_owned(u32::try_from(more)?) {
            permits.merge(more);
        }
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg("hand").arg("me").arg("COUNT").arg(permits.num_permits());
        read.arg("BLOCK").arg(2_000).arg("STREAMS").arg("orders").arg(">");
        for (id, data) in entries(read.query_async(&mut reading).await?) {
            let (done, counter, permit) = (done.clone(), counter.clone(), permits.split(1));
            jobs.spawn(async move {
                counter.add(&serde_json::from_slice::<Order>(&data)?);
                done.send(id).await?;
                drop(permit);
                Ok::<_, Failure>(())
            });
        }
    }
}

/// Acknowledges finished jobs, in batches.
async fn acknowledge(
    mut connection: MultiplexedConnection,
    mut acks: mpsc::Receiver<Vec<u8>>,
) -> Result<(), redis::RedisError> {
    let mut ids = Vec::new();
    while acks.recv_many(&mut ids, BATCH).await > 0 {
        let mut ack = redis::cmd("XACK");
        ack.arg("orders").arg("hand");
        for id in ids.drain(..) {
            ack.arg(id);
        }
        let _acked: Value = ack.query_async(&mut connection).await?;
    }
    Ok(())
}

/// Entry ids and payloads of a reply.
fn entries(reply: Value) -> Vec<(Vec<u8>, Vec<u8>)> {
    let Value::Array(mut streams) = reply else { return Vec::new() };
    let Some(Value::Array(mut stream)) = streams.pop() else { return Vec::new() };
    let Some(Value::Array(entries)) = stream.pop() else { return Vec::new() };
    let entry = |entry: Value| {
        let Value::Array(mut parts) = entry else { return None };
        let Some(Value::Array(fields)) = parts.pop() else { return None };
        let Some(Value::BulkString(id)) = parts.pop() else { return None };
        let Some(Value::BulkString(data)) = fields.into_iter().nth(3) else { return None };
        Some((id, data))
    };
    entries.into_iter().filter_map(entry).collect()
}
