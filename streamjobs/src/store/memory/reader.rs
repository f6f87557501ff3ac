//! Reads that may wait, on streams in memory.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};

use super::faults::delay;
use super::{Fault, MemoryStore};
use crate::model::entry::{Delivery, Entry, Inlet};
use crate::model::name::ConsumerName;
use crate::store::types::Result;
use crate::store::{Queue, ReadReply, ReadRequest, StoreError, StreamReader};

/// Reads one queue for one consumer.
pub(super) struct MemoryReader {
    pub(super) store: MemoryStore,
    pub(super) queue: Queue,
    pub(super) consumer: ConsumerName,
    pub(super) number: u64,
    pub(super) margin: Duration,
}

impl MemoryReader {
    /// Delivers what is there.
    fn deliver(&self, fault: Option<Fault>, request: &ReadRequest<'_>) -> Result<Vec<Delivery>> {
        self.store.step_now("read", fault, |state| {
            let now = state.now();
            let (group, consumer) = (self.queue.group.as_str(), self.consumer.as_str());
            let stream = state.streams.get_mut(&self.queue.key(request.inlet));
            let delivered =
                stream.and_then(|stream| stream.deliver(group, consumer, request.count, now));
            let delivered = delivered.ok_or(StoreError::GroupMissing)?;
            let inlet = request.inlet;
            let delivery =
                |(id, fields)| Delivery { inlet, entry: Entry::new(id, fields), delivery_count: 1 };
            Ok(delivered.into_iter().map(delivery).collect())
        })
    }

    async fn read_once(&mut self, request: ReadRequest<'_>) -> Result<ReadReply> {
        let passage = self.store.faults.passage("read").await;
        if let Some(fault @ (Fault::Unreachable | Fault::RequestLost)) = passage.fault {
            return Err(fault.error());
        }
        let reply = self.carry_out(request).await;
        delay(passage.after).await;
        passage.fault.map_or(reply, |fault| Err(fault.error()))
    }

    async fn carry_out(&mut self, request: ReadRequest<'_>) -> Result<ReadReply> {
        let acknowledged = self.store.step_now("acknowledge", None, |state| {
            Ok(state.acknowledge_all(&self.queue, request.acks))
        });
        if request.count == 0 {
            return Ok(ReadReply { acknowledged, deliveries: Ok(Vec::new()) });
        }
        let until = Instant::now() + request.block.unwrap_or_default();
        self.store.lock().woken.remove(&self.number);
        loop {
            // Registered before the delivery, so that no later change is missed.
            let changed = self.store.changed.notified();
            let deliveries = match self.deliver(self.store.faults.of_waiting_read(), &request) {
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

#[async_trait]
impl StreamReader for MemoryReader {
    async fn read(&mut self, request: ReadRequest<'_>) -> Result<ReadReply> {
        let deadline = Instant::now() + request.block.unwrap_or_default() + self.margin;
        match timeout_at(deadline, self.read_once(request)).await {
            Ok(reply) => reply,
            Err(elapsed) => Err(StoreError::AnswerLost(elapsed.into())),
        }
    }

    async fn ready(&mut self, wait: Duration) -> Result<bool> {
        let until = Instant::now() + wait;
        let (key, group) = (self.queue.key(Inlet::STREAM), self.queue.group.as_str());
        self.store.lock().woken.remove(&self.number);
        loop {
            // Registered before the check, so that no later change is missed.
            let changed = self.store.changed.notified();
            {
                let mut state = self.store.lock();
                if state.woken.remove(&self.number) {
                    return Ok(false);
                }
                // If the group is lost, the read reports it.
                if state.streams.get(&key).is_none_or(|stream| stream.may_deliver(group)) {
                    return Ok(true);
                }
            }
            if timeout_at(until, changed).await.is_err() {
                return Ok(false);
            }
        }
    }

    async fn watch(&mut self) -> Result<()> {
        // Each wait checks the stream itself.
        Ok(())
    }

    fn waker(&self) -> u64 {
        self.number
    }
}
