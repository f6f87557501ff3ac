//! Reads one queue wherever it is: in a cluster, the reader follows the slot.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use super::reader::RedisReader;
use crate::model::name::ConsumerName;
use crate::store::redis::RedisStore;
use crate::store::redis::net::{Pursuit, Redirect, Route, WakerSeat};
use crate::store::types::Result;
use crate::store::{Queue, ReadReply, ReadRequest, ReaderSetup, StoreError, StreamReader};

/// Reads one queue for one consumer.
pub(super) struct QueueReader {
    route: Route,
    queue: Queue,
    consumer: ConsumerName,
    setup: ReaderSetup,
    seat: WakerSeat,
    reader: RedisReader,
}

impl QueueReader {
    /// Opens a reader at the server that has the queue.
    pub(super) async fn open(
        store: &RedisStore,
        queue: &Queue,
        consumer: &ConsumerName,
        setup: ReaderSetup,
    ) -> Result<Self> {
        let (route, seat) = (store.at(queue.stream.as_str()), store.wakers.add());
        let open = |node| RedisReader::open(node, queue, consumer, setup, Arc::clone(&seat.waker));
        let reader = match &route {
            Route::One(node) => open(node.clone()).await?,
            Route::Slot(cluster, slot) => {
                let mut pursuit = Pursuit::new(cluster, *slot);
                loop {
                    match open(pursuit.target().await?.node).await {
                        Ok(reader) => break reader,
                        Err(error) => pursuit.after(error).await?,
                    }
                }
            }
        };
        let (queue, consumer) = (queue.clone(), consumer.clone());
        Ok(Self { route, queue, consumer, setup, seat, reader })
    }

    /// Reads, and again after the queue has moved. What was acknowledged is not acknowledged again.
    async fn follow(&mut self, mut request: ReadRequest<'_>) -> Result<ReadReply> {
        let (cluster, slot) = match &self.route {
            Route::One(_) => return self.reader.read(&request).await,
            Route::Slot(cluster, slot) => (Arc::clone(cluster), *slot),
        };
        let mut pursuit = Pursuit::after_answer_of(&cluster, slot, self.reader.endpoint().node());
        let (mut acknowledged, mut asked) = (0, None);
        loop {
            let block = request.block.take();
            let read = match &asked {
                Some(to) => self.reader.read_asking(to, &request).await,
                None => self.reader.read(&ReadRequest { block, ..request }).await,
            };
            let mut reply = read.inspect_err(|_| cluster.suspect())?;
            if let Ok(number) = &mut reply.acknowledged {
                *number += acknowledged;
                (acknowledged, request.acks) = (*number, &[]);
            }
            let Some(error) = refusal(&mut reply, block) else {
                let is_empty = matches!(&reply.deliveries, Ok(read) if read.is_empty());
                if asked.is_some() && is_empty && block.is_some() {
                    sleep(ASKED_PAUSE).await;
                }
                return Ok(reply);
            };
            if matches!(error, StoreError::GroupMissing) {
                continue;
            }
            pursuit.after(error).await?;
            let target = pursuit.target().await?;
            asked = target.is_asking.then(|| target.node.link.endpoint().clone());
            if !target.is_asking {
                let waker = Arc::clone(&self.seat.waker);
                let (queue, consumer) = (&self.queue, &self.consumer);
                let opened = RedisReader::open(target.node, queue, consumer, self.setup, waker);
                self.reader = opened.await?;
            }
        }
    }
}

/// Why the request is to be sent again: a node of the cluster refused it without doing anything. Redis
/// 7.0 says of a waiting read whose key moves away that the key is gone: whether it is shows when it is
/// asked again without a wait.
fn refusal(reply: &mut ReadReply, block: Option<Duration>) -> Option<StoreError> {
    let is_redirected = |error: &StoreError| match error {
        StoreError::GroupMissing => block.is_some(),
        error => Redirect::is_said_by(error),
    };
    match (&reply.acknowledged, &reply.deliveries) {
        // They have to reach the caller, who acknowledges the others later.
        (_, Ok(read)) if !read.is_empty() => None,
        (Err(error), _) | (_, Err(error)) if is_redirected(error) => {
            let (acknowledged, deliveries) = (&mut reply.acknowledged, &mut reply.deliveries);
            let taken = std::mem::replace(acknowledged, Ok(0)).err();
            taken.or_else(|| std::mem::replace(deliveries, Ok(Vec::new())).err())
        }
        _ => None,
    }
}

#[async_trait]
impl StreamReader for QueueReader {
    async fn read(&mut self, request: ReadRequest<'_>) -> Result<ReadReply> {
        self.follow(request).await
    }

    async fn ready(&mut self, wait: Duration) -> Result<bool> {
        self.reader.ready(wait).await
    }

    fn waker(&self) -> u64 {
        self.seat.number
    }
}

/// While a queue is on its way, how long an empty read waits.
const ASKED_PAUSE: Duration = Duration::from_millis(100);
