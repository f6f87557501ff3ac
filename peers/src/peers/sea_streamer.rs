//! sea-streamer-redis: a stream library; the worker's loop is written here.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sea_streamer_redis::{
    AutoCommit, AutoStreamReset, RedisConnectOptions, RedisConsumer, RedisConsumerOptions,
    RedisProducerOptions, RedisStreamer,
};
use sea_streamer_types::{
    Buffer, Consumer, ConsumerGroup, ConsumerMode, ConsumerOptions, Message, Producer, StreamKey,
    Streamer,
};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{About, Failure, Took};
use crate::job::{Counter, Order};

/// Messages that are sent before their receipts are awaited.
const WINDOW: usize = 500;

pub(super) const ABOUT: About = About {
    name: "sea-streamer-redis",
    package: "sea-streamer-redis",
    settings: "500 sends, then their receipts; LoadBalanced, batch size 1,000, \
        AutoCommit::Rolling every 100 ms; a task for each job, spawned by the benchmark's own loop",
    guarantee: "at least once: acknowledged after the job, committed every 100 ms; another \
        consumer claims the messages of a killed one after 60 s of silence; no retries",
};

async fn streamer(url: &str) -> Result<RedisStreamer, Failure> {
    Ok(RedisStreamer::connect(url.parse()?, RedisConnectOptions::default()).await?)
}

pub(super) async fn publish(url: &str, orders: &[Order]) -> Took {
    let streamer = streamer(url).await?;
    let stream = StreamKey::new("orders")?;
    let producer = streamer.create_producer(stream, RedisProducerOptions::default()).await?;
    let start = Instant::now();
    for chunk in orders.chunks(WINDOW) {
        let mut receipts = Vec::with_capacity(chunk.len());
        for order in chunk {
            receipts.push(producer.send(serde_json::to_string(order)?)?);
        }
        for receipt in receipts {
            receipt.await?;
        }
    }
    Ok(start.elapsed())
}

pub(super) async fn drain(url: &str, orders: &[Order], slots: usize) -> Took {
    publish(url, orders).await?;
    let streamer = streamer(url).await?;
    let counter = Counter::of(orders);
    let mut options = RedisConsumerOptions::new(ConsumerMode::LoadBalanced);
    options.set_consumer_group(ConsumerGroup::new("peers"))?;
    options.set_auto_stream_reset(AutoStreamReset::Earliest);
    options.set_auto_commit(AutoCommit::Rolling);
    // A tenth of the default, so that acknowledgements happen in the measured time.
    options.set_auto_commit_interval(Duration::from_millis(100));
    options.set_batch_size(1_000);
    let start = Instant::now();
    let consumer = streamer.create_consumer(&[StreamKey::new("orders")?], options).await?;
    tokio::select! {
        () = counter.reached() => Ok(start.elapsed()),
        Err(failure) = work(consumer, &counter, slots) => Err(failure),
    }
}

/// Runs a task for each message, with at most `slots` at once.
async fn work(
    consumer: RedisConsumer,
    counter: &Counter,
    slots: usize,
) -> Result<Infallible, Failure> {
    let consumer = Arc::new(consumer);
    let free = Arc::new(Semaphore::new(slots));
    let mut jobs = JoinSet::new();
    loop {
        while let Some(ended) = jobs.try_join_next() {
            let () = ended??;
        }
        let permit = Arc::clone(&free).acquire_owned().await?;
        let message = consumer.next().await?;
        let (consumer, counter) = (Arc::clone(&consumer), counter.clone());
        jobs.spawn(async move {
            counter.add(&serde_json::from_slice::<Order>(message.message().as_bytes())?);
            consumer.ack(&message)?;
            drop(permit);
            Ok::<_, Failure>(())
        });
    }
}
