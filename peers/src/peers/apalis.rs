//! apalis with its Redis backend.

use std::time::{Duration, Instant};

use apalis::prelude::{Data, TaskSink, WorkerBuilder, WorkerBuilderExt};
use apalis_redis::{Config, ConnectionManager, RedisStorage};

use super::{About, Failure, Took};
use crate::job::{Counter, Order};

/// Jobs in one call, and in one fetch.
const BATCH: usize = 500;

/// Below the limit of waiting jobs: with 8,000, the fetching script fails.
const PORTION: usize = 7_500;

pub(super) const ABOUT: About = About {
    name: "apalis-redis",
    package: "apalis-redis",
    settings: "push_bulk of 500; batch_size 500, lock_tasks and emit_events off, concurrency as in \
        the scenario",
    guarantee: "at least once: acknowledged after the job, in batches; the jobs of a killed \
        worker are queued again after 300 s",
};

pub(super) const ABOUT_PORTIONS: About = About {
    name: "apalis-redis in portions",
    settings: "the same, but each new worker drains 7,500 jobs that were pushed before; only the \
        drains are timed",
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

/// The sum of the times of all portions.
pub(super) async fn drain_portions(url: &str, orders: &[Order], slots: usize) -> Took {
    let mut took = Duration::ZERO;
    for (number, portion) in orders.chunks(PORTION).enumerate() {
        publish(url, portion).await?;
        // A name cannot be used again before its worker counts as dead.
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
            Err("the worker ended before all jobs had run".into())
        }
    }
}
