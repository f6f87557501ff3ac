//! Streams in memory, and the faults that a test can cause.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::entry::EntryId;
use crate::model::error::ConnectError;
use crate::publish::client::{Client, ClientBuilder};
use crate::store::Store;
use crate::store::memory::{Fault, MemoryStore};
use crate::store::raw_access::RawAccess;

/// Streams in memory, and the faults that can happen to them. Clones share the streams.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    store: MemoryStore,
}

impl Streams {
    /// Empty streams.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A client on these streams, with the default settings.
    ///
    /// Handlers and loops of its runtimes run on the current executor.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::in_memory(Arc::new(self.store.clone()))
    }

    /// A client on these streams, with the builder's settings. The builder's address is ignored.
    ///
    /// # Errors
    ///
    /// When a setting is invalid.
    pub fn client_with(&self, builder: ClientBuilder) -> Result<Client, ConnectError> {
        let client = builder.with_store(Arc::new(self.store.clone()), true)?;
        for (stream, count) in client.layouts().counts() {
            self.store.keep_partitions(stream, count);
        }
        Ok(client)
    }

    pub(crate) fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// The time of the streams: what [`Job::now`](crate::Job::now) says, and what the ids of entries are made of. It
    /// starts in November 2023 and moves with tokio's clock.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        let now = self.store.virtual_now().map_or(0, |now| now.0);
        UNIX_EPOCH + Duration::from_millis(now)
    }

    /// Stops answering, like a server that is down.
    pub fn stop(&self) {
        self.store.stop_server();
    }

    /// Starts answering again.
    pub fn start(&self) {
        self.store.start_server();
    }

    /// Loses the answer of the next read: its entries are delivered, but no process knows that.
    pub fn lose_next_read(&self) {
        self.store.fail_next("read", Fault::AnswerLost);
    }

    /// Loses the answer of the next acknowledgement, which still takes effect.
    pub fn lose_next_acknowledgement(&self) {
        self.store.fail_next("acknowledge", Fault::AnswerLost);
    }

    /// Moves the server's clock forwards or backwards.
    pub fn step_clock(&self, milliseconds: i64) {
        self.store.step_clock(milliseconds);
    }

    /// Deletes everything, as `FLUSHALL` does.
    pub fn flush(&self) {
        self.store.flush();
    }

    /// The number of entries in a stream.
    #[must_use]
    pub fn length(&self, stream: &str) -> usize {
        self.store.length(stream)
    }

    /// The pending entries of a group: id, consumer, delivery count.
    #[must_use]
    pub fn pending(&self, stream: &str, group: &str) -> Vec<(EntryId, String, u64)> {
        let rows = self.store.pending(stream, group).into_iter();
        rows.map(|row| (row.id, row.consumer, row.delivery_count)).collect()
    }

    /// Sets the idle time of a pending entry.
    pub fn age(&self, stream: &str, group: &str, id: EntryId, idle: Duration) {
        self.store.age(stream, group, id, idle);
    }
}
