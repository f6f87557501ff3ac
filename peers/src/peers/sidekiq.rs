//! rusty-sidekiq.

use std::time::Instant;

use async_trait::async_trait;
use bb8::Pool;
use sidekiq::{Processor, ProcessorConfig, RedisConnectionManager, RedisPool, Worker};
use tokio::task::JoinSet;

use super::{About, Failure, Took};
use crate::job::{Counter, Order};

/// Publishing tasks, each with a connection of its own. 20, 100 and 200 were slower.
const PUBLISHERS: usize = 50;

pub(super) const ABOUT: About = About {
    name: "rusty-sidekiq",
    package: "rusty-sidekiq",
    settings: "perform_async from 50 tasks, because there are no batches; num_workers as in the \
        scenario, a connection for each, opened before and not tested on checkout",
    guarantee: "a job leaves Redis when it is fetched and is lost with a killed process; errors \
        are retried",
};

struct Count {
    counter: Counter,
}

#[async_trait]
impl Worker<Order> for Count {
    async fn perform(&self, order: Order) -> sidekiq::Result<()> {
        self.counter.add(&order);
        Ok(())
    }
}

async fn pool(url: &str, connections: usize) -> Result<RedisPool, Failure> {
    let connections = u32::try_from(connections)?;
    let builder = Pool::builder().max_size(connections).min_idle(connections);
    Ok(builder.test_on_check_out(false).build(RedisConnectionManager::new(url)?).await?)
}

pub(super) async fn publish(url: &str, orders: Vec<Order>) -> Took {
    let pool = pool(url, PUBLISHERS).await?;
    let mut shares = (0..PUBLISHERS).map(|_| Vec::new()).collect::<Vec<_>>();
    for (number, order) in orders.into_iter().enumerate() {
        if let Some(share) = shares.get_mut(number % PUBLISHERS) {
            share.push(order);
        }
    }
    let start = Instant::now();
    let mut publishing = JoinSet::new();
    for share in shares {
        let pool = pool.clone();
        publishing.spawn(async move {
            for order in share {
                Count::perform_async(&pool, order).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(ended) = publishing.join_next().await {
        ended??;
    }
    Ok(start.elapsed())
}

pub(super) async fn drain(url: &str, orders: Vec<Order>, slots: usize) -> Took {
    let counter = Counter::of(&orders);
    publish(url, orders).await?;
    // More connections for its other loops.
    let pool = pool(url, slots + 10).await?;
    let mut processor = Processor::new(pool, vec!["default".to_owned()])
        .with_config(ProcessorConfig::default().num_workers(slots));
    processor.register(Count { counter: counter.clone() });
    let start = Instant::now();
    tokio::select! {
        () = counter.reached() => Ok(start.elapsed()),
        () = processor.run() => Err("the processor ended before all jobs had run".into()),
    }
}
