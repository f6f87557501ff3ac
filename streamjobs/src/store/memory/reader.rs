//! Reads that may wait, on streams in memory.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::watch::delay;
use super::{Fault, MemoryStore, steps};
use crate::model::entry::{Delivery, Entry};
use crate::model::name::ConsumerName;
use crate::store::{Queue, ReadReply, ReadRequest, Reply, StoreError, StreamReader};

/// Reads one queue for one consumer.
pub(super) struct MemoryReader {
    store: MemoryStore,
    queue: Queue,
    consumer: ConsumerName,
    number: u64,
    margin: Duration,
}

impl MemoryReader {
    pub(super) fn new(
        store: MemoryStore,
        queue: &Queue,
        consumer: &ConsumerName,
        number: u64,
        margin: Duration,
    ) -> Self {
        let (queue, consumer) = (queue.clone(), consumer.clone());
        Self { store, queue, consumer, number, margin }
    }

    /// One look: what was delivered, or nothing.
    fn look(
        &self,
        met: Option<Fault>,
        request: &ReadRequest<'_>,
    ) -> Result<Vec<Delivery>, StoreError> {
        self.store.step_under(met, "read", |world| {
            let now = world.now();
            let (group, consumer) = (self.queue.group.as_str(), self.consumer.as_str());
            let stream = world.streams.get_mut(&self.queue.key(request.inlet));
            let delivered =
                stream.and_then(|stream| stream.deliver(group, consumer, request.count, now));
            let delivered = delivered.ok_or(StoreError::GroupMissing)?;
            let inlet = request.inlet;
            let delivery =
                |(id, fields)| Delivery { inlet, entry: Entry::new(id, fields), delivery_count: 1 };
            Ok(delivered.into_iter().map(delivery).collect())
        })
    }

    async fn read_once(&mut self, request: ReadRequest<'_>) -> Result<ReadReply, StoreError> {
        let passage = self.store.passage("read").await;
        let lost = || StoreError::AnswerLost("as ordered".into());
        match passage.fault {
            Some(Fault::Unreachable) => return Err(StoreError::Unreachable("as ordered".into())),
            Some(Fault::RequestLost) => return Err(lost()),
            Some(Fault::AnswerLost | Fault::Panic) | None => {}
        }
        let reply = self.carry_out(request).await;
        delay(passage.after).await;
        if passage.fault.is_some() { Err(lost()) } else { reply }
    }

    async fn carry_out(&mut self, request: ReadRequest<'_>) -> Result<ReadReply, StoreError> {
        let acknowledge = |world: &mut _| Ok(steps::acknowledge(world, &self.queue, request.acks));
        let acknowledged = self.store.step("acknowledge", acknowledge);
        if request.count == 0 {
            return Ok(ReadReply { acknowledged, deliveries: Ok(Vec::new()) });
        }
        let until = Instant::now() + request.block.unwrap_or_default();
        self.store.lock().woken.remove(&self.number);
        loop {
            // Registered before the look, so that nothing that comes after it is missed.
            let changed = self.store.changed.notified();
            let deliveries = match self.look(self.store.look_fault(), &request) {
                Err(error @ (StoreError::Unreachable(_) | StoreError::AnswerLost(_))) => {
                    return Err(error);
                }
                deliveries => deliveries,
            };
            let woken = self.store.lock().woken.remove(&self.number);
            let waits = request.block.is_some()
                && !woken
                && matches!(&deliveries, Ok(none) if none.is_empty());
            if !waits || timeout_at(until, changed).await.is_err() {
                return Ok(ReadReply { acknowledged, deliveries });
            }
        }
    }
}

impl StreamReader for MemoryReader {
    fn read<'a>(&'a mut self, request: ReadRequest<'a>) -> Reply<'a, ReadReply> {
        let deadline = Instant::now() + request.block.unwrap_or_default() + self.margin;
        Box::pin(async move {
            match timeout_at(deadline, self.read_once(request)).await {
                Ok(reply) => reply,
                Err(elapsed) => Err(StoreError::AnswerLost(elapsed.into())),
            }
        })
    }

    fn waker(&self) -> u64 {
        self.number
    }
}
