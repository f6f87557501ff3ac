//! apalis with its Redis backend.

use std::time::{Duration, Instant};

use apalis::prelude::{Data, TaskSink, WorkerBuilder, WorkerBuilderExt};
use apalis_redis::{Config, ConnectionManager, RedisStorage};

use super::{About, Failure, Took};
use crate::job::{Counter, Order};

/// Jobs of one call, and of one fetch.
const BATCH: usize = 500;

/// Fewer than may wait: with 8,000 the script that fetches fails.
const PORTION: usize = 7_500;

pub(super) const ABOUT: About = About {
    name: "apalis-redis",
    package: "apalis-redis",
    settings: "push_bulk of 500; batch_size 500, lock_tasks and emit_events off, concurrency as \
        asked",
    guarantee: "at least once: acknowledged after the job, in batches; what a killed worker held \
        is queued again after 300 s",
};

pub(super) const ABOUT_PORTIONS: About = About {
    name: "apalis-redis in portions",
    settings: "the same, but 7,500 jobs are pushed, then drained by a new worker, and so on; only \
        draining counts",
    ..ABOUT
};

async fn storage(url: &str) -> Result<RedisStorage<Order, ConnectionManager>, Failure> {
    let config = Config::default().queue("orders").batch_size(BATCH);
    let config = config.lock_tasks(false).emit_events(false);
    Ok(RedisStorage::new(apalis_redis::connect(url).await?).with_config(config))
}

pub(super) async fn publish(url: &str, orders: &[Order]) -> Took {
    let mut storage = storage(url).await?;
    let start = Instant::now();
    for chunk in orders.chunks(BATCH) {
        storage.push_bulk(chunk.to_vec()).await?;
    }
    Ok(start.elapsed())
}

async fn count(order: Order, counter: Data<Counter>) {
    counter.add(&order);
}

pub(super) async fn drain(url: &str, orders: &[Order], slots: usize) -> Took {
    publish(url, orders).await?;
    drain_with("worker", url, orders, slots).await
}

/// The times of all portions, added up.
pub(super) async fn drain_portions(url: &str, orders: &[Order], slots: usize) -> Took {
    let mut took = Duration::ZERO;
    for (number, portion) in orders.chunks(PORTION).enumerate() {
        publish(url, portion).await?;
        // A name may not come back before its worker counts as dead.
        took += drain_with(&format!("worker-{number}"), url, portion, slots).await?;
    }
    Ok(took)
}

async fn drain_with(name: &str, url: &str, orders: &[Order], slots: usize) -> Took {
    let storage = storage(url).await?;
    let counter = Counter::of(orders);
    let worker = WorkerBuilder::new(name)
        .backend(storage)
        .data(counter.clone())
        .concurrency(slots)
        .build(count);
    let start = Instant::now();
    tokio::select! {
        () = counter.reached() => Ok(start.elapsed()),
        ended = worker.run() => {
            ended?;
            Err("the worker ended before its work".into())
        }
    }
}
