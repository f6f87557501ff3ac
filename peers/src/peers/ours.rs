//! streamjobs, with all guarantees.

use std::num::NonZeroU32;
use std::time::Instant;

use streamjobs::config::{GroupOptions, Retention};
use streamjobs::{Client, Runtime, State, handler, handlers};

use super::{About, Failure, Took};
use crate::job::{Counter, Order};

const BATCH: usize = 500;

pub(super) const ABOUT: About = About {
    name: "streamjobs",
    package: "streamjobs",
    settings: "publish_all in calls of 500; concurrency as asked; retention off",
    guarantee: "at least once: acknowledged after the handler, and renewed while it runs; after a \
        kill it runs elsewhere within lease + lease/3 + 1 s (lease 10 s)",
};

async fn client(url: &str) -> Result<Client, Failure> {
    Ok(Client::builder(url).retention_default(Retention::Unlimited).connect().await?)
}

pub(super) async fn publish(url: &str, orders: &[Order]) -> Took {
    let client = client(url).await?;
    let start = Instant::now();
    for chunk in orders.chunks(BATCH) {
        for answer in client.publish_all(chunk).await {
            answer?;
        }
    }
    Ok(start.elapsed())
}

#[handler(group = "peers")]
async fn count(order: Order, State(counter): State<Counter>) {
    counter.add(&order);
}

pub(super) async fn drain(url: &str, orders: &[Order], slots: usize) -> Took {
    publish(url, orders).await?;
    let client = client(url).await?;
    let counter = Counter::of(orders);
    let slots = NonZeroU32::try_from(u32::try_from(slots)?)?;
    let builder = Runtime::builder(&client).handlers(handlers![count]).state(counter.clone());
    let builder = builder.group("peers", GroupOptions::new().concurrency(slots));
    let start = Instant::now();
    let runtime = builder.start().await?;
    counter.reached().await;
    let took = start.elapsed();
    let _report = runtime.shutdown().await;
    Ok(took)
}
